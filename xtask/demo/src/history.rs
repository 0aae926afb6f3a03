//! What happened, as the people saw it: every message that was said, every acknowledgement, every entry that a device
//! showed. The checker reads this, and nothing of the SDK or the node.

use std::{
    collections::{HashMap, HashSet},
    time::Instant,
};

use talaria_protocol::ids::ConversationId;

/// Names a message of the play, across retries: it travels in the message's metadata.
pub type OpId = u64;

/// A message that was said.
#[derive(Clone, Debug)]
pub struct Op {
    /// Where.
    pub conversation: ConversationId,
    /// Which device said it.
    pub device: usize,
    /// BLAKE3 of its text.
    pub digest: [u8; 32],
    /// When it was handed to the SDK.
    pub invoked: Instant,
    /// The SDK took it.
    pub queued: bool,
    /// When it was acknowledged, and with which seq; the seq is unknown (0) when the app was killed before it was told.
    pub acknowledged: Option<(Instant, u64)>,
}

/// An entry that a device showed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shown {
    /// Its number.
    pub seq: u64,
    /// The message in it; `None`: not one of the play's.
    pub op: Option<OpId>,
    /// BLAKE3 of the text shown.
    pub digest: [u8; 32],
}

/// Everything of one run.
#[derive(Debug, Default)]
pub struct History {
    /// By their ids, which count up from 0.
    pub ops: Vec<Op>,
    /// Per device and conversation, in the order in which they were shown.
    pub shown: HashMap<(usize, ConversationId), Vec<Shown>>,
    /// Taken by an SDK, and not acknowledged yet.
    in_flight: HashSet<OpId>,
    /// Taken by an SDK.
    queued: usize,
    /// A device's local ids → messages.
    local: HashMap<(usize, u64), OpId>,
    /// Acknowledgements that came before the SDK had returned the local id.
    early: HashMap<(usize, u64), (Instant, u64)>,
    /// Messages given up by the SDK: the play has none that may be.
    pub failed: Vec<(OpId, String)>,
}

impl History {
    /// Something is about to be said.
    pub fn invoke(&mut self, conversation: ConversationId, device: usize, text: &str) -> OpId {
        let op = self.ops.len() as OpId;
        let digest = *blake3::hash(text.as_bytes()).as_bytes();
        self.ops.push(Op {
            conversation,
            device,
            digest,
            invoked: Instant::now(),
            queued: false,
            acknowledged: None,
        });
        op
    }

    /// The SDK has it, under this local id.
    pub fn queued(&mut self, op: OpId, device: usize, local: u64) {
        self.local.insert((device, local), op);
        self.took(op);
        if let Some((at, seq)) = self.early.remove(&(device, local)) {
            self.settle(op, at, seq);
        }
    }

    /// The SDK says that it is in the log.
    pub fn acknowledge(&mut self, device: usize, local: u64, seq: u64) {
        let now = Instant::now();
        match self.local.get(&(device, local)) {
            Some(op) => self.settle(*op, now, seq),
            None => {
                self.early.insert((device, local), (now, seq));
            }
        }
    }

    /// The SDK gave it up.
    pub fn fail(&mut self, device: usize, local: u64, why: String) {
        if let Some(op) = self.local.get(&(device, local)) {
            self.in_flight.remove(op);
            self.failed.push((*op, why));
        }
    }

    /// The app was killed: what is no longer in its outbox was acknowledged, though nobody was told.
    pub fn killed(&mut self, device: usize, outbox: &HashSet<u64>) {
        let now = Instant::now();
        let gone: Vec<OpId> = self
            .local
            .iter()
            .filter(|((of, local), op)| {
                *of == device && self.in_flight.contains(op) && !outbox.contains(local)
            })
            .map(|(_, op)| *op)
            .collect();
        for op in gone {
            self.settle(op, now, 0);
        }
    }

    /// A message whose fate nobody was told is among what its device holds.
    pub fn found(&mut self, op: OpId, seq: u64) {
        self.took(op);
        self.settle(op, Instant::now(), seq);
    }

    fn took(&mut self, op: OpId) {
        if let Some(entry) = self.ops.get_mut(op as usize) {
            entry.queued = true;
            if entry.acknowledged.is_none() {
                self.in_flight.insert(op);
            }
            self.queued += 1;
        }
    }

    /// So many messages were said, and the SDKs have all of them.
    pub fn queued_all(&self, messages: usize) -> bool {
        self.ops.len() >= messages && self.queued >= self.ops.len()
    }

    /// Entries shown, all devices together.
    pub fn entries_shown(&self) -> usize {
        self.shown.values().map(Vec::len).sum()
    }

    fn settle(&mut self, op: OpId, at: Instant, seq: u64) {
        if self.in_flight.remove(&op)
            && let Some(entry) = self.ops.get_mut(op as usize)
        {
            entry.acknowledged = Some((at, seq));
        }
    }

    /// A device shows an entry. Returns how long it took since it was said, ms as f64, when another device said it.
    pub fn show(&mut self, device: usize, conversation: ConversationId, shown: Shown) -> Option<f64> {
        self.shown.entry((device, conversation)).or_default().push(shown);
        let op = self.ops.get(shown.op? as usize)?;
        (op.device != device).then(|| op.invoked.elapsed().as_secs_f64() * 1_000.0)
    }

    /// Last seq that a device showed.
    pub fn last_shown(&self, device: usize, conversation: ConversationId) -> u64 {
        self.shown.get(&(device, conversation)).and_then(|list| list.last()).map_or(0, |shown| shown.seq)
    }

    /// Said, and not acknowledged yet.
    pub fn in_flight(&self) -> usize {
        self.in_flight.len()
    }

    /// A device has said something that was not acknowledged yet.
    pub fn is_speaking(&self, device: usize) -> bool {
        self.in_flight
            .iter()
            .any(|op| self.ops.get(*op as usize).is_some_and(|op| op.device == device && op.queued))
    }

    /// Acknowledged.
    pub fn acknowledged(&self) -> usize {
        self.ops.iter().filter(|op| op.acknowledged.is_some()).count()
    }
}
