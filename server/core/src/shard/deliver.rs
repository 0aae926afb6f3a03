//! Delivery: a new entry goes to every session for which it is the next one; all others catch up from the tail or
//! the log, one page at a time per session, within their credit.

use talaria_protocol::{
    chain::Chain,
    entry::{EntryHeader, EntryKind},
    ids::{ConversationId, UserId},
    limits::{PAGE_BYTES_MAX, PAGE_ENTRIES_MAX},
    message::{
        Credit, Direction,
        server::{ServerFrame, encode_deliver},
    },
    session::Lane,
};

use super::{ReadTarget, Shard, ask::Ask};
use crate::{
    conversation::Refusal,
    effect::{Effect, SessionKey},
    fan_out::{FanOut, Sight, entry_for},
    limits::SUBSCRIPTIONS_PER_SESSION_MAX,
    log::{MemberRow, PageQuery, ReadAnswer, ReadOp, StoredEntry},
    session::{Progress, Session, Subscription},
};

/// Whether the next entry could be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    /// It was, or need not be.
    Sent,
    /// Its session has no credit for it.
    NoCredit,
}

/// How a session stands after a look at its first lagging conversation.
enum Turn {
    /// On to the next conversation.
    Next,
    /// Something has to come first: credit, a page, a load.
    Wait,
    /// A page is needed.
    Read(u64),
    /// The conversation is not in memory.
    Load,
}

impl Shard {
    /// A new durable entry, to all who see it.
    pub(super) fn fan_out(&mut self, id: ConversationId, entry: &StoredEntry, author: Option<(UserId, u32)>) {
        let Some(conversation) = self.ready(id) else { return };
        let recipients: Vec<SessionKey> = conversation
            .members()
            .filter(|(_, row)| row.sees(entry.seq))
            .flat_map(|(user, _)| self.directory.of_user(*user))
            .copied()
            .collect();
        let mut fan_out = FanOut::new(id, entry, author);
        for session in recipients {
            self.offer(session, &mut fan_out);
        }
    }

    fn offer(&mut self, key: SessionKey, fan_out: &mut FanOut<'_>) {
        let (id, seq) = (fan_out.conversation, fan_out.entry.seq);
        let Some(session) = self.directory.sessions.get_mut(&key) else { return };
        let user = session.identity.user;
        let known = session.subscriptions.get(&id).copied();
        let Some(subscription) = known.filter(|known| known.progress != Progress::Stopped) else {
            return self.hint(key, id);
        };
        if subscription.progress != Progress::Live || subscription.next > seq {
            return;
        }
        if subscription.next == seq {
            let (frame, bytes) = fan_out.encoded(user, session.device_number);
            if let Some(cost) = session.take_credit(*bytes) {
                advance(session, id, seq);
                self.effects.push_back(Effect::Deliver {
                    session: key,
                    conversation: id,
                    lane: Lane::Live,
                    frame: frame.clone(),
                    cost,
                });
                return;
            }
        }
        session.lag(id);
        self.pump(key);
    }

    /// Tells a session of a conversation that it has not resumed, once.
    fn hint(&mut self, key: SessionKey, id: ConversationId) {
        let Some(session) = self.directory.sessions.get_mut(&key) else { return };
        let user = session.identity.user;
        if let Some(subscription) = session.subscriptions.get_mut(&id) {
            subscription.progress = Progress::Hinted;
        } else if session.subscriptions.len() < SUBSCRIPTIONS_PER_SESSION_MAX {
            session.subscriptions.insert(id, Subscription::new(Progress::Hinted));
        } else {
            // It has no place to remember that it was told; its client has as many as a session can and syncs later.
            return;
        }
        if let Some(state) = self.ready(id).and_then(|conversation| conversation.state(user)) {
            self.send(key, ServerFrame::Changed(state));
        }
    }

