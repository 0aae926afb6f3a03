//! A session offers a cursor: it is compared with the log at that place, and deliveries begin after it, or the
//! client is told where its copy and the log part. No claim of a client changes anything but its own deliveries.

use talaria_protocol::{
    chain::Chain,
    error_code::ErrorCode,
    ids::ConversationId,
    message::{Cursor, server::ServerFrame},
};

use super::{ReadTarget, Shard, ask::Ask};
use crate::{
    conversation::Refusal,
    effect::SessionKey,
    limits::SUBSCRIPTIONS_PER_SESSION_MAX,
    log::{CursorWrite, Heads, MemberRow, ReadAnswer, ReadOp},
    session::{Progress, Subscription},
};

/// A client's cursor, held against the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Comparison {
    /// The log has the same entries up to it.
    Fits,
    /// The client holds entries of an epoch that the log does not have.
    Fork { first_seq: u64, chain: Chain, epoch: u64 },
    /// Same place, same epoch, other entries: one of the two copies is damaged.
    Differs,
}

/// Where a cursor stands. `at`: chain and epoch of the log's entry at its seq.
pub(super) fn compare(heads: &Heads, cursor: &Cursor, at: Option<(Chain, u64)>) -> Comparison {
    if cursor.seq == 0 {
        return Comparison::Fits;
    }
    match at {
        // Whatever epoch the client knows of: it may hold no header there, stubs only.
        Some((chain, _)) if chain == cursor.chain => return Comparison::Fits,
        Some((_, epoch)) if epoch == cursor.epoch => return Comparison::Differs,
        _ => {}
    }
    let epochs = &heads.epochs;
    let begin = |n: usize| Comparison::Fork {
        first_seq: epochs[n].first_seq,
        chain: epochs[n].chain_before,
        epoch: if n == 0 { 0 } else { epochs[n - 1].epoch },
    };
    match epochs.iter().rposition(|epoch| epoch.epoch <= cursor.epoch) {
        // All that the log has began after all that the client knows of.
        None => Comparison::Fork { first_seq: 1, chain: Chain::ZERO, epoch: 0 },
        // The epoch ended, or the log does, before the cursor.
        Some(n) if epochs.get(n + 1).is_some_and(|next| cursor.seq >= next.first_seq) => begin(n + 1),
        Some(n) if cursor.seq > heads.head => {
            Comparison::Fork { first_seq: heads.head + 1, chain: heads.chain, epoch: epochs[n].epoch }
        }
        // The log has another epoch there: back to where that began, which is at or before the cursor.
        Some(n) => begin(epochs.iter().rposition(|epoch| epoch.first_seq <= cursor.seq).unwrap_or(n)),
    }
}

impl Shard {
    pub(super) fn on_resume(&mut self, session: SessionKey, cursors: &[(ConversationId, Cursor)]) {
        for (id, cursor) in cursors {
            let Some(state) = self.directory.sessions.get_mut(&session) else { return };
            let known = state.subscriptions.contains_key(id);
            if !known && state.subscriptions.len() >= SUBSCRIPTIONS_PER_SESSION_MAX {
                let refusal =
                    Refusal::busy("this session has resumed as many conversations as a session can");
                self.stop_delivery(session, *id, &refusal);
                continue;
            }
            state.unlag(*id);
            let subscription =
                state.subscriptions.entry(*id).or_insert(Subscription::new(Progress::Resuming));
            subscription.progress = Progress::Resuming;
            subscription.next = cursor.seq.saturating_add(1);
            subscription.told = false;
            subscription.skipped_from = None;
            self.ask(session, *id, Ask::Resume(*cursor));
        }
    }

    pub(super) fn run_resume(&mut self, session: SessionKey, id: ConversationId, cursor: Cursor) {
        let Some(identity) = self.directory.sessions.get(&session).map(|state| &state.identity) else {
            return;
        };
        let (user, device) = (identity.user, identity.device);
        let seq = self.ready(id).and_then(|conversation| {
            Some(seq_to_read(conversation.member(user)?, conversation.heads(), &cursor))
        });
        let Some(seq) = seq else {
            return self.stop_delivery(session, id, &Refusal::not_found());
        };
        if !self.under_way.can_read() {
            return self.stop_delivery(session, id, &Refusal::busy("too many reads are under way"));
        }
        let acked = self.cursors.newest(&(id, user, device));
        if let Some(state) = self.directory.sessions.get_mut(&session)
            && let Some(subscription) = state.subscriptions.get_mut(&id)
        {
            subscription.acked = subscription.acked.max(acked);
        }
        let what = ReadOp::ResumePoint { conversation: id, seq, user, device };
        self.read(what, ReadTarget::Resume(session, id, cursor, seq));
    }

