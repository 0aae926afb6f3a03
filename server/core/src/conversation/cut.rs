//! The oldest entries go: only while nothing else is under way, so that no append carries heads from before.

use super::{Bar, Conversation};
use crate::log::{ConversationRow, Cut, Heads, Retention};

impl Heads {
    /// Without what is before the retention's first seq. The epoch in force there stays, with those after it.
    #[must_use]
    fn cut(&self, retention: &Retention) -> Self {
        let first_seq = retention.first_seq;
        let in_force = self.epochs.iter().rposition(|epoch| epoch.first_seq <= first_seq).unwrap_or(0);
        Self {
            first_seq,
            first_chain: retention.chain_before,
            epochs: self.epochs[in_force..].to_vec(),
            ..self.clone()
        }
    }
}

impl Conversation {
    /// Whether this cut is still one: it moves the first seq on, and leaves an entry.
    pub fn can_cut(&self, retention: &Retention) -> bool {
        retention.first_seq > self.durable.first_seq && retention.first_seq <= self.durable.head
    }

    /// Begins a cut of a conversation at rest, and bars appends until the log has spoken. The row's commit stays that of
    /// the last append.
    pub fn cut(&mut self, retention: &Retention) -> Option<Cut> {
        if !self.is_at_rest() || !self.can_cut(retention) {
            return None;
        }
        self.bar = Some(Bar::Cut);
        let row = ConversationRow { heads: self.durable.cut(retention), commit: self.commit };
        Some(Cut { conversation: self.id, row })
    }

    /// A cut is on its way: the log may have made it already.
    pub fn is_cutting(&self) -> bool {
        self.bar == Some(Bar::Cut)
    }

    /// The cut is durable: readers see it, appends go on.
    pub fn on_cut(&mut self, heads: Heads) {
        if self.bar == Some(Bar::Cut) {
            self.bar = None;
            self.assigned = heads.clone();
            self.durable = heads;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::Epoch;
    use talaria_protocol::{chain::Chain, ids::ConversationId};

    #[test]
    fn the_epoch_in_force_at_the_first_seq_stays() {
        let epoch =
            |epoch, first_seq| Epoch { epoch, first_seq, chain_before: Chain::new([epoch as u8; 32]) };
        let epochs = vec![epoch(1, 1), epoch(2, 5), epoch(3, 9)];
        let heads = Heads { head: 10, epochs, ..Heads::empty() };
        for (first_seq, kept) in
            [(2, &[1, 2, 3][..]), (4, &[1, 2, 3]), (5, &[2, 3]), (8, &[2, 3]), (9, &[3]), (10, &[3])]
        {
            let conversation = ConversationId::new([1; 16]);
            let retention = Retention { conversation, first_seq, chain_before: Chain::new([7; 32]) };
            let cut = heads.cut(&retention);
            let epochs: Vec<u64> = cut.epochs.iter().map(|epoch| epoch.epoch).collect();
            assert_eq!(epochs, kept, "cut to {first_seq}");
            assert_eq!((cut.first_seq, cut.first_chain), (first_seq, retention.chain_before));
            assert_eq!((cut.head, cut.chain), (heads.head, heads.chain));
        }
    }
}
