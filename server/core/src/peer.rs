//! What the shards of one node tell each other. A message is data; the node carries it by bounded mailboxes and says when it
//! could not. No shard ever waits for another: answers have a place that was reserved when the question was asked, a
//! question that finds no room is answered `Busy`, a fan-out that finds none becomes a gap that is told later, and what must
//! not be lost is kept and posted again when there is room.
//!
//! | message | class | from, to | not posted | lost with a restart of its receiver |
//! |---|---|---|---|---|
//! | `Ask`, `Open` | Ask | session side → home | answered `Busy`, or asked again | fails on `Restarted` |
//! | `Acks` | Ask | session side → home | stay where they were collected | costs a redelivery |
//! | `Answer` | Answer | home → session side | never | nobody waits for it |
//! | `Control` | Control | both ways | the newest of each session is kept | told anew by `Register` |
//! | `FanOut`, `Gap` | FanOut | home → session side | kept as a gap | its sessions are gone |
//!
//! Classes of one pair have no order among each other. Every message bears the incarnation of its sender; what an earlier
//! one asked or told of its sessions is ignored. A question also bears that of the shard it was meant for: its sender
//! gives it up when it hears of a new one, so the new one must not answer it.

use talaria_protocol::ids::{ConversationId, DeviceId, UserId};

use crate::{
    answer::Answer,
    effect::{Identity, SessionKey},
    fan_out::FanOut,
    gap::Gap,
    question::Question,
};

/// A shard of this node: 0 to shards - 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ShardId(pub u16);

/// A question under way, by the number that the asking shard gave it. 0: nobody waits for the answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AskId(pub u64);

/// Which of a mailbox's queues a message goes through. Each has its own bound, so that none can fill another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PeerClass {
    /// Of a question. Its place was reserved: at most [`crate::limits::PEER_ASKS_IN_FLIGHT_MAX`] of a shard are under way,
    /// and its mailbox holds as many answers. Never [`crate::effect::Input::NotPosted`].
    Answer,
    /// Sessions come, go and are taken over. At most [`crate::limits::PEER_CONTROL_QUEUED_MAX`] wait at a shard.
    Control,
    /// A question, or acknowledgements. At most [`crate::limits::PEER_ASKS_QUEUED_MAX`] wait at a shard.
    Ask,
    /// An entry, or the news that some were left out. At most [`crate::limits::PEER_FAN_OUTS_QUEUED_MAX`] wait at a shard.
    FanOut,
}

/// A message from one shard to another.
#[derive(Debug)]
pub struct PeerMessage {
    /// Incarnation of the sender.
    pub(crate) from: u32,
    /// Of the receiver, as the sender knew it.
    pub(crate) to: u32,
    pub(crate) body: Body,
}

/// Who asks a conversation, and who is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Asking {
    pub(crate) shard: ShardId,
    pub(crate) ask: AskId,
    pub(crate) user: UserId,
    pub(crate) device: DeviceId,
    /// The device's small number.
    pub(crate) device_number: u32,
}

#[derive(Debug)]
pub(crate) enum Body {
    /// Of a conversation, to its home.
    Ask(Asking, ConversationId, Question),
    /// Of a user, to their home.
    Open(Open),
    /// Newest of each device, to the conversations' home.
    Acks(Vec<Ack>),
    Answer(AskId, Answer),
    Control(SessionKey, Control),
    FanOut(FanOut),
    Gap(Gap),
}

/// A session wants to be opened.
#[derive(Clone, Debug)]
pub(crate) struct Open {
    pub(crate) shard: ShardId,
    pub(crate) ask: AskId,
    pub(crate) session: SessionKey,
    pub(crate) identity: Identity,
    pub(crate) confirmed: bool,
}

/// A device holds a conversation up to a seq.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ack {
    pub(crate) conversation: ConversationId,
    pub(crate) user: UserId,
    pub(crate) device: DeviceId,
    pub(crate) up_to: u64,
}

/// News of a session. A later one stands for those before it, save that `Confirm` after `Register` makes that confirmed.
#[derive(Clone, Debug)]
pub(crate) enum Control {
    /// To its user's home: it is gone.
    Closed { user: UserId },
    /// To its user's home: its peer is there now.
    Confirm { user: UserId },
    /// To its user's home, which has begun anew: it is there.
    Register { identity: Box<Identity>, confirmed: bool },
    /// To its shard: another has its place.
    TakeOver,
}

impl PeerMessage {
    /// The queue that it goes through.
    pub fn class(&self) -> PeerClass {
        match self.body {
            Body::Ask(..) | Body::Open(_) | Body::Acks(_) => PeerClass::Ask,
            Body::Answer(..) => PeerClass::Answer,
            Body::Control(..) => PeerClass::Control,
            Body::FanOut(_) | Body::Gap(_) => PeerClass::FanOut,
        }
    }
}
