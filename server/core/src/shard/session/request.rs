//! A request finds its conversation. Users that it names by id are looked up first, for their subjects; those named
//! by subject need nothing: the id follows from the subject, and they may connect later for the first time.

use talaria_protocol::{
    error_code::ErrorCode,
    ids::{ClientMessageId, ConversationId, UserId},
    message::{
        Peer, RequestId, UserRef,
        client::{self, Request},
    },
};

use crate::{
    conversation::{AppendKind, AppendRequest, Refusal, ReplyKind},
    effect::SessionKey,
    log::{ReadOp, UserRow},
    question::Question,
    shard::{Shard, mail::AskTarget, under_way::ReadTarget},
};

/// What is done once all its users are known.
#[derive(Debug)]
enum Then {
    Direct,
    CreateGroup { title: String },
    AddMembers { conversation: ConversationId },
}

/// A request some of whose users are being looked up. One at a time: requests that name users by id are rare.
#[derive(Debug)]
pub(in crate::shard) struct Resolving {
    id: ClientMessageId,
    then: Then,
    todo: Vec<UserRef>,
    known: Vec<Peer>,
}

impl Shard {
    pub(in crate::shard) fn on_request(
        &mut self,
        session: SessionKey,
        request_id: RequestId,
        request: Request,
    ) {
        if !self.sessions.directory.sessions.contains_key(&session) {
            return;
        }
        match request {
            Request::Send(send) => self.on_send(session, request_id, &send),
            Request::DirectWith { user, client_message_id } => {
                self.resolve(session, request_id, client_message_id, Then::Direct, vec![user]);
            }
            Request::CreateGroup { client_message_id, title, members } => {
                self.resolve(session, request_id, client_message_id, Then::CreateGroup { title }, members);
            }
            Request::AddMembers(client::ChangeMembers { client_message_id, conversation, users }) => {
                self.resolve(
                    session,
                    request_id,
                    client_message_id,
                    Then::AddMembers { conversation },
                    users,
                );
            }
            Request::RemoveMembers(client::ChangeMembers { client_message_id, conversation, users }) => {
                let Some(users) = self.user_ids(session, &users) else { return };
                self.change(
                    session,
                    request_id,
                    conversation,
                    client_message_id,
                    AppendKind::RemoveMembers(users),
                );
            }
            Request::Leave { client_message_id, conversation } => {
                self.change(session, request_id, conversation, client_message_id, AppendKind::Leave);
            }
            Request::ListMembers { conversation, page } => {
                let question = Question::Members { page };
                self.request(
                    session,
                    request_id,
                    conversation,
                    question,
                    AskTarget::Members(session, request_id),
                );
            }
            Request::History(history) => self.on_history(session, request_id, history),
            Request::ListConversations { page } => self.on_list_conversations(session, request_id, &page),
            Request::Sync { token, page } => self.on_sync(session, request_id, token, &page),
        }
    }

    fn on_send(&mut self, session: SessionKey, request_id: RequestId, send: &client::Send) {
        let content = send.content.clone();
        let kind = AppendKind::Send { content, urgency: send.urgency, expires_ms: send.expires_ms };
        let request = AppendRequest { id: send.client_message_id, after: send.after, kind };
        self.append(session, request_id, send.conversation, ReplyKind::Sent, request);
    }

    fn append(
        &mut self,
        session: SessionKey,
        request_id: RequestId,
        conversation: ConversationId,
        reply: ReplyKind,
        request: AppendRequest,
    ) {
        let Some(state) = self.sessions.directory.sessions.get(&session) else { return };
        let subject = state.identity.subject.clone();
        let question = Question::Append { subject, reply, request };
        self.request(session, request_id, conversation, question, AskTarget::Append(session, request_id));
    }

    /// Asks for a request.
    pub(super) fn request(
        &mut self,
        session: SessionKey,
        request_id: RequestId,
        conversation: ConversationId,
        question: Question,
        target: AskTarget,
    ) {
        if self.ask(session, conversation, question, target).is_none() {
            self.refuse(session, request_id, &Refusal::busy("too many questions are under way"));
        }
    }

