//! Asking a conversation: it is loaded first when it is not in memory, and what asks meanwhile is parked, within a
//! bound, in its order. Appends are parked too while a change of members, a lookup or a cut bars them.

use std::collections::VecDeque;

use talaria_protocol::ids::{ConversationId, UserId};

use super::delivered::Delivered;
use crate::{
    answer::Answer,
    conversation::{Conversation, Refusal},
    limits::PARKED_MAX,
    log::{ConversationRow, MemberRow, ReadOp},
    peer::Asking,
    question::Question,
    shard::{Shard, under_way::ReadTarget},
};

/// A conversation as the log has it.
type Stored = (ConversationRow, Vec<(UserId, MemberRow)>);

type Parked = VecDeque<(Asking, Question)>;

/// A conversation in memory.
#[derive(Debug)]
pub(in crate::shard) struct Loaded {
    pub(super) conversation: Conversation,
    /// What its bar holds back.
    pub(super) parked: Parked,
    pub(super) delivered: Delivered,
}

/// A conversation's place in memory.
#[derive(Debug)]
pub(in crate::shard) enum Slot {
    /// Being read; what asked meanwhile.
    Loading(Parked),
    /// In memory.
    Ready(Box<Loaded>),
}

impl Slot {
    pub(super) fn parked(&self) -> usize {
        match self {
            Self::Loading(parked) => parked.len(),
            Self::Ready(loaded) => loaded.parked.len(),
        }
    }
}

/// How many of the loaded conversations are looked at to find one at rest.
const UNLOAD_TRIES: usize = 8;

impl Shard {
    /// Asks now, or once the conversation is loaded.
    pub(in crate::shard) fn ask_here(&mut self, asking: Asking, id: ConversationId, question: Question) {
        let parked = match self.home.slots.get_mut(&id) {
            Some(Slot::Loading(parked)) => parked,
            Some(Slot::Ready(loaded)) if is_held_back(loaded, asking.user, &question) => &mut loaded.parked,
            Some(Slot::Ready(_)) => {
                self.run(asking, id, question);
                return self.forget_if_absent(id);
            }
            None => return self.load(asking, id, question),
        };
        if parked.len() >= PARKED_MAX {
            let refusal = Refusal::busy("too much waits for this conversation");
            return self.answer(asking.shard, asking.ask, Answer::Refused(refusal));
        }
        parked.push_back((asking, question));
    }

    fn load(&mut self, asking: Asking, id: ConversationId, question: Question) {
        let can_read = self.under_way.can_read();
        if let (false, Question::Page(ask)) = (can_read, &question) {
            return self.home.waiting_to_read.push_back((asking, id, *ask));
        }
        if !can_read || !self.make_room() {
            let refusal = Refusal::busy("too much is being read");
            return self.answer(asking.shard, asking.ask, Answer::Refused(refusal));
        }
        self.home.slots.insert(id, Slot::Loading(VecDeque::from([(asking, question)])));
        self.read(ReadOp::Conversation(id), ReadTarget::Load(id));
    }

    /// A conversation in memory.
    pub(super) fn ready(&self, conversation: ConversationId) -> Option<&Conversation> {
        match self.home.slots.get(&conversation) {
            Some(Slot::Ready(loaded)) => Some(&loaded.conversation),
            _ => None,
        }
    }

    pub(super) fn loaded(&mut self, conversation: ConversationId) -> Option<&mut Loaded> {
        match self.home.slots.get_mut(&conversation) {
            Some(Slot::Ready(loaded)) => Some(loaded),
            _ => None,
        }
    }

    /// The log's word on a conversation that was asked for; `None`: it could not be read.
    pub(in crate::shard) fn on_loaded(&mut self, id: ConversationId, found: Option<Option<Stored>>) {
        let Some(Slot::Loading(parked)) = self.home.slots.remove(&id) else { return };
        let Some(stored) = found else {
            for (asking, _) in parked {
                self.answer(asking.shard, asking.ask, Answer::Refused(Refusal::read_failed()));
            }
            return;
        };
        let conversation = Conversation::new(id, stored, self.boot_first_commit());
        let loaded = Loaded { conversation, parked: VecDeque::new(), delivered: Delivered::default() };
        self.home.slots.insert(id, Slot::Ready(Box::new(loaded)));
        self.home.loaded.push_back(id);
        for (asking, question) in parked {
            match self.home.slots.get_mut(&id) {
                Some(Slot::Ready(loaded)) if is_held_back(loaded, asking.user, &question) => {
                    loaded.parked.push_back((asking, question));
                }
                Some(Slot::Ready(_)) => self.run(asking, id, question),
                _ => self.ask_here(asking, id, question),
            }
        }
        self.forget_if_absent(id);
    }