    pub(super) fn on_resume_read(
        &mut self,
        session: SessionKey,
        id: ConversationId,
        cursor: Cursor,
        seq_read: u64,
        answer: &ReadAnswer,
    ) {
        let waits = |subscription: &Subscription| {
            subscription.progress == Progress::Resuming && subscription.next == cursor.seq.saturating_add(1)
        };
        let Some(state) = self.directory.sessions.get(&session) else { return };
        if !state.subscriptions.get(&id).is_some_and(waits) {
            return;
        }
        let user = state.identity.user;
        let ReadAnswer::ResumePoint { at, delivered } = *answer else {
            let refusal = Refusal::read_failed();
            return self.stop_delivery(session, id, &refusal);
        };
        let Some(conversation) = self.ready(id) else {
            return self.ask(session, id, Ask::Resume(cursor));
        };
        let heads = conversation.heads();
        let Some(row) = conversation.member(user) else { return };
        if seq_to_read(row, heads, &cursor) != seq_read {
            // Removed or added since: another place counts.
            return self.ask(session, id, Ask::Resume(cursor));
        }
        let comparison = if seq_read == cursor.seq {
            compare(heads, &cursor, at)
        } else {
            compare(&heads_up_to(heads, seq_read, at), &cursor, None)
        };
        match comparison {
            Comparison::Fits => {
                let acked = delivered
                    .filter(|(epoch, seq)| *seq <= heads.head && heads.epoch_at(*seq) == *epoch)
                    .map_or(0, |(_, seq)| seq);
                let (next, skipped_from) = visible_from(row, cursor.seq + 1);
                self.begin_delivery(session, id, cursor.seq, acked, (next, skipped_from));
            }
            Comparison::Fork { first_seq, chain, epoch } => {
                if let Some(state) = self.directory.sessions.get_mut(&session) {
                    state.stop(id);
                }
                self.send(session, ServerFrame::EpochChanged { conversation: id, first_seq, chain, epoch });
            }
            Comparison::Differs => {
                let message =
                    "the chain at the cursor differs from the log's: one of the two copies is damaged";
                self.stop_delivery(session, id, &Refusal::new(ErrorCode::ChainMismatch, message));
            }
        }
    }

    fn begin_delivery(
        &mut self,
        session: SessionKey,
        id: ConversationId,
        held: u64,
        acked: u64,
        (next, skipped_from): (u64, Option<u64>),
    ) {
        let Some(state) = self.directory.sessions.get_mut(&session) else { return };
        if let Some(subscription) = state.subscriptions.get_mut(&id) {
            subscription.next = next;
            subscription.skipped_from = skipped_from;
            subscription.sent_max = subscription.sent_max.max(held);
            subscription.acked = subscription.acked.max(acked);
        }
        state.lag(id);
        self.record_ack(session, id, held);
        self.pump(session);
    }

    pub(super) fn on_ack(&mut self, session: SessionKey, id: ConversationId, up_to: u64) {
        let Some(state) = self.directory.sessions.get(&session) else { return };
        // One that was stopped, and perhaps hinted at since: its client does not know yet ([DLV-21]).
        let Some(subscription) = state.subscriptions.get(&id) else { return };
        if matches!(subscription.progress, Progress::Hinted | Progress::Stopped) {
            return;
        }
        if up_to > subscription.sent_max {
            return self.end(session, ErrorCode::ProtocolViolation, "Ack.up_to: more than was sent [DLV-21]");
        }
        if self.ready(id).is_some() {
            self.record_ack(session, id, up_to);
        } else {
            self.ask(session, id, Ask::Ack(up_to));
        }
    }

