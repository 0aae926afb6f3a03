//! What the log was asked and has not answered, within its bounds.

use std::collections::HashMap;

use talaria_protocol::{
    ids::{ClientMessageId, ConversationId, DeviceId, UserId},
    message::{Cursor, RequestId},
};

use super::{
    home::{HistoryRead, OpeningWrite},
    session::ListRead,
};
use crate::{
    effect::{OpId, ReadId, SessionKey},
    limits::{LOG_BYTES_IN_FLIGHT_MAX, LOG_OPS_IN_FLIGHT_MAX, LOG_OPS_RESERVED, READS_IN_FLIGHT_MAX},
    log::{CursorWrite, Heads},
    peer::{AskId, Asking},
    question::PageAsk,
};

/// Why an operation is under way.
#[derive(Debug)]
pub(super) enum OpTarget {
    /// An append of this conversation, of so many bytes.
    Append(ConversationId, usize),
    /// A user's next session is opening.
    Open(OpeningWrite),
    /// Nobody waits for it.
    Cursors(Vec<CursorWrite>),
    /// Old entries go; the heads without them.
    Cut(ConversationId, Box<Heads>),
}

/// Why a read is under way.
#[derive(Debug)]
pub(super) enum ReadTarget {
    // For the home side.
    Load(ConversationId),
    Dedup(ConversationId, UserId, Vec<ClientMessageId>),
    Open(UserId),
    Resume(ResumeRead),
    /// How far a device is, which has acknowledged up to a seq.
    Delivered(DeliveredRead),
    Page(Asking, ConversationId, PageAsk),
    History(Asking, HistoryRead),
    // For the session side.
    Resolve(SessionKey, RequestId),
    List(SessionKey, RequestId, ListRead),
    Sweep(UserId),
}

/// A cursor is being compared with the log at `seq`.
#[derive(Debug)]
pub(super) struct ResumeRead {
    pub(super) asking: Asking,
    pub(super) conversation: ConversationId,
    pub(super) cursor: Cursor,
    pub(super) seq: u64,
    /// Delivered as far as was known before the read, which may not see it.
    pub(super) newest: u64,
}

/// See [`ReadTarget::Delivered`].
#[derive(Debug)]
pub(super) struct DeliveredRead {
    pub(super) conversation: ConversationId,
    pub(super) user: UserId,
    pub(super) device: DeviceId,
    pub(super) up_to: u64,
    /// As in [`ResumeRead`].
    pub(super) newest: u64,
}

impl ReadTarget {
    /// The conversation that its answer will need. It stays in memory until then: a read whose conversation has to be
    /// loaded again, which drives out another, might never come to an end.
    fn conversation(&self) -> Option<ConversationId> {
        match self {
            Self::Resume(ResumeRead { conversation, .. })
            | Self::Delivered(DeliveredRead { conversation, .. })
            | Self::Page(_, conversation, _) => Some(*conversation),
            _ => None,
        }
    }
}

/// See the module.
#[derive(Debug)]
pub(super) struct UnderWay {
    ops: HashMap<OpId, OpTarget>,
    reads: HashMap<ReadId, ReadTarget>,
    /// How many of the reads will need a conversation.
    readers: HashMap<ConversationId, usize>,
    pub(super) op_bytes: usize,
    last_id: u64,
}

impl UnderWay {
    /// Numbers of each incarnation are its own.
    pub(super) fn new(incarnation: u32) -> Self {
        Self {
            ops: HashMap::new(),
            reads: HashMap::new(),
            readers: HashMap::new(),
            op_bytes: 0,
            last_id: u64::from(incarnation) << 40,
        }
    }

    /// A send may be handed to the log.
    pub(super) fn has_room(&self) -> bool {
        self.ops.len() + LOG_OPS_RESERVED < LOG_OPS_IN_FLIGHT_MAX && self.op_bytes < LOG_BYTES_IN_FLIGHT_MAX
    }

    /// One of the reserved places is free.
    pub(super) fn has_reserved_room(&self) -> bool {
        self.ops.len() < LOG_OPS_IN_FLIGHT_MAX
    }

    pub(super) fn can_read(&self) -> bool {
        self.reads.len() < READS_IN_FLIGHT_MAX
    }

    pub(super) fn ops(&self) -> usize {
        self.ops.len()
    }

    pub(super) fn reads(&self) -> usize {
        self.reads.len()
    }

    /// A read will need this conversation.
    pub(super) fn is_read(&self, conversation: ConversationId) -> bool {
        self.readers.contains_key(&conversation)
    }

    pub(super) fn begin_op(&mut self, op: OpId, target: OpTarget) {
        if let OpTarget::Append(_, bytes) = &target {
            self.op_bytes += bytes;
        }
        self.ops.insert(op, target);
    }

    pub(super) fn end_op(&mut self, op: OpId) -> Option<OpTarget> {
        let target = self.ops.remove(&op)?;
        if let OpTarget::Append(_, bytes) = &target {
            self.op_bytes -= bytes;
        }
        Some(target)
    }

    pub(super) fn begin_read(&mut self, read: ReadId, target: ReadTarget) {
        if let Some(id) = target.conversation() {
            *self.readers.entry(id).or_default() += 1;
        }
        self.reads.insert(read, target);
    }

    pub(super) fn end_read(&mut self, read: ReadId) -> Option<ReadTarget> {
        let target = self.reads.remove(&read)?;
        if let Some(id) = target.conversation()
            && let Some(readers) = self.readers.get_mut(&id)
        {
            *readers -= 1;
            if *readers == 0 {
                self.readers.remove(&id);
            }
        }
        Some(target)
    }

    /// Of an operation, a read or a question. Never 0.
    pub(super) fn next_id(&mut self) -> u64 {
        self.last_id += 1;
        self.last_id
    }

    pub(super) fn next_ask(&mut self) -> AskId {
        AskId(self.next_id())
    }
}