    /// Goes on with a session's lagging conversations until something has to come first.
    pub(super) fn pump(&mut self, key: SessionKey) {
        loop {
            let Some(session) = self.directory.sessions.get(&key) else { return };
            let Some(id) = session.lagging.front().copied() else { return };
            if session.reading {
                return;
            }
            match self.catch_up(key, id) {
                Turn::Next => {
                    if let Some(session) = self.directory.sessions.get_mut(&key) {
                        session.lagging.pop_front();
                    }
                }
                Turn::Wait => return,
                // Refused, its delivery has stopped, and the next one is looked at.
                Turn::Load => {
                    self.set_reading(key, true);
                    self.load_for(key, id);
                }
                Turn::Read(from) => return self.read_page(key, id, from),
            }
        }
    }

    /// Loads a lagging conversation, or waits until it may be read.
    fn load_for(&mut self, key: SessionKey, id: ConversationId) {
        if self.slots.contains_key(&id) || self.under_way.can_read() {
            self.ask(key, id, Ask::CatchUp);
        } else {
            self.waiting_to_read.push_back(key);
        }
    }

    /// Sends what the tail has; says what is needed then.
    fn catch_up(&mut self, key: SessionKey, id: ConversationId) -> Turn {
        let Some(super::ask::Slot::Ready(conversation, _)) = self.slots.get(&id) else { return Turn::Load };
        let Some(session) = self.directory.sessions.get_mut(&key) else { return Turn::Wait };
        let Some(subscription) = session.subscriptions.get(&id).copied() else { return Turn::Next };
        let user = session.identity.user;
        let Some(row) = conversation.member(user) else { return Turn::Next };
        if subscription.progress != Progress::Lagging {
            return Turn::Next;
        }
        let head = row.head(conversation.heads().head);
        let mut next = subscription.next;
        while subscription.skipped_from.is_none()
            && next <= head
            && let Some(entry) = conversation.tail(next)
        {
            match step(session, key, id, row, entry, &mut self.effects) {
                Step::Sent => next += 1,
                Step::NoCredit => return Turn::Wait,
            }
        }
        if next > head {
            let heads = conversation.heads();
            let chain = (head == heads.head).then_some(heads.chain);
            return caught_up(session, key, id, (head, chain), &mut self.effects);
        }
        let left = session.credit_left();
        if left.entries == 0 || left.bytes == 0 { Turn::Wait } else { Turn::Read(next) }
    }

    fn read_page(&mut self, key: SessionKey, id: ConversationId, from: u64) {
        let Some(left) = self.directory.sessions.get(&key).map(Session::credit_left) else { return };
        self.set_reading(key, true);
        if !self.under_way.can_read() {
            return self.waiting_to_read.push_back(key);
        }
        let query = PageQuery {
            conversation: id,
            from,
            direction: Direction::Forward,
            entries_max: usize::try_from(left.entries).unwrap_or(usize::MAX).min(PAGE_ENTRIES_MAX),
            bytes_max: usize::try_from(left.bytes).unwrap_or(usize::MAX).min(PAGE_BYTES_MAX),
        };
        self.read(ReadOp::Page(query), ReadTarget::CatchUp(key, id));
    }

    /// A page of the log for a lagging conversation.
    pub(super) fn on_page(&mut self, key: SessionKey, id: ConversationId, answer: ReadAnswer) {
        self.set_reading(key, false);
        if let ReadAnswer::Page { chain_before, entries } = answer {
            if self.deliver_page(key, id, chain_before, &entries) == Step::NoCredit {
                // Reading it again would end the same: a grant goes on.
                return;
            }
        } else {
            let refusal = Refusal::read_failed();
            self.stop_delivery(key, id, &refusal);
        }
        if let Some(session) = self.directory.sessions.get_mut(&key)
            && session.lagging.front() == Some(&id)
        {
            session.lagging.rotate_left(1);
        }
        self.pump(key);
    }

