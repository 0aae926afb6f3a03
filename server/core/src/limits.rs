//! Bounds of a shard: every queue and cache of the core, with what happens when it is full.

/// Log operations of one shard under way. Full: sends are answered `Busy`, cursors wait.
pub const LOG_OPS_IN_FLIGHT_MAX: usize = 4096;
/// Bytes of their contents. Full: sends are answered `Busy`.
pub const LOG_BYTES_IN_FLIGHT_MAX: usize = 32 * 1024 * 1024;
/// Places of [`LOG_OPS_IN_FLIGHT_MAX`] kept for what is not a send: users, devices, cursors.
pub const LOG_OPS_RESERVED: usize = 64;
/// Reads of one shard under way. Full: requests are answered `Busy`, a session's catch-up waits for its turn.
pub const READS_IN_FLIGHT_MAX: usize = 1024;
/// Inputs parked at a conversation that is loading or that a membership change bars. Full: `Busy`.
pub const PARKED_MAX: usize = 256;
/// Entries of a conversation kept in memory for those who lag a little. Full: the oldest goes.
pub const TAIL_ENTRIES_MAX: usize = 64;
/// Content bytes likewise.
pub const TAIL_BYTES_MAX: usize = 128 * 1024;
/// Conversations in memory. Full: one at rest (nothing pending, no reader) is unloaded; else `Busy`.
pub const CONVERSATIONS_LOADED_MAX: usize = 20_000;
/// Client message ids that a conversation remembers in memory, per user.
pub const RECENT_IDS_MAX: usize = 128;
/// Sessions of a shard, those that are opening included. Full: refused, `Busy`.
pub const SESSIONS_MAX: usize = 1_000_000;
/// Conversations that one session has resumed. Full: the `Resume` is refused.
pub const SUBSCRIPTIONS_PER_SESSION_MAX: usize = 20_000;
/// Cursors are committed at most this long after their acknowledgement.
pub const CURSOR_DELAY_MS_MAX: u64 = 100;
/// Cursors in one log operation.
pub const CURSORS_PER_OP_MAX: usize = 1024;
/// What an answer that the log could not be read asks a client to wait.
pub const READ_FAILED_RETRY_AFTER_MS: u32 = 2_000;
/// What a busy answer asks a client to wait.
pub const BUSY_RETRY_AFTER_MS: u32 = 200;
/// Rows of a group: members, and all who were once, since they may still read their part. Full: `GroupFull`.
pub const GROUP_ROWS_MAX: usize = 5_000;
/// Times that one user can join a group. Full: `GroupFull`.
pub const SPANS_PER_MEMBER_MAX: usize = 64;

/// Shards of a node: a bit for each fits a word.
pub const SHARDS_MAX: u16 = 64;
/// Slots of the node's session directory, 8 bytes each, and 4 in each shard.
pub const SESSION_DIRECTORY_SLOTS: usize = 1 << 18;
/// Questions of one shard to others under way. Full: what asks is answered `Busy`, a session's catch-up waits.
pub const PEER_ASKS_IN_FLIGHT_MAX: usize = 4096;
/// Questions that wait at a shard. Full: the asking shard answers `Busy`.
pub const PEER_ASKS_QUEUED_MAX: usize = 4096;
/// Entries of others that wait at a shard. Full: a gap is noted, and told once there is room.
pub const PEER_FAN_OUTS_QUEUED_MAX: usize = 4096;
/// News of sessions that wait at a shard. Full: kept, and posted again once there is room.
pub const PEER_CONTROL_QUEUED_MAX: usize = 4096;
/// Conversations whose gaps are kept for one shard. Full: the gap is of all, and its sessions are looked after one by one.
pub const GAP_CONVERSATIONS_MAX: usize = 4096;
/// Users in them. Full: likewise.
pub const GAP_USERS_MAX: usize = 65_536;
/// Gaps in one message.
pub const GAP_CONVERSATIONS_PER_MESSAGE: usize = 256;
/// Acknowledgements that wait to be posted to the shards of their conversations. Full: a new one is dropped, which costs
/// a redelivery.
pub const ACKS_WAITING_MAX: usize = 65_536;
/// They are posted at most this long after they came.
pub const ACK_DELAY_MS_MAX: u64 = CURSOR_DELAY_MS_MAX / 2;
/// Acknowledgements in one message; as many for one shard are posted at once.
pub const ACKS_PER_MESSAGE: usize = 256;
/// Devices whose delivered cursor a conversation in memory knows. Full: all are forgotten, and the log is asked again.
pub const DELIVERED_KNOWN_MAX: usize = 1024;
/// What a shard asks for again that had no place: after so long, if nothing else sets it off.
pub const ASK_AGAIN_MS: u64 = 200;
/// Entries missing to a session that resumes. More: it gets the newest page, and is told that the others are skipped.
pub const BACKLOG_ENTRIES_MAX: u64 = 500;

const _: () = {
    assert!(GROUP_ROWS_MAX > talaria_protocol::limits::GROUP_MEMBERS_MAX);
    // What cannot be unloaded leaves room to load.
    assert!(CONVERSATIONS_LOADED_MAX > 2 * (READS_IN_FLIGHT_MAX + LOG_OPS_IN_FLIGHT_MAX));
    assert!(LOG_OPS_RESERVED < LOG_OPS_IN_FLIGHT_MAX);
    assert!(BACKLOG_ENTRIES_MAX > talaria_protocol::limits::PAGE_ENTRIES_MAX as u64);
    assert!(GAP_CONVERSATIONS_PER_MESSAGE < GAP_CONVERSATIONS_MAX);
    assert!(SHARDS_MAX as u32 <= u64::BITS);
    assert!(TAIL_BYTES_MAX > talaria_protocol::limits::ENTRY_BYTES_MAX);
};