    /// Moves the device's delivered cursor, never back ([DLV-23]): all its sessions learn how far it is.
    pub(super) fn record_ack(&mut self, session: SessionKey, id: ConversationId, up_to: u64) {
        let Some(epoch) = self.ready(id).map(|conversation| conversation.epoch_at(up_to)) else { return };
        let Some(state) = self.directory.sessions.get(&session) else { return };
        if state.subscriptions.get(&id).is_none_or(|subscription| up_to <= subscription.acked) {
            return;
        }
        let (user, device) = (state.identity.user, state.identity.device);
        self.directory.of_device(user, device, |other| {
            if let Some(subscription) = other.subscriptions.get_mut(&id) {
                subscription.acked = subscription.acked.max(up_to);
            }
        });
        self.cursors
            .set(&CursorWrite { conversation: id, user, device, epoch, seq: up_to }, self.now.mono_ms);
    }
}

/// Where the log is asked about a cursor: at its place, but not beyond what one who was a member may know of.
fn seq_to_read(row: &MemberRow, heads: &Heads, cursor: &Cursor) -> u64 {
    if row.is_member() { cursor.seq } else { cursor.seq.min(row.head(heads.head)) }
}

/// The heads as they were when `seq` was the last, of which the log has `at`.
fn heads_up_to(heads: &Heads, seq: u64, at: Option<(Chain, u64)>) -> Heads {
    let chain = at.map_or(Chain::ZERO, |(chain, _)| chain);
    let epochs = heads.epochs.iter().filter(|epoch| epoch.first_seq <= seq).copied().collect();
    Heads { head: seq, chain, epochs, title: String::new(), ..*heads }
}

/// The next seq for this reader, and the first of those that are passed over to get there.
fn visible_from(row: &MemberRow, next: u64) -> (u64, Option<u64>) {
    match row.spans.first() {
        Some(span) if span.from > next => (span.from, Some(next)),
        _ => (next, None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::Epoch;

    fn chain(n: u8) -> Chain {
        Chain::new([n; 32])
    }

    /// Entries 1..=10: epoch 100 has 1..=4, epoch 200 has 5..=10.
    fn heads() -> Heads {
        Heads {
            head: 10,
            chain: chain(10),
            epochs: vec![
                Epoch { epoch: 100, first_seq: 1, chain_before: Chain::ZERO },
                Epoch { epoch: 200, first_seq: 5, chain_before: chain(4) },
            ],
            ..Heads::empty()
        }
    }

    #[test]
    fn cursors_against_the_log() {
        let fork = |first_seq, n: u8, epoch| Comparison::Fork {
            first_seq,
            chain: if n == 0 { Chain::ZERO } else { chain(n) },
            epoch,
        };
        let at =
            |seq: u64| (1..=10).contains(&seq).then(|| (chain(seq as u8), if seq < 5 { 100 } else { 200 }));
        for (epoch, seq, n, expected) in [
            (0, 0, 0, Comparison::Fits),
            (100, 4, 4, Comparison::Fits),
            (200, 10, 10, Comparison::Fits),
            (200, 7, 99, Comparison::Differs),
            // Beyond the end of an epoch that ended.
            (100, 5, 50, fork(5, 4, 100)),
            (100, 50, 50, fork(5, 4, 100)),
            // Beyond the head of the last epoch, or of a later one that was lost.
            (200, 11, 50, fork(11, 10, 200)),
            (300, 12, 50, fork(11, 10, 200)),
            // An epoch between, lost: its entries stand where others are now.
            (150, 5, 50, fork(5, 4, 100)),
            (300, 10, 50, fork(5, 4, 100)),
            (150, 3, 50, fork(1, 0, 0)),
            // A seq before that epoch's own beginning: nonsense, but it goes back and ends.
            (200, 3, 50, fork(1, 0, 0)),
            (1, 3, 50, fork(1, 0, 0)),
            // Before all that the log has: nothing is shared, however far the cursor is.
            (0, 3, 50, fork(1, 0, 0)),
            (99, 7, 50, fork(1, 0, 0)),
            (99, 50, 50, fork(1, 0, 0)),
        ] {
            let cursor = Cursor { epoch, seq, chain: chain(n) };
            assert_eq!(compare(&heads(), &cursor, at(seq)), expected, "epoch {epoch} seq {seq}");
        }
    }
}
