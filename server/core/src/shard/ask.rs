//! Asking a conversation: it is loaded first when it is not in memory, and what asks meanwhile is parked, within a
//! bound, in its order. Appends are parked too while a change of members or a lookup bars them.

use std::collections::VecDeque;

use talaria_protocol::{
    ids::{ConversationId, UserId},
    message::{ConversationState, Cursor, PageToken, Peer, RequestId, client::History, server::ServerFrame},
};

use super::{OpTarget, ReadTarget, Shard};
use crate::{
    conversation::{Admission, Admit, AppendRequest, Conversation, Refusal, ReplyKind, Sender, Waiter},
    effect::SessionKey,
    limits::PARKED_MAX,
    log::{Append, ConversationRow, LogOp, MemberRow, ReadOp, StoredBody},
};

/// What is asked of a conversation.
#[derive(Debug)]
pub(super) enum Ask {
    Append { request_id: RequestId, reply: ReplyKind, request: AppendRequest },
    History { request_id: RequestId, history: History },
    Members { request_id: RequestId, page: PageToken },
    Resume(Cursor),
    Ack(u64),
    CatchUp,
}

/// A conversation as the log has it.
type Stored = (ConversationRow, Vec<(UserId, MemberRow)>);

type Parked = VecDeque<(SessionKey, Ask)>;

/// A conversation's place in memory.
#[derive(Debug)]
pub(super) enum Slot {
    /// Being read; what asked meanwhile.
    Loading(Parked),
    /// In memory; what its bar holds back.
    Ready(Box<Conversation>, Parked),
}

/// How many of the loaded conversations are looked at to find one at rest.
const UNLOAD_TRIES: usize = 8;

impl Shard {
    /// Asks now, or once the conversation is loaded.
    pub(super) fn ask(&mut self, session: SessionKey, conversation: ConversationId, ask: Ask) {
        let user = self.directory.sessions.get(&session).map(|state| state.identity.user);
        let parked = match self.slots.get_mut(&conversation) {
            Some(Slot::Loading(parked)) => parked,
            Some(Slot::Ready(barred, parked)) if is_held_back(barred, parked, user, &ask) => parked,
            Some(Slot::Ready(..)) => {
                self.run_ask(session, conversation, ask);
                return self.forget_if_absent(conversation);
            }
            None => {
                if !self.under_way.can_read() || !self.make_room() {
                    return self.refuse_ask(
                        session,
                        conversation,
                        &ask,
                        &Refusal::busy("too much is being read"),
                    );
                }
                self.slots.insert(conversation, Slot::Loading(VecDeque::from([(session, ask)])));
                return self.read(ReadOp::Conversation(conversation), ReadTarget::Load(conversation));
            }
        };
        if parked.len() >= PARKED_MAX {
            return self.refuse_ask(
                session,
                conversation,
                &ask,
                &Refusal::busy("too much waits for this conversation"),
            );
        }
        parked.push_back((session, ask));
    }

    /// A conversation in memory.
    pub(super) fn ready(&self, conversation: ConversationId) -> Option<&Conversation> {
        match self.slots.get(&conversation) {
            Some(Slot::Ready(conversation, _)) => Some(conversation),
            _ => None,
        }
    }

    /// A conversation as the session's user sees it.
    pub(super) fn state_for(
        &self,
        session: SessionKey,
        conversation: ConversationId,
    ) -> Option<ConversationState> {
        let user = self.directory.sessions.get(&session)?.identity.user;
        self.ready(conversation)?.state(user)
    }