    fn change(
        &mut self,
        session: SessionKey,
        request_id: RequestId,
        conversation: ConversationId,
        id: ClientMessageId,
        kind: AppendKind,
    ) {
        let request = AppendRequest { id, after: None, kind };
        self.append(session, request_id, conversation, ReplyKind::Conversation, request);
    }

    fn user_ids(&self, session: SessionKey, users: &[UserRef]) -> Option<Vec<UserId>> {
        let tenant = &self.sessions.directory.sessions.get(&session)?.identity.tenant;
        let id_of = |user: &UserRef| match user {
            UserRef::Id(id) => *id,
            UserRef::Subject(subject) => self.config.log.id_key.user(tenant, subject),
        };
        Some(users.iter().map(id_of).collect())
    }

    fn resolve(
        &mut self,
        session: SessionKey,
        request_id: RequestId,
        id: ClientMessageId,
        then: Then,
        users: Vec<UserRef>,
    ) {
        let todo = users.into_iter().rev().collect();
        self.resolve_on(session, request_id, Resolving { id, then, todo, known: Vec::new() });
    }

    fn resolve_on(&mut self, session: SessionKey, request_id: RequestId, mut resolving: Resolving) {
        let Some(identity) = self.sessions.directory.sessions.get(&session).map(|session| &session.identity)
        else {
            return;
        };
        while let Some(user) = resolving.todo.pop() {
            match user {
                UserRef::Subject(subject) => {
                    let user = self.config.log.id_key.user(&identity.tenant, &subject);
                    resolving.known.push(Peer { user, subject });
                }
                UserRef::Id(user) if user == identity.user => {
                    resolving.known.push(Peer { user, subject: identity.subject.clone() });
                }
                UserRef::Id(_) if !self.under_way.can_read() => {
                    return self.refuse(session, request_id, &Refusal::busy("too many reads are under way"));
                }
                UserRef::Id(user) => {
                    resolving.todo.push(UserRef::Id(user));
                    self.sessions.resolving.insert((session, request_id), resolving);
                    return self
                        .read(ReadOp::User { user, device: None }, ReadTarget::Resolve(session, request_id));
                }
            }
        }
        self.on_resolved(session, request_id, resolving);
    }

    /// What the log knows of the user that a request named by id; `None`: it could not be read.
    pub(in crate::shard) fn on_resolve_read(
        &mut self,
        session: SessionKey,
        request_id: RequestId,
        found: Option<Option<UserRow>>,
    ) {
        let Some(mut resolving) = self.sessions.resolving.remove(&(session, request_id)) else { return };
        let Some(asking) = self.sessions.directory.sessions.get(&session) else { return };
        let Some(row) = found else {
            return self.refuse(session, request_id, &Refusal::read_failed());
        };
        match (row, resolving.todo.pop()) {
            (Some(row), Some(UserRef::Id(user))) if row.tenant == asking.identity.tenant => {
                resolving.known.push(Peer { user, subject: row.subject });
                self.resolve_on(session, request_id, resolving);
            }
            _ => {
                let refusal =
                    Refusal::new(ErrorCode::UnknownUser, "no user of that id: name them by subject");
                self.refuse(session, request_id, &refusal);
            }
        }
    }

    fn on_resolved(&mut self, session: SessionKey, request_id: RequestId, resolving: Resolving) {
        let Some(asking) = self.sessions.directory.sessions.get(&session) else { return };
        let me = asking.identity.user;
        let Resolving { id, then, mut known, .. } = resolving;
        match then {
            Then::Direct => {
                let Some(peer) = known.pop() else { return };
                let conversation = self.config.log.id_key.direct(me, peer.user);
                self.change(session, request_id, conversation, id, AppendKind::Direct(peer));
            }
            Then::CreateGroup { title } => {
                let conversation = self.config.log.id_key.group(me, id);
                self.change(
                    session,
                    request_id,
                    conversation,
                    id,
                    AppendKind::CreateGroup { title, members: known },
                );
            }
            Then::AddMembers { conversation } => {
                self.change(session, request_id, conversation, id, AppendKind::AddMembers(known));
            }
        }
    }
}
