//! The record of a run: what was asked, answered, delivered and read, and when. At the end, and whenever the log goes
//! back, it is held against the [`truth`](super::truth).

use std::collections::{BTreeMap, HashMap};

use bytes::Bytes;
use talaria_core::{
    effect::SessionKey,
    log::{ReadAnswer, ReadOp},
};
use talaria_protocol::{
    chain::Chain,
    entry::{Entry, EntryForm},
    error_code::ErrorCode,
    ids::{ClientMessageId, ConversationId, UserId},
    message::{
        Direction, Role,
        client::{History, Request},
        server::{HistoryPage, Sent},
    },
};

use super::{
    truth::{self, Truth},
    world::World,
};

/// What happened to a request to append.
#[derive(Debug)]
struct Op {
    /// Of the device that made it.
    device: (u8, Role),
    request: Request,
    conversation: Option<ConversationId>,
    invoked: Option<u64>,
    completed: Option<u64>,
    /// seq, epoch; seq 0: nothing was appended.
    ok: Option<(u64, u64)>,
    failed: Option<ErrorCode>,
    /// It was acknowledged, and the log went back behind it.
    lost: bool,
}

/// A page of history that was read.
#[derive(Debug)]
struct Read {
    user: UserId,
    conversation: ConversationId,
    begun: u64,
    head: u64,
}

/// An entry that reached a user, when the conversation's head was `head`.
#[derive(Debug)]
struct Reached {
    user: UserId,
    conversation: ConversationId,
    seq: u64,
    hidden: bool,
    head: u64,
}

/// The record of a run.
#[derive(Debug, Default)]
pub(crate) struct Book {
    /// Logical time.
    pub(crate) t: u64,
    /// How often the log went back.
    pub(crate) rollbacks: u32,
    ops: BTreeMap<(UserId, ClientMessageId), Op>,
    reads: Vec<Read>,
    reached: Vec<Reached>,
    skipped: Vec<(UserId, ConversationId, u64, u64)>,
    /// (session, conversation) → (request, seq) of what was appended by it.
    orders: HashMap<(SessionKey, ConversationId), Vec<(u64, u64)>>,
    /// How often what came about.
    pub(crate) saw: BTreeMap<&'static str, u64>,
}

impl Book {
    pub(crate) fn saw(&mut self, what: &'static str) {
        *self.saw.entry(what).or_default() += 1;
    }

    fn op(&mut self, user: UserId, id: ClientMessageId) -> &mut Op {
        self.ops.get_mut(&(user, id)).expect("an op that was made")
    }

    pub(super) fn made(&mut self, user: UserId, device: (u8, Role), id: ClientMessageId, request: &Request) {
        let conversation = match request {
            Request::Send(send) => Some(send.conversation),
            Request::AddMembers(change) | Request::RemoveMembers(change) => Some(change.conversation),
            Request::Leave { conversation, .. } => Some(*conversation),
            _ => None,
        };
        let op = Op {
            device,
            request: request.clone(),
            conversation,
            invoked: None,
            completed: None,
            ok: None,
            failed: None,
            lost: false,
        };
        assert!(self.ops.insert((user, id), op).is_none(), "an id was minted twice");
    }

    pub(crate) fn on_invoked(&mut self, user: UserId, id: ClientMessageId) {
        let t = self.t;
        self.op(user, id).invoked.get_or_insert(t);
    }

    pub(crate) fn content(&self, user: UserId, id: ClientMessageId) -> Bytes {
        match &self.ops[&(user, id)].request {
            Request::Send(send) => send.content.clone(),
            other => panic!("content omitted of {other:?}"),
        }
    }

    pub(crate) fn on_sent(
        &mut self,
        world: &World,
        user: UserId,
        id: ClientMessageId,
        sent: &Sent,
        session: SessionKey,
    ) {
        let conversation = self.op(user, id).conversation.expect("a send names one");
        self.on_ok(world, user, id, conversation, sent.seq, sent.epoch);
        if sent.duplicate {
            self.saw("duplicate");
        } else {
            let order = self.orders.entry((session, conversation)).or_default();
            order.push((sent.request_id.get(), sent.seq));
        }
    }

