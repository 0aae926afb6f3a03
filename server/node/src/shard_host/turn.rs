//! What other threads sent is taken out of the mailbox: each queue in its turn, and no more of it than lets the others, and
//! the sessions' tasks, have theirs.

use talaria_core::{
    effect::Input,
    log::Outcome,
    peer::{PeerClass, PeerMessage, ShardId},
};

use super::{ShardHost, restart::State};
use crate::mailbox::{CLASSES, Completion, Envelope};

/// Completions taken in a turn. One is all operations of a commit.
const COMPLETIONS_PER_TURN: usize = 256;
/// Cuts taken in a turn.
const RETENTIONS_PER_TURN: usize = 4;
/// Messages of a class taken in a turn.
const MESSAGES_PER_TURN: usize = 128;

impl ShardHost {
    /// Takes what other threads sent, up to a bound. `true`: there may be more.
    pub(crate) fn drain_mailbox(&self) -> bool {
        let mailbox = self.mailbox();
        mailbox.begin_turn();
        self.shares.show_mailbox(mailbox);
        if self.ports.faults.has_core(self.ports.shard) {
            self.handle(Input::Timeout);
        }
        self.observe_restarts();
        let rooms = mailbox.take_rooms();
        for at in (0..self.ports.mailboxes.shards()).filter(|at| rooms & (1 << at) != 0) {
            self.handle(Input::Room { at: ShardId(at) });
        }
        let mut more = self.take_completions();
        for class in CLASSES {
            more |= self.take_messages(class);
        }
        more | self.take_retentions()
    }

    fn take_completions(&self) -> bool {
        for _ in 0..COMPLETIONS_PER_TURN {
            let Some(completion) = self.mailbox().take_completion() else { return false };
            let mut under_way = self.under_way.get();
            match completion {
                Completion::Durable(outcomes) => {
                    under_way.ops -= outcomes.len();
                    self.under_way.set(under_way);
                    for (op, outcome) in outcomes {
                        if outcome == Outcome::Unknown {
                            self.is_in_doubt.set(true);
                        }
                        self.handle(Input::Durable { op, outcome });
                    }
                }
                Completion::Read(read, answer) => {
                    under_way.reads -= 1;
                    self.under_way.set(under_way);
                    self.handle(Input::Read { read, answer });
                }
            }
        }
        true
    }

    fn take_retentions(&self) -> bool {
        for _ in 0..RETENTIONS_PER_TURN {
            let Some(cut) = self.mailbox().take_retention() else { return false };
            self.handle(Input::Retain(cut));
        }
        true
    }

    fn take_messages(&self, class: PeerClass) -> bool {
        let mut taken = 0;
        while taken < MESSAGES_PER_TURN
            && let Some(envelope) = self.mailbox().take(class)
        {
            taken += 1;
            self.deliver(envelope);
        }
        if taken > 0 {
            self.tell_of_room(class);
        }
        taken == MESSAGES_PER_TURN
    }

    /// After something of this class was taken out.
    pub(super) fn tell_of_room(&self, class: PeerClass) {
        let starved = self.mailbox().end_turn(class);
        if starved != 0 {
            self.ports.mailboxes.give_room(self.ports.shard, starved);
        }
    }

    /// A message goes to the core, unless its sender has begun anew since.
    pub(super) fn deliver(&self, envelope: Envelope<PeerMessage>) {
        let Envelope { from, incarnation, message } = envelope;
        if incarnation > self.known_incarnation(from) {
            self.observe_restarts();
        }
        if incarnation < self.known_incarnation(from) || self.state.get() != State::Running {
            return self.ports.metrics.mailbox_dropped.increment(1);
        }
        self.handle(Input::Peer { from, message });
    }
}
