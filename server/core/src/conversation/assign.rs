//! Giving out seqs: an entry is built once, with its place in the chain.

use bytes::Bytes;
use talaria_protocol::{
    chain::{Chain, Commitment, Leaf, Salt},
    entry::{EntryHeader, EntryKind, Urgency},
    hlc::Hlc,
    ids::ClientMessageId,
    message::ConversationKind,
};

use super::{Conversation, Sender};
use crate::log::{Epoch, Heads, StoredBody, StoredEntry};

/// What an entry takes from outside: time and randomness.
#[derive(Clone, Copy, Debug)]
pub struct Stamp {
    /// Of the node's clock. An entry gets a later one where the conversation's last is not below it ([DLV-54]).
    pub hlc: Hlc,
    /// Drawn for this entry alone.
    pub salt: Salt,
    /// The epoch that this opening of the log begins, if it is greater than all before: unix seconds at open.
    pub boot_epoch: u64,
}

/// What is to become an entry.
pub(super) struct Draft {
    pub(super) id: ClientMessageId,
    pub(super) kind: EntryKind,
    pub(super) content: Bytes,
    pub(super) urgency: Urgency,
    pub(super) expires_ms: u64,
}

impl Heads {
    /// Of a conversation without entries.
    pub fn empty() -> Self {
        Self {
            kind: ConversationKind::Direct,
            title: String::new(),
            head: 0,
            ordinal: 0,
            chain: Chain::ZERO,
            first_seq: 1,
            first_chain: Chain::ZERO,
            epochs: Vec::new(),
            hlc: Hlc::default(),
            history_open: false,
        }
    }

    /// Epoch of a seq up to the head; 0 for seq 0.
    pub fn epoch_at(&self, seq: u64) -> u64 {
        self.epochs.iter().rev().find(|epoch| epoch.first_seq <= seq).map_or(0, |epoch| epoch.epoch)
    }
}

impl Conversation {
    /// Gives the draft the next seq.
    pub(super) fn assign(&mut self, sender: &Sender, stamp: &Stamp, draft: Draft) -> StoredEntry {
        let heads = &mut self.assigned;
        let seq = heads.head + 1;
        if !self.epoch_open {
            let previous = heads.epochs.last().map_or(0, |epoch| epoch.epoch);
            let epoch = stamp.boot_epoch.max(previous + 1);
            heads.epochs.push(Epoch { epoch, first_seq: seq, chain_before: heads.chain });
            self.epoch_open = true;
        }
        heads.head = seq;
        heads.ordinal += u64::from(draft.kind == EntryKind::Message);
        heads.hlc = stamp.hlc.max(Hlc(heads.hlc.0.saturating_add(1)));
        let header = EntryHeader {
            seq,
            ordinal: heads.ordinal,
            epoch: heads.epochs.last().map_or(0, |epoch| epoch.epoch),
            hlc: heads.hlc,
            sender: sender.peer.user,
            device: sender.device,
            kind: draft.kind,
            target_seq: 0,
            client_message_id: draft.id,
            urgency: draft.urgency,
            expires_ms: draft.expires_ms,
        }
        .encode();
        let leaf = Leaf::of(&header, &Commitment::of(&stamp.salt, &draft.content));
        heads.chain = heads.chain.next(self.id, seq, &leaf);
        let body = StoredBody::Kept { content: draft.content, salt: stamp.salt };
        StoredEntry { seq, header, body, chain: heads.chain }
    }
}
