//! What goes into a shard and what comes out: the whole interface between the pure core and the node. An effect
//! is data; the node performs it and, for reads and log operations, comes back with the answer.

use bytes::Bytes;
use talaria_protocol::{
    error_code::ErrorCode,
    ids::{ConversationId, DeviceId, UserId},
    message::{Credit, Cursor, RequestId, Role, client::Request, server::ServerFrame},
    session::Lane,
};

use crate::{
    log::{LogOp, Outcome, ReadAnswer, ReadOp, Retention},
    peer::{PeerMessage, ShardId},
};

/// The time of an input, as the node read it once for it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Now {
    /// Ms since an arbitrary start; never goes back. For timers.
    pub mono_ms: u64,
    /// Ms since 1970; may jump. For stamps and the dedup window.
    pub unix_ms: u64,
}

/// A session, by the number that its node gave it. Never reused within a run of the node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionKey(pub u64);

/// A log operation under way, by the number that its shard gave it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OpId(pub u64);

/// A read under way, by the number that its shard gave it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ReadId(pub u64);

/// Who a session is, as its token and its Hello say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Of the deployment; empty by default.
    pub tenant: String,
    /// Of the token.
    pub subject: String,
    /// Derived from both.
    pub user: UserId,
    /// The installation.
    pub device: DeviceId,
    /// Which of its sessions.
    pub role: Role,
}

/// What happens to a shard.
#[derive(Debug)]
pub enum Input {
    /// A session has proved who it is. Answered by [`Effect::Opened`] or [`Effect::Refused`].
    Open {
        /// Its number.
        session: SessionKey,
        /// Who.
        identity: Identity,
        /// First grant.
        credit: Credit,
        /// The peer has proved that it is there now: its bytes are no replay of others. Without it the session takes nobody's
        /// place and shows nobody as present, until [`Input::Confirm`].
        confirmed: bool,
    },
    /// The peer of a session that was opened unconfirmed has proved that it is there now.
    Confirm {
        /// Which.
        session: SessionKey,
    },
    /// A session is gone. Nothing is sent to it any more.
    Close {
        /// Which.
        session: SessionKey,
    },
    /// A session asks for something. Answered by one [`Effect::Reply`].
    Request {
        /// Of this session.
        session: SessionKey,
        /// To be in the answer.
        request_id: RequestId,
        /// What. Its content is kept as it is: no slice of a receive buffer, which would live as long.
        request: Request,
    },
    /// A session holds entries in its store.
    Ack {
        /// Of this session.
        session: SessionKey,
        /// Where.
        conversation: ConversationId,
        /// Up to here.
        up_to: u64,
    },
    /// A session wants deliveries from these cursors on.
    Resume {
        /// Of this session.
        session: SessionKey,
        /// From where.
        cursors: Vec<(ConversationId, Cursor)>,
    },
    /// A session may be sent more: absolute totals.
    Credit {
        /// To this session.
        session: SessionKey,
        /// The new totals.
        credit: Credit,
    },
    /// A log operation has ended. They end in the order of their effects.
    Durable {
        /// Which.
        op: OpId,
        /// How.
        outcome: Outcome,
    },
    /// A read has ended.
    Read {
        /// Which.
        read: ReadId,
        /// With this.
        answer: ReadAnswer,
    },
    /// Another shard has said something.
    Peer {
        /// It.
        from: ShardId,
        /// What.
        message: PeerMessage,
    },
    /// An [`Effect::Post`] found its queue full: here it is again. Comes before any other input. Of an answer, never.
    NotPosted {
        /// For this shard.
        to: ShardId,
        /// What.
        message: PeerMessage,
    },
    /// A queue of this shard, which was full, has room again.
    Room {
        /// Which.
        at: ShardId,
    },
    /// This shard has lost its state and begun anew. What it was asked will not be answered, what it should have fanned out
    /// may be missing, and its sessions are gone. Comes before anything that its new incarnation posts, and after the answers
    /// that the old one has posted: their places are free from now on.
    Restarted {
        /// Which.
        shard: ShardId,
        /// Its new one.
        incarnation: u32,
    },
    /// The oldest entries of a conversation may go.
    Retain(Retention),
    /// The time of [`crate::shard::Shard::poll_timeout`] has come.
    Timeout,
}

/// What a shard wants done.
#[derive(Debug)]
pub enum Effect {
    /// Commit this. At most [`crate::limits::LOG_OPS_IN_FLIGHT_MAX`] are under way: the log queue holds as many
    /// places for this shard, so that handing over never waits.
    Log {
        /// Comes back with [`Input::Durable`].
        op: OpId,
        /// What.
        what: LogOp,
    },
    /// Read this. At most [`crate::limits::READS_IN_FLIGHT_MAX`] are under way.
    Read {
        /// Comes back with [`Input::Read`].
        read: ReadId,
        /// What.
        what: ReadOp,
    },
    /// Put this into another shard's mailbox, or say [`Input::NotPosted`].
    Post {
        /// That shard's.
        to: ShardId,
        /// What.
        message: PeerMessage,
    },
    /// The session is in the directory: send its Welcome.
    Opened {
        /// Which.
        session: SessionKey,
        /// The device's small number.
        device_number: u32,
    },
    /// The session may not be opened: send Refused and close.
    Refused {
        /// Which.
        session: SessionKey,
        /// Why.
        code: ErrorCode,
        /// For a developer.
        message: String,
        /// 0: no hint.
        retry_after_ms: u32,
    },
    /// The answer to a request, which it releases.
    Reply {
        /// To this session.
        session: SessionKey,
        /// The request that it answers.
        request_id: RequestId,
        /// The answer, `request_id` inside.
        frame: ServerFrame,
        /// What it takes from the session's credit (history pages).
        cost: Credit,
    },
    /// Any other frame.
    Send {
        /// To this session.
        session: SessionKey,
        /// It.
        frame: ServerFrame,
    },
    /// A live or caught-up entry; the frame is encoded once and shared among sessions.
    Deliver {
        /// To this session.
        session: SessionKey,
        /// Of this conversation, whose entries leave in their order.
        conversation: ConversationId,
        /// Live, or read from the log.
        lane: Lane,
        /// A whole `Deliver` frame, length prefix included.
        frame: Bytes,
        /// What it takes from the session's credit.
        cost: Credit,
    },
    /// End the session with GoAway: taken over, or a breach of the protocol.
    End {
        /// Which.
        session: SessionKey,
        /// Why.
        code: ErrorCode,
        /// For a developer.
        message: String,
    },
}
