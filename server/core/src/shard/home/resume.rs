//! A cursor is compared with the log at its place: deliveries begin after it, or the client is told where its copy and
//! the log part. No claim of a client changes anything but its own deliveries.

use talaria_protocol::{
    chain::Chain, error_code::ErrorCode, ids::ConversationId, limits::PAGE_ENTRIES_MAX, message::Cursor,
};

use super::{delivered::valid, page::reader_head};
use crate::{
    answer::{Answer, Resumed},
    conversation::{Conversation, Refusal},
    limits::BACKLOG_ENTRIES_MAX,
    log::{Heads, MemberRow, ReadAnswer, ReadOp},
    peer::Asking,
    question::Question,
    shard::{
        Shard,
        under_way::{ReadTarget, ResumeRead},
    },
};

/// A client's cursor, held against the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Comparison {
    /// The log has the same entries up to it.
    Fits,
    /// The log has nothing any more to compare it with, or to go on from there ([DLV-38]).
    Truncated,
    /// The client holds entries of an epoch that the log does not have.
    Fork { first_seq: u64, chain: Chain, epoch: u64 },
    /// Same place, same epoch, other entries: one of the two copies is damaged.
    Differs,
}

/// Where a cursor stands. `at`: chain and epoch of the log's entry at its seq.
fn compare(heads: &Heads, cursor: &Cursor, at: Option<(Chain, u64)>) -> Comparison {
    let next = cursor.seq.saturating_add(1);
    if next < heads.first_seq {
        return Comparison::Truncated;
    }
    if next == heads.first_seq {
        let fits = cursor.seq == 0 || cursor.chain == heads.first_chain;
        return if fits { Comparison::Fits } else { Comparison::Truncated };
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
    pub(super) fn run_resume(&mut self, asking: Asking, id: ConversationId, cursor: Cursor) {
        let Asking { user, device, .. } = asking;
        let seq = self.ready(id).and_then(|conversation| {
            Some(seq_to_read(conversation.member(user)?, conversation.heads(), &cursor))
        });
        let refusal = match seq {
            None => Refusal::not_found(),
            Some(_) if !self.under_way.can_read() => Refusal::busy("too many reads are under way"),
            Some(seq) => {
                let newest = self.home.cursors.newest(&(id, user, device));
                let what = ReadOp::ResumePoint { conversation: id, seq, user, device };
                let why = ResumeRead { asking, conversation: id, cursor, seq, newest };
                return self.read(what, ReadTarget::Resume(why));
            }
        };
        self.answer(asking.shard, asking.ask, Answer::Refused(refusal));
    }

    pub(in crate::shard) fn on_resume_read(&mut self, read: &ResumeRead, answer: &ReadAnswer) {
        let ResumeRead { asking, conversation: id, cursor, seq, newest } = *read;
        let ReadAnswer::ResumePoint { at, delivered } = *answer else {
            return self.answer(asking.shard, asking.ask, Answer::Refused(Refusal::read_failed()));
        };
        let Some(conversation) = self.ready(id) else {
            return self.ask_here(asking, id, Question::Resume(cursor));
        };
        let Some(row) = conversation.member(asking.user) else {
            return self.answer(asking.shard, asking.ask, Answer::Refused(Refusal::not_found()));
        };
        let cut = at.is_none() && conversation.is_cutting();
        if cut || seq_to_read(row, conversation.heads(), &cursor) != seq {
            // Removed or added since: another place counts. Or it went with a cut that is to be heard of.
            return self.ask_here(asking, id, Question::Resume(cursor));
        }
        let answer = resumed(conversation, row, &cursor, seq, at);
        if let Answer::Resumed(Resumed::Good { held, truncated, .. }) = answer
            && let Some(loaded) = self.loaded(id)
        {
            let durable = valid(loaded.conversation.heads(), delivered);
            let device = (asking.user, asking.device);
            let known = loaded.delivered.learn(device, durable.max(newest));
            if held > known && truncated.is_none() {
                self.set_delivered(id, device, held);
            }
        }
        self.answer(asking.shard, asking.ask, answer);
    }
}

fn resumed(
    conversation: &Conversation,
    row: &MemberRow,
    cursor: &Cursor,
    seq_read: u64,
    at: Option<(Chain, u64)>,
) -> Answer {
    let heads = conversation.heads();
    let comparison = if seq_read == cursor.seq {
        compare(heads, cursor, at)
    } else if seq_read + 1 < heads.first_seq {
        Comparison::Truncated
    } else {
        compare(&heads_up_to(heads, seq_read, at), cursor, None)
    };
    Answer::Resumed(match comparison {
        Comparison::Fits => begin_at(row, heads, cursor.seq, None),
        Comparison::Truncated => {
            let first_seq = heads.first_seq;
            begin_at(row, heads, first_seq - 1, Some((first_seq, heads.first_chain)))
        }
        Comparison::Fork { first_seq, chain, epoch } => Resumed::Fork { first_seq, chain, epoch },
        Comparison::Differs => {
            let message = "the chain at the cursor differs from the log's: one of the two copies is damaged";
            return Answer::Refused(Refusal::new(ErrorCode::ChainMismatch, message));
        }
    })
}

/// Deliveries after `held`: what is before the reader's first span is skipped, and of a long backlog all but the newest
/// page.
fn begin_at(row: &MemberRow, heads: &Heads, held: u64, truncated: Option<(u64, Chain)>) -> Resumed {
    let first_seen = row.spans.first().map_or(1, |span| span.from);
    let visible = first_seen.max(held + 1);
    let head = reader_head(row, heads);
    let next = if (head + 1).saturating_sub(visible) > BACKLOG_ENTRIES_MAX {
        head + 1 - PAGE_ENTRIES_MAX as u64
    } else {
        visible
    };
    Resumed::Good { held, truncated, next, skipped_from: (next > held + 1).then_some(held + 1) }
}

/// Where the log is asked about a cursor: at its place, but not beyond what one who was a member may know of.
fn seq_to_read(row: &MemberRow, heads: &Heads, cursor: &Cursor) -> u64 {
    if row.is_member() { cursor.seq } else { cursor.seq.min(reader_head(row, heads)) }
}

/// The heads as they were when `seq` was the last, of which the log has `at`.
fn heads_up_to(heads: &Heads, seq: u64, at: Option<(Chain, u64)>) -> Heads {
    let chain = match at {
        Some((chain, _)) => chain,
        None if seq + 1 == heads.first_seq => heads.first_chain,
        None => Chain::ZERO,
    };
    let epochs = heads.epochs.iter().filter(|epoch| epoch.first_seq <= seq).copied().collect();
    Heads { head: seq, chain, epochs, title: String::new(), ..*heads }
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

    fn fork(first_seq: u64, n: u8, epoch: u64) -> Comparison {
        Comparison::Fork { first_seq, chain: if n == 0 { Chain::ZERO } else { chain(n) }, epoch }
    }

    #[test]
    fn cursors_against_the_log() {
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

    #[test]
    fn cursors_against_a_log_that_was_cut() {
        // 7..=10 are left, of epoch 200, which began at 5.
        let epochs = vec![Epoch { epoch: 200, first_seq: 5, chain_before: chain(4) }];
        let heads = Heads { first_seq: 7, first_chain: chain(6), epochs, ..heads() };
        let at = |seq: u64| (7..=10).contains(&seq).then(|| (chain(seq as u8), 200));
        for (epoch, seq, n, expected) in [
            (0, 0, 0, Comparison::Truncated),
            (100, 3, 3, Comparison::Truncated),
            (100, 5, 50, Comparison::Truncated),
            // Just before: good by its chain alone; there is nothing else to go by.
            (200, 6, 6, Comparison::Fits),
            (0, 6, 6, Comparison::Fits),
            (200, 6, 50, Comparison::Truncated),
            (200, 7, 7, Comparison::Fits),
            (200, 7, 50, Comparison::Differs),
            (300, 8, 50, fork(5, 4, 0)),
            (200, 11, 50, fork(11, 10, 200)),
            (100, 8, 50, fork(1, 0, 0)),
        ] {
            let cursor = Cursor { epoch, seq, chain: chain(n) };
            assert_eq!(compare(&heads, &cursor, at(seq)), expected, "epoch {epoch} seq {seq}");
        }
    }
}
