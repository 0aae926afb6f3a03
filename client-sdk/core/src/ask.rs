//! Requests of the app that are answered: each is repeated, with the same client message id, over cuts and retryable
//! refusals until its deadline. So an answer is either the server's or "unknown", never "maybe twice".

use std::{collections::BTreeMap, time::Duration};

use talaria_protocol::{
    error_code::ErrorCode,
    ids::{ClientMessageId, ConversationId},
    message::{
        ConversationState, Direction, Member, PageToken, RequestId, UserRef,
        client::{ChangeMembers, History, Request},
        server::{HistoryPage, ServerFrame},
    },
    session::Millis,
};

use crate::{backoff::retry_delay, event::code_name, rng::Rng};

/// Requests that may wait; one more is refused.
pub const ASKS_MAX: usize = 256;

/// Names a request between driver and engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AskId(pub u64);

/// What an app can ask.
#[derive(Clone, Debug, PartialEq)]
pub enum Ask {
    /// The direct conversation with a user, made if need be.
    DirectWith(UserRef),
    /// A new group.
    CreateGroup {
        /// Shown to members.
        title: String,
        /// Beside this user.
        members: Vec<UserRef>,
    },
    /// Into a group.
    AddMembers(ConversationId, Vec<UserRef>),
    /// From a group.
    RemoveMembers(ConversationId, Vec<UserRef>),
    /// This user, from a group.
    Leave(ConversationId),
    /// A page of this user's conversations.
    ListConversations(PageToken),
    /// A page of a conversation's members.
    ListMembers(ConversationId, PageToken),
    /// A page of a conversation's entries.
    History {
        /// Of which.
        conversation: ConversationId,
        /// First seq of a forward page, last of a backward one; backward with 0: from the head.
        from: u64,
        /// Which way.
        direction: Direction,
        /// At most so many; 0: the server's page.
        entries_max: usize,
    },
}

/// What the server says.
#[derive(Clone, Debug, PartialEq)]
pub enum Answer {
    /// Of a conversation, after the request.
    Conversation(ConversationState),
    /// A page; the token of the next, or empty.
    Conversations(Vec<ConversationState>, PageToken),
    /// A page; the token of the next, or empty.
    Members(Vec<Member>, PageToken),
    /// A page, not verified yet.
    History(HistoryPage),
}

/// Why a request has no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AskError {
    /// The server refused for good.
    #[error("the server refused: {} ({message})", code_name(*code))]
    Refused {
        /// A number of spec/errors.md.
        code: u32,
        /// For a developer.
        message: String,
    },
    /// No final answer came in time. What it asks for may have happened; asking again is safe.
    #[error("no answer in time; try again later")]
    Timeout,
    /// Too many requests wait.
    #[error("too many requests wait for answers; try again later")]
    TooMany,
    /// The client has stopped.
    #[error("the client has stopped")]
    Stopped,
}

#[derive(Clone, Copy, Debug)]
enum State {
    Waiting { not_before: Millis },
    InFlight(RequestId),
}

#[derive(Debug)]
struct Pending {
    ask: Ask,
    id: Option<ClientMessageId>,
    state: State,
    deadline: Millis,
}

/// Those that wait.
#[derive(Debug, Default)]
pub struct Asks {
    pending: BTreeMap<AskId, Pending>,
}

impl Asks {
    /// Takes a request, to be answered by `deadline`.
    ///
    /// # Errors
    /// Too many wait.
    pub fn push(&mut self, ask_id: AskId, ask: Ask, deadline: Millis) -> Result<(), AskError> {
        if self.pending.len() >= ASKS_MAX {
            return Err(AskError::TooMany);
        }
        let state = State::Waiting { not_before: Millis::default() };
        self.pending.insert(ask_id, Pending { ask, id: None, state, deadline });
        Ok(())
    }

    /// The next one to transmit. `mint` makes its client message id, once.
    pub fn next_request(
        &mut self,
        now: Millis,
        mint: impl FnOnce() -> ClientMessageId,
    ) -> Option<(AskId, Request)> {
        let due =
            |pending: &Pending| matches!(pending.state, State::Waiting { not_before } if not_before <= now);
        let (ask_id, pending) = self.pending.iter_mut().find(|(_, pending)| due(pending))?;
        let id = *pending.id.get_or_insert_with(mint);
        Some((*ask_id, request(&pending.ask, id)))
    }

    /// It is on the wire.
    pub fn on_transmitted(&mut self, ask_id: AskId, request: RequestId) {
        if let Some(pending) = self.pending.get_mut(&ask_id) {
            pending.state = State::InFlight(request);
        }
    }

