//! What a server sends, sorted by urgency, so that a backfill never delays a live message: one queue a lane. QUIC has a
//! stream for each; on TCP the most urgent goes first. Entries of one conversation leave in their order all the same: while
//! some of it wait in the bulk lane, its live ones go behind them. spec/session.md, [SES-54] to [SES-56].

use std::collections::HashMap;

use bytes::Bytes;

use super::TransmitQueue;
use crate::ids::ConversationId;

/// How urgent a frame is, the most urgent first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Lane {
    /// Answers and what is said of the session itself.
    Control,
    /// Entries as they happen.
    Live,
    /// Entries that are read from the log: catch-up and history.
    Bulk,
}

impl Lane {
    /// All, the most urgent first.
    pub const ALL: [Self; 3] = [Self::Control, Self::Live, Self::Bulk];
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Lanes {
    queues: [TransmitQueue; 3],
    /// Whose the frames of the bulk lane are, in their order.
    bulk_of: std::collections::VecDeque<Option<ConversationId>>,
    /// Frames in the bulk lane of each.
    in_bulk: HashMap<ConversationId, u32>,
}

impl Lanes {
    /// A frame of no conversation, or of one whose order does not matter.
    pub(super) fn push(&mut self, lane: Lane, frame: Bytes) {
        if lane == Lane::Bulk {
            self.bulk_of.push_back(None);
        }
        self.queues[lane as usize].push(frame);
    }

    /// A frame that stays in order among those of its conversation.
    pub(super) fn push_of(&mut self, conversation: ConversationId, lane: Lane, frame: Bytes) {
        if lane == Lane::Bulk || self.in_bulk.contains_key(&conversation) {
            *self.in_bulk.entry(conversation).or_default() += 1;
            self.bulk_of.push_back(Some(conversation));
            self.queues[Lane::Bulk as usize].push(frame);
        } else {
            self.queues[lane as usize].push(frame);
        }
    }

    /// The next frame of this lane.
    pub(super) fn pop(&mut self, lane: Lane) -> Option<Bytes> {
        let frame = self.queues[lane as usize].pop()?;
        if lane == Lane::Bulk
            && let Some(conversation) = self.bulk_of.pop_front().flatten()
            && let Some(count) = self.in_bulk.get_mut(&conversation)
        {
            *count -= 1;
            if *count == 0 {
                self.in_bulk.remove(&conversation);
            }
        }
        Some(frame)
    }

    /// Bytes that wait in a lane.
    pub(super) fn bytes_of(&self, lane: Lane) -> usize {
        self.queues[lane as usize].bytes
    }

    /// Bytes that wait in all.
    pub(super) fn bytes(&self) -> usize {
        self.queues.iter().map(|queue| queue.bytes).sum()
    }

    /// Nothing waits.
    pub(super) fn is_empty(&self) -> bool {
        self.queues.iter().all(|queue| queue.frames.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(text: &'static str) -> Bytes {
        Bytes::from_static(text.as_bytes())
    }

    #[test]
    fn live_entries_overtake_other_conversations_only() {
        let (one, two) = (ConversationId::new([1; 16]), ConversationId::new([2; 16]));
        let mut lanes = Lanes::default();
        lanes.push_of(one, Lane::Bulk, frame("1a"));
        lanes.push(Lane::Bulk, frame("page"));
        lanes.push_of(one, Lane::Live, frame("1b"));
        lanes.push_of(two, Lane::Live, frame("2a"));
        assert_eq!(lanes.pop(Lane::Live), Some(frame("2a")));
        assert_eq!(lanes.pop(Lane::Live), None);
        for expected in ["1a", "page", "1b"] {
            assert_eq!(lanes.pop(Lane::Bulk), Some(frame(expected)));
        }
        assert!(lanes.is_empty() && lanes.bytes() == 0);
        lanes.push_of(one, Lane::Live, frame("1c"));
        assert_eq!((lanes.bytes_of(Lane::Live), lanes.bytes_of(Lane::Bulk)), (2, 0));
    }
}
