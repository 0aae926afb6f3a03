//! What the shards of one node tell each other. A message is data; the node carries it by bounded mailboxes and says when it
//! could not. No shard ever waits for another: answers have a place that was reserved when the question was asked, a
//! question that finds no room is answered `Busy`, a fan-out that finds none becomes a gap that is told later, and what must
//! not be lost is kept and posted again when there is room.

use talaria_protocol::ids::UserId;

use crate::effect::SessionKey;

/// A shard of this node: 0 to shards - 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ShardId(pub u16);

/// Which of a mailbox's queues a message goes through. Each has its own bound, so that none can fill another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PeerClass {
    /// Of a question. Its place was reserved: at most [`crate::limits::PEER_ASKS_IN_FLIGHT_MAX`] of a shard are under way,
    /// and its mailbox holds as many answers. Never [`crate::effect::Input::NotPosted`].
    Answer,
    /// Sessions come, go and are taken over. At most [`crate::limits::PEER_CONTROL_QUEUED_MAX`] wait at a shard.
    Control,
    /// A question. At most [`crate::limits::PEER_ASKS_QUEUED_MAX`] wait at a shard.
    Ask,
    /// An entry, or the news that some were left out. At most [`crate::limits::PEER_FAN_OUTS_QUEUED_MAX`] wait at a shard.
    FanOut,
}

/// A message from one shard to another.
#[derive(Debug)]
pub struct PeerMessage(pub(crate) Body);

#[derive(Debug)]
pub(crate) enum Body {
    /// A session of this user is gone.
    Closed { user: UserId, session: SessionKey },
}

impl PeerMessage {
    /// The queue that it goes through.
    pub fn class(&self) -> PeerClass {
        match self.0 {
            Body::Closed { .. } => PeerClass::Control,
        }
    }
}