    pub(crate) fn on_changed(
        &mut self,
        world: &World,
        user: UserId,
        id: ClientMessageId,
        conversation: ConversationId,
        seq: u64,
    ) {
        let epoch = self.op(user, id).ok.map_or(0, |(_, epoch)| epoch);
        self.on_ok(world, user, id, conversation, seq, epoch);
    }

    fn on_ok(
        &mut self,
        world: &World,
        user: UserId,
        id: ClientMessageId,
        conversation: ConversationId,
        seq: u64,
        epoch: u64,
    ) {
        self.saw("acknowledgement");
        if seq > 0 {
            let stored = world.stored(conversation, seq).expect("acknowledged, so in the log");
            let header = talaria_protocol::entry::EntryHeader::parse(&stored.header).expect("a header");
            assert_eq!((header.sender, header.client_message_id), (user, id), "another's seq");
            assert!(epoch == 0 || epoch == header.epoch);
        }
        let t = self.t;
        let op = self.op(user, id);
        let is_direct = matches!(op.request, Request::DirectWith { .. });
        if let Some((before, _)) = op.ok {
            assert!(before == seq || is_direct, "a retry got seq {seq} instead of {before}");
        }
        op.conversation = Some(conversation);
        op.ok = Some((seq, epoch));
        op.completed = Some(t);
        op.lost = false;
    }

    pub(crate) fn on_failed(&mut self, user: UserId, id: ClientMessageId, code: ErrorCode) {
        self.saw("refusal");
        let rollbacks = self.rollbacks;
        let op = self.op(user, id);
        let expected = match code {
            ErrorCode::Forbidden | ErrorCode::UnknownUser => true,
            ErrorCode::NotFound => rollbacks > 0,
            _ => false,
        };
        assert!(expected, "{code:?} to {:?}", op.request);
        op.failed = Some(code);
    }

    fn head(world: &World, conversation: ConversationId) -> u64 {
        match talaria_log::read(world.log.inner(), &ReadOp::Conversation(conversation)) {
            Ok(ReadAnswer::Conversation(Some((row, _)))) => row.heads.head,
            other => panic!("{other:?}"),
        }
    }

    pub(crate) fn on_delivered(
        &mut self,
        world: &World,
        user: UserId,
        conversation: ConversationId,
        entry: &Entry,
    ) {
        let hidden = matches!(entry.form, EntryForm::Hidden { .. });
        self.saw(if hidden { "stub" } else { "entry" });
        let head = Self::head(world, conversation);
        self.reached.push(Reached { user, conversation, seq: entry.seq, hidden, head });
    }

    pub(crate) fn on_skipped(
        &mut self,
        world: &World,
        user: UserId,
        conversation: ConversationId,
        from: u64,
        to: u64,
        chain: Chain,
    ) {
        self.saw("skipped");
        assert_eq!(world.stored(conversation, to).expect("in the log").chain, chain);
        self.skipped.push((user, conversation, from, to));
    }

    pub(crate) fn on_history(&mut self, user: UserId, asked: &History, begun: u64, page: &HistoryPage) {
        let conversation = asked.conversation;
        self.saw("page of history");
        assert!(page.entries.len() <= asked.entries_max);
        assert!(page.entries.iter().all(|entry| (page.first_seq..=page.head).contains(&entry.seq)));
        for entry in &page.entries {
            let hidden = matches!(entry.form, EntryForm::Hidden { .. });
            self.reached.push(Reached { user, conversation, seq: entry.seq, hidden, head: page.head });
        }
        if let (Direction::Backward, 0, Some(last)) = (asked.direction, asked.from, page.entries.last()) {
            assert_eq!(last.seq, page.head, "a page from the head begins there");
        }
        self.reads.push(Read { user, conversation, begun, head: page.head });
    }

    /// Own messages of a device that the log lost.
    pub(crate) fn lost_of(
        &self,
        user: UserId,
        device: (u8, Role),
        conversation: ConversationId,
    ) -> Vec<(ClientMessageId, Request)> {
        let of_it =
            self.ops.range((user, ClientMessageId::new([0; 16]))..=(user, ClientMessageId::new([255; 16])));
        of_it
            .filter(|(_, op)| op.lost && op.device == device && op.conversation == Some(conversation))
            .filter(|(_, op)| matches!(op.request, Request::Send(_)))
            .map(|((_, id), op)| (*id, op.request.clone()))
            .collect()
    }