    /// The log's word on a conversation that was asked for; `None`: it could not be read.
    pub(super) fn on_loaded(&mut self, id: ConversationId, found: Option<Option<Stored>>) {
        let Some(Slot::Loading(parked)) = self.slots.remove(&id) else { return };
        let Some(stored) = found else {
            let refusal = Refusal::read_failed();
            for (session, ask) in parked {
                self.refuse_ask(session, id, &ask, &refusal);
                self.pump(session);
            }
            return;
        };
        let conversation = Box::new(Conversation::new(id, stored, self.boot_first_commit()));
        self.slots.insert(id, Slot::Ready(conversation, VecDeque::new()));
        self.loaded.push_back(id);
        for (session, ask) in parked {
            let user = self.directory.sessions.get(&session).map(|state| state.identity.user);
            match self.slots.get_mut(&id) {
                Some(Slot::Ready(barred, parked)) if is_held_back(barred, parked, user, &ask) => {
                    parked.push_back((session, ask));
                }
                Some(Slot::Ready(..)) => self.run_ask(session, id, ask),
                // What one before it set off took its place in memory.
                _ => self.ask(session, id, ask),
            }
        }
        self.forget_if_absent(id);
    }

    /// Admits what was parked, until something bars it again.
    pub(super) fn run_parked(&mut self, id: ConversationId) {
        while let Some(Slot::Ready(_, parked)) = self.slots.get_mut(&id)
            && let Some((session, ask)) = parked.pop_front()
        {
            let Ask::Append { request_id, reply, request } = ask else {
                self.run_ask(session, id, ask);
                continue;
            };
            if let Some(ask) = self.run_append(session, id, request_id, reply, request) {
                if let Some(Slot::Ready(_, parked)) = self.slots.get_mut(&id) {
                    parked.push_front((session, ask));
                }
                return;
            }
        }
        self.forget_if_absent(id);
    }

    /// The log's word on ids that an append was held back for; `None`: it could not be read.
    pub(super) fn on_dedup_read(&mut self, id: ConversationId, then: impl FnOnce(&mut Conversation) -> bool) {
        let Some(Slot::Ready(conversation, parked)) = self.slots.get_mut(&id) else { return };
        if !then(conversation) {
            conversation.on_dedup_failed();
            let refused = parked.pop_front();
            if let Some((session, ask)) = refused {
                self.refuse_ask(session, id, &ask, &Refusal::read_failed());
            }
        }
        self.run_parked(id);
    }

    fn run_ask(&mut self, session: SessionKey, id: ConversationId, ask: Ask) {
        match ask {
            Ask::Append { request_id, reply, request } => {
                if let Some(ask) = self.run_append(session, id, request_id, reply, request)
                    && let Some(Slot::Ready(_, parked)) = self.slots.get_mut(&id)
                {
                    parked.push_back((session, ask));
                }
            }
            Ask::History { request_id, history } => self.run_history(session, request_id, history),
            Ask::Members { request_id, page } => self.run_members(session, id, request_id, &page),
            Ask::Resume(cursor) => self.run_resume(session, id, cursor),
            Ask::Ack(up_to) => self.record_ack(session, id, up_to),
            Ask::CatchUp => self.resume_reading(session),
        }
    }

    /// Admits an append; gives it back when it has to be parked.
    fn run_append(
        &mut self,
        session: SessionKey,
        id: ConversationId,
        request_id: RequestId,
        reply: ReplyKind,
        request: AppendRequest,
    ) -> Option<Ask> {
        let asking = self.directory.sessions.get(&session)?;
        let identity = &asking.identity;
        let peer = Peer { user: identity.user, subject: identity.subject.clone() };
        let sender = Sender { peer, device: asking.device_number };
        let (stamp, room, can_read) = (self.stamp(), self.under_way.has_room(), self.under_way.can_read());
        let Some(Slot::Ready(conversation, _)) = self.slots.get_mut(&id) else { return None };
        let waiter = Waiter { session, request_id, reply };
        match conversation.admit(&Admit { sender: &sender, waiter, request: &request, room, stamp }) {
            Admission::Append(append) => {
                let bytes = bytes_of(&append);
                self.log(LogOp::Append(*append), OpTarget::Append(id, bytes));
                None
            }
            Admission::Joined => None,
            Admission::Answer(answer) => {
                self.answer(id, waiter, answer);
                None
            }
            Admission::Lookup(_) if !can_read => {
                conversation.on_dedup_failed();
                self.refuse(session, request_id, &Refusal::busy("too many reads are under way"));
                None
            }
            Admission::Lookup(ids) => {
                let user = sender.peer.user;
                let what = ReadOp::Dedup { conversation: id, user, ids: ids.clone() };
                self.read(what, ReadTarget::Dedup(id, user, ids));
                Some(Ask::Append { request_id, reply, request })
            }
            Admission::Park => Some(Ask::Append { request_id, reply, request }),
        }
    }