    fn deliver_page(
        &mut self,
        key: SessionKey,
        id: ConversationId,
        chain_before: Chain,
        entries: &[StoredEntry],
    ) -> Step {
        let Some(super::ask::Slot::Ready(conversation, _)) = self.slots.get(&id) else { return Step::Sent };
        let Some(session) = self.directory.sessions.get_mut(&key) else { return Step::Sent };
        let Some(row) = conversation.member(session.identity.user) else { return Step::Sent };
        let head = row.head(conversation.heads().head);
        let Some(subscription) = session.subscriptions.get_mut(&id) else { return Step::Sent };
        // Resumed anew since, from elsewhere.
        if subscription.progress != Progress::Lagging
            || entries.first().map(|entry| entry.seq) != Some(subscription.next)
        {
            return Step::Sent;
        }
        if let Some(from) = subscription.skipped_from.take() {
            let to = subscription.next - 1;
            subscription.sent_max = subscription.sent_max.max(to);
            let frame = ServerFrame::Skipped { conversation: id, from, to, chain: chain_before };
            self.effects.push_back(Effect::Send { session: key, frame });
        }
        for entry in entries.iter().take_while(|entry| entry.seq <= head) {
            if step(session, key, id, row, entry, &mut self.effects) == Step::NoCredit {
                return Step::NoCredit;
            }
        }
        Step::Sent
    }

    /// A load that a catch-up waited for has ended.
    pub(super) fn resume_reading(&mut self, key: SessionKey) {
        self.set_reading(key, false);
        self.pump(key);
    }

    pub(super) fn on_credit(&mut self, key: SessionKey, credit: Credit) {
        if let Some(session) = self.directory.sessions.get_mut(&key) {
            session.grant(credit);
            self.pump(key);
        }
    }

    /// A reader is free: the session that has waited longest goes on.
    pub(super) fn wake_waiting_reader(&mut self) {
        while self.under_way.can_read()
            && let Some(key) = self.waiting_to_read.pop_front()
        {
            self.resume_reading(key);
        }
    }

    pub(super) fn set_reading(&mut self, key: SessionKey, reading: bool) {
        if let Some(session) = self.directory.sessions.get_mut(&key) {
            session.reading = reading;
        }
    }
}

/// The reader's entries have all been sent.
fn caught_up(
    session: &mut Session,
    key: SessionKey,
    id: ConversationId,
    (head, chain): (u64, Option<Chain>),
    effects: &mut std::collections::VecDeque<Effect>,
) -> Turn {
    if let Some(subscription) = session.subscriptions.get_mut(&id) {
        subscription.progress = Progress::Live;
        if !subscription.told {
            subscription.told = true;
            let frame = ServerFrame::CaughtUp { conversation: id, head, chain };
            effects.push_back(Effect::Send { session: key, frame });
        }
    }
    Turn::Next
}

/// Sends the next entry to a lagging session, as much of it as the reader may see.
fn step(
    session: &mut Session,
    key: SessionKey,
    id: ConversationId,
    row: &MemberRow,
    stored: &StoredEntry,
    effects: &mut std::collections::VecDeque<Effect>,
) -> Step {
    let entry = entry_for(stored, sight(session, row, stored));
    let Some(cost) = session.take_credit(entry.encoded_len() as u64) else { return Step::NoCredit };
    advance(session, id, stored.seq);
    let frame = encode_deliver(id, &entry);
    effects.push_back(Effect::Deliver { session: key, conversation: id, lane: Lane::Bulk, frame, cost });
    Step::Sent
}

fn advance(session: &mut Session, id: ConversationId, seq: u64) {
    if let Some(subscription) = session.subscriptions.get_mut(&id) {
        subscription.next = seq + 1;
        subscription.sent_max = subscription.sent_max.max(seq);
    }
}

fn sight(session: &Session, row: &MemberRow, stored: &StoredEntry) -> Sight {
    if !row.sees(stored.seq) {
        return Sight::Stub;
    }
    let own = EntryHeader::parse(&stored.header).is_ok_and(|header| {
        header.sender == session.identity.user
            && header.device == session.device_number
            && header.kind == EntryKind::Message
    });
    if own { Sight::Own } else { Sight::Full }
}
