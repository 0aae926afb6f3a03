//! Operations of a conversation as the domain makes them: dense, chained, each with its id. Deterministic.

use bytes::Bytes;
use prost::Message;
use talaria_core::log::{
    Accepted, Append, ConversationRow, CursorWrite, Cut, Epoch, Heads, LogOp, MemberRow, Span, StoredBody,
    StoredEntry,
};
use talaria_protocol::{
    chain::Chain,
    hlc::Hlc,
    ids::{ClientMessageId, ConversationId, DeviceId, UserId},
    message::{ConversationKind, MemberRole},
    wire,
};

/// The time at which every scenario begins, ms since 1970.
const BEGIN_MS: u64 = 1_800_000_000_000;

/// A conversation's id, by number.
pub fn conversation_id(number: u8) -> ConversationId {
    ConversationId::new([number; 16])
}
/// A user's id, by number.
pub fn user_id(number: u8) -> UserId {
    UserId::new([0x80 | number; 16])
}
/// A device's id, by number.
pub fn device_id(number: u8) -> DeviceId {
    DeviceId::from_parts(BEGIN_MS, [number; 10])
}
/// A client message id, by number; a greater number has a later time.
pub fn message_id(number: u64) -> ClientMessageId {
    ClientMessageId::from_parts(BEGIN_MS + number, [7; 10])
}

/// A direct conversation of users 0 and 1, or a group, and the operations that make it grow.
#[derive(Clone, Debug)]
pub struct Scenario {
    /// Which.
    pub conversation: ConversationId,
    /// After the last operation that was made.
    pub heads: Heads,
    members: u8,
    next_id: u64,
    /// chain(0), chain(1) …
    chains: Vec<Chain>,
}

impl Scenario {
    /// Direct conversation `number`, with nothing in it yet.
    pub fn new(number: u8) -> Self {
        Self::of(number, ConversationKind::Direct, 2)
    }
    /// Group `number` of so many members, with nothing in it yet.
    pub fn group(number: u8, members: u8) -> Self {
        Self::of(number, ConversationKind::Group, members)
    }

    fn of(number: u8, kind: ConversationKind, members: u8) -> Self {
        let heads = Heads {
            kind,
            title: if kind == ConversationKind::Group { format!("group {number}") } else { String::new() },
            head: 0,
            ordinal: 0,
            chain: Chain::ZERO,
            first_seq: 1,
            first_chain: Chain::ZERO,
            epochs: vec![Epoch { epoch: 100, first_seq: 1, chain_before: Chain::ZERO }],
            hlc: Hlc::from_ms(BEGIN_MS),
            history_open: false,
        };
        Self { conversation: conversation_id(number), heads, members, next_id: 0, chains: vec![Chain::ZERO] }
    }

    /// The entry that begins it, with all members' rows.
    pub fn create(&mut self) -> LogOp {
        let owner =
            if self.heads.kind == ConversationKind::Group { MemberRole::Owner } else { MemberRole::Member };
        let row = |number: u8| {
            let role = if number == 0 { owner } else { MemberRole::Member };
            let row =
                MemberRow { role, subject: format!("user{number}"), spans: vec![Span { from: 1, to: None }] };
            (user_id(number), row)
        };
        let members = (0..self.members).map(row).collect();
        self.append(0, wire::EntryKind::Membership, b"created", members)
    }

    /// A message of user `sender`.
    pub fn message(&mut self, sender: u8, text: &str) -> LogOp {
        self.append(sender, wire::EntryKind::Message, text.as_bytes(), Vec::new())
    }

    /// User 0 removes user `number`, who has been there from the beginning.
    pub fn remove(&mut self, number: u8) -> LogOp {
        let spans = vec![Span { from: 1, to: Some(self.heads.head + 1) }];
        let row = MemberRow { role: MemberRole::Member, subject: format!("user{number}"), spans };
        self.append(0, wire::EntryKind::Membership, b"removed", vec![(user_id(number), row)])
    }

    /// Entries below `first_seq` go, and the epochs that ended before it. `commit` is that of the last append.
    pub fn cut(&mut self, first_seq: u64, commit: u64) -> LogOp {
        let heads = &mut self.heads;
        heads.first_seq = first_seq;
        heads.first_chain = self.chains[first_seq as usize - 1];
        let in_force = heads.epochs.iter().rposition(|epoch| epoch.first_seq <= first_seq);
        heads.epochs.drain(..in_force.unwrap_or(0));
        let row = ConversationRow { heads: heads.clone(), commit };
        LogOp::Cut(Cut { conversation: self.conversation, row })
    }

    /// The next entry is stamped no earlier than this.
    pub fn now(&mut self, unix_ms: u64) {
        self.heads.hlc = self.heads.hlc.max(Hlc::from_ms(unix_ms));
    }

    /// The next entry begins a new epoch.
    pub fn new_epoch(&mut self, epoch: u64) {
        let (first_seq, chain_before) = (self.heads.head + 1, self.heads.chain);
        self.heads.epochs.push(Epoch { epoch, first_seq, chain_before });
    }

    /// The next entry takes the id of this number, used before or not.
    pub fn next_message_id(&mut self, number: u64) {
        self.next_id = number;
    }

    /// The delivered cursor of a user's device of the same number, at the head.
    pub fn cursor(&self, user: u8) -> CursorWrite {
        let epoch = self.heads.epochs.last().map_or(0, |epoch| epoch.epoch);
        let (conversation, seq) = (self.conversation, self.heads.head);
        CursorWrite { conversation, user: user_id(user), device: device_id(user), epoch, seq }
    }

    fn append(
        &mut self,
        sender: u8,
        kind: wire::EntryKind,
        content: &[u8],
        members: Vec<(UserId, MemberRow)>,
    ) -> LogOp {
        let (sender, id) = (user_id(sender), message_id(self.next_id));
        self.next_id += 1;
        let heads = &mut self.heads;
        heads.head += 1;
        heads.ordinal += u64::from(kind == wire::EntryKind::Message);
        heads.hlc = heads.hlc.tick(BEGIN_MS + heads.head);
        let epoch = heads.epochs.last().map_or(0, |epoch| epoch.epoch);
        let header = wire::EntryHeader {
            seq: heads.head,
            ordinal: heads.ordinal,
            epoch,
            hlc: heads.hlc.0,
            sender: sender.to_bytes(),
            device: 1,
            kind: kind.into(),
            client_message_id: id.to_bytes(),
            ..Default::default()
        };
        let mut salt = [0x5a; 16];
        salt[..8].copy_from_slice(&heads.head.to_be_bytes());
        let body = StoredBody::Kept { content: Bytes::copy_from_slice(content), salt };
        let header = Bytes::from(header.encode_to_vec());
        let mut entry = StoredEntry { seq: heads.head, header, body, chain: Chain::ZERO };
        entry.chain = heads.chain.next(self.conversation, entry.seq, &entry.leaf());
        heads.chain = entry.chain;
        self.chains.push(entry.chain);
        let accepted = Accepted { seq: heads.head, epoch, hlc: heads.hlc, digest: [heads.head as u8; 32] };
        LogOp::Append(Append {
            conversation: self.conversation,
            entries: vec![entry],
            heads: heads.clone(),
            accepted: vec![(sender, id, accepted)],
            members,
        })
    }
}