    /// Holds the record against the log.
    pub(crate) fn check(&self, world: &World) {
        let truths: HashMap<ConversationId, Truth> =
            truth::conversations(world).into_iter().map(|id| (id, Truth::of(world, id))).collect();
        for ((user, id), op) in &self.ops {
            self.check_op(&truths, *user, *id, op);
        }
        for truth in truths.values() {
            self.check_truth(truth);
        }
        for reached in &self.reached {
            check_reached(&truths[&reached.conversation], reached);
        }
        for (user, conversation, from, to) in &self.skipped {
            let truth = &truths[conversation];
            assert!((*from..=*to).all(|seq| !truth.sees(*user, seq)), "skipped what may be seen");
            assert_eq!(truth.first(*user), to + 1, "skipped up to the first that may be seen");
        }
        for read in &self.reads {
            self.check_read(&truths[&read.conversation], read);
        }
        for order in self.orders.values() {
            let mut order = order.clone();
            order.sort_unstable();
            assert!(order.windows(2).all(|pair| pair[0].1 < pair[1].1), "a session's sends changed places");
        }
    }

    fn check_op(&self, truths: &HashMap<ConversationId, Truth>, user: UserId, id: ClientMessageId, op: &Op) {
        let truth = op.conversation.and_then(|conversation| truths.get(&conversation));
        let found = truth.and_then(|truth| truth.find(user, id));
        if let Some((seq, _)) = op.ok.filter(|(seq, _)| *seq > 0) {
            let entry = found.unwrap_or_else(|| panic!("acknowledged, then lost: {id} at {seq}"));
            assert_eq!(entry.stored.seq, seq);
        }
        assert!(op.failed.is_none() || found.is_none(), "refused with {:?}, then appended", op.failed);
        if let (Some(entry), Request::Send(send)) = (found, &op.request) {
            assert_eq!(entry.content, send.content, "other bytes than were sent");
            assert!(op.invoked.is_some(), "appended, but never sent");
        }
    }

    fn check_truth(&self, truth: &Truth) {
        // Linearizable: nothing that was invoked after another's end is before it.
        let mut soonest_end = u64::MAX;
        for entry in truth.entries.iter().rev() {
            let key = (entry.header.sender, entry.header.client_message_id);
            let op = self.ops.get(&key).unwrap_or_else(|| panic!("nobody asked for {}", entry.stored.seq));
            if matches!(op.request, Request::DirectWith { .. }) {
                continue;
            }
            let invoked = op.invoked.expect("invoked");
            assert!(soonest_end >= invoked, "seq {} was begun after a later one had ended", entry.stored.seq);
            soonest_end = soonest_end.min(op.completed.unwrap_or(u64::MAX));
        }
    }

    fn check_read(&self, truth: &Truth, read: &Read) {
        for op in self.ops.values() {
            if op.conversation == Some(read.conversation)
                && let (Some((seq, _)), Some(completed)) = (op.ok, op.completed)
                && completed < read.begun
                && truth.sees(read.user, seq)
            {
                assert!(seq <= read.head, "a read misses what was acknowledged before it began");
            }
        }
    }

    /// The log goes back: what is not in it any more was lost, by the disk's fault.
    pub(super) fn on_rollback(&mut self, world: &World) {
        self.rollbacks += 1;
        self.reads.clear();
        self.reached.clear();
        self.skipped.clear();
        self.orders.clear();
        let truths: HashMap<ConversationId, Truth> =
            truth::conversations(world).into_iter().map(|id| (id, Truth::of(world, id))).collect();
        for ((user, id), op) in &mut self.ops {
            let truth = op.conversation.and_then(|conversation| truths.get(&conversation));
            if op.ok.is_some() && truth.and_then(|truth| truth.find(*user, *id)).is_none() {
                (op.ok, op.completed, op.lost) = (None, None, true);
            }
        }
    }
}

fn check_reached(truth: &Truth, reached: &Reached) {
    let Reached { user, seq, hidden, head, .. } = *reached;
    assert_eq!(truth.sees(user, seq), !hidden, "seq {seq} of {user}: hidden {hidden}");
    let later = (seq + 1..=head).any(|seq| truth.sees(user, seq));
    assert!(!hidden || later, "seq {seq} reached a user who was removed before it");
}