    /// Answers what cannot be asked.
    pub(super) fn refuse_ask(
        &mut self,
        session: SessionKey,
        id: ConversationId,
        ask: &Ask,
        refusal: &Refusal,
    ) {
        match ask {
            Ask::Append { request_id, .. }
            | Ask::History { request_id, .. }
            | Ask::Members { request_id, .. } => {
                self.refuse(session, *request_id, refusal);
            }
            Ask::Resume(_) => self.stop_delivery(session, id, refusal),
            Ask::CatchUp => {
                self.stop_delivery(session, id, refusal);
                self.set_reading(session, false);
            }
            // The next acknowledgement says the same and more.
            Ask::Ack(_) => {}
        }
    }

    /// Ends the delivery of a conversation to a session, and says why.
    pub(super) fn stop_delivery(&mut self, session: SessionKey, id: ConversationId, refusal: &Refusal) {
        let Some(state) = self.directory.sessions.get_mut(&session) else { return };
        state.stop(id);
        let frame = ServerFrame::Error {
            request_id: None,
            conversation: Some(id),
            code: refusal.code as u32,
            message: refusal.message.to_owned(),
            retry_after_ms: refusal.retry_after_ms,
        };
        self.send(session, frame);
    }

    /// Room for one more conversation: one at rest is unloaded when all places are taken.
    fn make_room(&mut self) -> bool {
        for _ in 0..UNLOAD_TRIES {
            if self.loaded.len() < self.loaded_max {
                return true;
            }
            let Some(oldest) = self.loaded.pop_front() else { return true };
            match self.slots.get(&oldest) {
                Some(Slot::Ready(conversation, parked))
                    if conversation.is_at_rest()
                        && parked.is_empty()
                        && !self.under_way.readers.contains_key(&oldest) =>
                {
                    self.slots.remove(&oldest);
                }
                Some(_) => self.loaded.push_back(oldest),
                None => {}
            }
        }
        self.loaded.len() < self.loaded_max
    }

    /// What does not exist, and is not about to, takes no memory.
    fn forget_if_absent(&mut self, id: ConversationId) {
        if let Some(Slot::Ready(conversation, parked)) = self.slots.get(&id)
            && !conversation.exists()
            && conversation.is_at_rest()
            && parked.is_empty()
        {
            self.slots.remove(&id);
            if self.loaded.back() == Some(&id) {
                self.loaded.pop_back();
            }
        }
    }
}

/// Waits for the bar to go: an append behind others, and whatever is asked by one who is about to become a member.
/// Their client may know already, from a list that was read from the log before its word came here.
fn is_held_back(conversation: &Conversation, parked: &Parked, user: Option<UserId>, ask: &Ask) -> bool {
    match ask {
        // Who has nothing to do with the conversation is answered as if there were none, and as fast ([ERR-4]).
        Ask::Append { request, .. } => {
            let involved = |user| conversation.member(user).is_some() || conversation.is_joining(user);
            !parked.is_empty() && (request.kind.creates() || user.is_some_and(involved))
        }
        Ask::History { .. } | Ask::Members { .. } | Ask::Resume(_) => {
            user.is_some_and(|user| conversation.is_joining(user))
        }
        Ask::Ack(_) | Ask::CatchUp => false,
    }
}

fn bytes_of(append: &Append) -> usize {
    let content = |body: &StoredBody| match body {
        StoredBody::Kept { content, .. } => content.len(),
        StoredBody::Erased { .. } => 0,
    };
    append.entries.iter().map(|entry| entry.header.len() + content(&entry.body) + 64).sum()
}