    /// Goes on with what was parked, until something bars it again.
    pub(super) fn run_parked(&mut self, id: ConversationId) {
        while let Some(loaded) = self.loaded(id)
            && let Some((asking, question)) = loaded.parked.pop_front()
        {
            let held_back = match question {
                Question::Append { subject, reply, request } => {
                    self.run_append(asking, id, subject, reply, request)
                }
                Question::Retain(retention) if !loaded.conversation.is_at_rest() => {
                    Some(Question::Retain(retention))
                }
                question => {
                    self.run(asking, id, question);
                    None
                }
            };
            if let Some(question) = held_back {
                if let Some(loaded) = self.loaded(id) {
                    loaded.parked.push_front((asking, question));
                }
                return;
            }
        }
        self.forget_if_absent(id);
    }

    /// The log's word on ids that an append was held back for; `None`: it could not be read.
    pub(in crate::shard) fn on_dedup_read(
        &mut self,
        id: ConversationId,
        then: impl FnOnce(&mut Conversation) -> bool,
    ) {
        let Some(loaded) = self.loaded(id) else { return };
        if !then(&mut loaded.conversation) {
            loaded.conversation.on_dedup_failed();
            if let Some((asking, _)) = loaded.parked.pop_front() {
                self.answer(asking.shard, asking.ask, Answer::Refused(Refusal::read_failed()));
            }
        }
        self.run_parked(id);
    }

    fn run(&mut self, asking: Asking, id: ConversationId, question: Question) {
        match question {
            Question::Append { subject, reply, request } => {
                if let Some(question) = self.run_append(asking, id, subject, reply, request)
                    && let Some(loaded) = self.loaded(id)
                {
                    loaded.parked.push_back((asking, question));
                }
            }
            Question::Members { page } => self.run_members(asking, id, &page),
            Question::History(history) => self.run_history(asking, history),
            Question::Resume(cursor) => self.run_resume(asking, id, cursor),
            Question::Page(ask) => self.run_page(asking, id, ask),
            Question::State => self.run_state(asking, id),
            Question::Ack(up_to) => self.run_ack(asking, id, up_to),
            Question::Retain(retention) => self.run_retain(id, &retention),
        }
    }

    /// Room for one more conversation: one at rest is unloaded when all places are taken.
    fn make_room(&mut self) -> bool {
        for _ in 0..UNLOAD_TRIES {
            if self.home.loaded.len() < self.home.loaded_max {
                return true;
            }
            let Some(oldest) = self.home.loaded.pop_front() else { return true };
            match self.home.slots.get(&oldest) {
                Some(Slot::Ready(loaded))
                    if loaded.conversation.is_at_rest()
                        && loaded.parked.is_empty()
                        && !self.under_way.is_read(oldest) =>
                {
                    self.home.slots.remove(&oldest);
                }
                Some(_) => self.home.loaded.push_back(oldest),
                None => {}
            }
        }
        self.home.loaded.len() < self.home.loaded_max
    }

    /// What does not exist, and is not about to, takes no memory.
    fn forget_if_absent(&mut self, id: ConversationId) {
        if let Some(Slot::Ready(loaded)) = self.home.slots.get(&id)
            && !loaded.conversation.exists()
            && loaded.conversation.is_at_rest()
            && loaded.parked.is_empty()
        {
            self.home.slots.remove(&id);
            if self.home.loaded.back() == Some(&id) {
                self.home.loaded.pop_back();
            }
        }
    }
}

/// Waits for the bar to go: an append behind others, and whatever is asked by one who is about to become a member.
/// Their client may know already, from a list that was read from the log before its word came here. So does what is read
/// while old entries are going: it would miss some that the heads still have.
fn is_held_back(loaded: &Loaded, user: UserId, question: &Question) -> bool {
    let Loaded { conversation, parked, .. } = loaded;
    match question {
        // Who has nothing to do with the conversation is answered as if there were none, and as fast ([ERR-4]).
        Question::Append { request, .. } => {
            let involved = conversation.member(user).is_some() || conversation.is_joining(user);
            !parked.is_empty() && (request.kind.creates() || involved)
        }
        Question::History(_) | Question::Resume(_) => {
            conversation.is_cutting() || conversation.is_joining(user)
        }
        Question::Members { .. } => conversation.is_joining(user),
        Question::Page(_) => conversation.is_cutting(),
        // Before the appends that come after it.
        Question::Retain(_) => !conversation.is_at_rest(),
        Question::Ack(_) | Question::State => false,
    }
}