    /// Those in flight go out again.
    pub fn on_disconnected(&mut self) {
        for pending in self.pending.values_mut() {
            pending.state = State::Waiting { not_before: Millis::default() };
        }
    }

    /// It is answered.
    pub fn on_answered(&mut self, ask_id: AskId, frame: ServerFrame) -> Option<Result<Answer, AskError>> {
        self.pending.remove(&ask_id)?;
        Some(match frame {
            ServerFrame::ConversationResult { conversation, .. } => Ok(Answer::Conversation(conversation)),
            ServerFrame::ConversationList { conversations, next_page, .. } => {
                Ok(Answer::Conversations(conversations, next_page))
            }
            ServerFrame::MemberList { members, next_page, .. } => Ok(Answer::Members(members, next_page)),
            ServerFrame::HistoryPage(page) => Ok(Answer::History(page)),
            _ => Err(AskError::Refused {
                code: ErrorCode::ProtocolViolation as u32,
                message: "an answer of another kind than the request".into(),
            }),
        })
    }

    /// It is refused: its end, or `None` when it goes out again.
    pub fn on_refused(
        &mut self,
        ask_id: AskId,
        code: u32,
        message: String,
        retry_after_ms: u32,
        now: Millis,
        rng: &mut Rng,
    ) -> Option<AskError> {
        let pending = self.pending.get_mut(&ask_id)?;
        match ErrorCode::from_wire(code) {
            Some(code) if code.retryable() => {
                let not_before = now.after(retry_delay(retry_after_ms.max(50), rng));
                pending.state = State::Waiting { not_before };
                None
            }
            // Its id was minted on this connection or one just before: nothing was appended by it.
            Some(ErrorCode::IdFromFuture) => {
                pending.id = None;
                pending.state = State::Waiting { not_before: now.after(Duration::from_secs(1)) };
                None
            }
            _ => {
                self.pending.remove(&ask_id);
                Some(AskError::Refused { code, message })
            }
        }
    }

    /// Those whose time is over, and the requests of theirs that are in flight.
    pub fn take_late(&mut self, now: Millis) -> Vec<(AskId, Option<RequestId>)> {
        let late: Vec<_> =
            self.pending.iter().filter(|(_, pending)| pending.deadline <= now).map(|(id, _)| *id).collect();
        late.into_iter().filter_map(|id| self.take(id)).collect()
    }

    /// None wait.
    pub fn is_empty(&self) -> bool {
        self.pending.is_empty()
    }

    /// Nobody waits for it any more.
    pub fn take(&mut self, ask_id: AskId) -> Option<(AskId, Option<RequestId>)> {
        self.pending.remove(&ask_id).map(|pending| match pending.state {
            State::InFlight(request) => (ask_id, Some(request)),
            State::Waiting { .. } => (ask_id, None),
        })
    }

    /// All of them.
    pub fn take_all(&mut self) -> Vec<AskId> {
        std::mem::take(&mut self.pending).into_keys().collect()
    }

    /// When something is due though nothing else happens.
    pub fn poll_timeout(&self, now: Millis) -> Option<Millis> {
        let times = self.pending.values().flat_map(|pending| match pending.state {
            State::Waiting { not_before } if not_before > now => [Some(pending.deadline), Some(not_before)],
            _ => [Some(pending.deadline), None],
        });
        times.flatten().min()
    }
}

fn request(ask: &Ask, client_message_id: ClientMessageId) -> Request {
    let change = |conversation: &ConversationId, users: &[UserRef]| ChangeMembers {
        client_message_id,
        conversation: *conversation,
        users: users.to_vec(),
    };
    match ask {
        Ask::DirectWith(user) => Request::DirectWith { user: user.clone(), client_message_id },
        Ask::CreateGroup { title, members } => {
            Request::CreateGroup { client_message_id, title: title.clone(), members: members.clone() }
        }
        Ask::AddMembers(conversation, users) => Request::AddMembers(change(conversation, users)),
        Ask::RemoveMembers(conversation, users) => Request::RemoveMembers(change(conversation, users)),
        Ask::Leave(conversation) => Request::Leave { client_message_id, conversation: *conversation },
        Ask::ListConversations(page) => Request::ListConversations { page: page.clone() },
        Ask::ListMembers(conversation, page) => {
            Request::ListMembers { conversation: *conversation, page: page.clone() }
        }
        Ask::History { conversation, from, direction, entries_max } => Request::History(History {
            conversation: *conversation,
            from: *from,
            direction: *direction,
            entries_max: *entries_max,
        }),
    }
}
