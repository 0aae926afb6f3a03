//! The model's answers to requests, and its log.

use bytes::Bytes;
use talaria_protocol::{
    chain::{Commitment, Leaf},
    entry::{EntryHeader, EntryKind, Urgency},
    error_code::ErrorCode,
    hlc::Hlc,
    ids::{ClientMessageId, ConversationId, UserId},
    message::{
        ConversationKind, ConversationState, Direction, Durability, Member, MemberRole, Peer, RequestId,
        SyncToken, UserRef,
        client::{History, Request, Send},
        content::{Content, MemberAction, MemberChange, Membership},
        server::{HistoryPage, Sent, ServerFrame},
    },
    session::Millis,
};

use super::{ConnectionId, Conversation, HashMap, Model, START_MS, Stored, entry, state};

impl Model {
    pub(super) fn on_request(
        &mut self,
        now: Millis,
        id: ConnectionId,
        request_id: RequestId,
        request: Request,
    ) {
        let user = self.sessions[&id].user.clone().unwrap().0;
        let frame = match request {
            Request::Send(send) => {
                let Some(frame) = self.on_send(now, id, request_id, &send) else { return };
                frame
            }
            Request::Sync { token, .. } => self.on_sync(request_id, user.user, token),
            Request::DirectWith { user: other, client_message_id } => {
                let other = self.peer(other);
                let conversation = self.key.direct(user.user, other.user);
                let members = vec![(user.clone(), MemberRole::Member), (other, MemberRole::Member)];
                let kind = ConversationKind::Direct;
                self.create(now, id, conversation, kind, String::new(), members, client_message_id);
                self.result(request_id, user.user, conversation)
            }
            Request::CreateGroup { client_message_id, title, members } => {
                let conversation = self.key.group(user.user, client_message_id);
                let mut all = vec![(user.clone(), MemberRole::Owner)];
                all.extend(members.into_iter().map(|user| (self.peer(user), MemberRole::Member)));
                let kind = ConversationKind::Group;
                self.create(now, id, conversation, kind, title, all, client_message_id);
                self.result(request_id, user.user, conversation)
            }
            Request::AddMembers(change) => {
                let peers: Vec<_> = change.users.into_iter().map(|user| self.peer(user)).collect();
                let content =
                    membership(false, "", peers.iter().map(|peer| (peer.clone(), MemberAction::Added)));
                let found = self.conversations.get_mut(&change.conversation).unwrap();
                found.members.extend(peers.into_iter().map(|peer| (peer, MemberRole::Member)));
                let id_of = change.client_message_id;
                self.append(now, id, change.conversation, EntryKind::Membership, content, id_of);
                self.result(request_id, user.user, change.conversation)
            }
            Request::ListConversations { .. } => ServerFrame::ConversationList {
                request_id,
                conversations: self.states(user.user, 0),
                next_page: Bytes::new(),
            },
            Request::ListMembers { conversation, .. } => ServerFrame::MemberList {
                request_id,
                members: self.conversations[&conversation]
                    .members
                    .iter()
                    .map(|(peer, role)| Member { peer: peer.clone(), role: *role, joined_seq: 1 })
                    .collect(),
                next_page: Bytes::new(),
            },
            Request::History(history) => self.on_history(id, request_id, history),
            Request::RemoveMembers(_) | Request::Leave { .. } => {
                ServerFrame::error(Some(request_id), ErrorCode::Forbidden, "the model keeps its members")
            }
        };
        self.sessions.get_mut(&id).unwrap().session.reply(frame);
    }

    fn peer(&mut self, user: UserRef) -> Peer {
        match user {
            UserRef::Id(user) => Peer { user, subject: self.subjects[&user].clone() },
            UserRef::Subject(subject) => {
                let user = self.key.user("", &subject);
                self.subjects.insert(user, subject.clone());
                Peer { user, subject }
            }
        }
    }

    #[allow(clippy::too_many_arguments)]
    fn create(
        &mut self,
        now: Millis,
        connection: ConnectionId,
        id: ConversationId,
        kind: ConversationKind,
        title: String,
        members: Vec<(Peer, MemberRole)>,
        client_message_id: ClientMessageId,
    ) {
        if self.conversations.contains_key(&id) {
            return;
        }
        let added = members.iter().map(|(peer, _)| (peer.clone(), MemberAction::Added));
        let content = membership(true, &title, added);
        self.conversations.insert(
            id,
            Conversation {
                kind,
                title,
                members,
                entries: Vec::new(),
                first_seq: 1,
                epochs: Vec::new(),
                accepted: HashMap::new(),
                commit: 0,
            },
        );
        self.append(now, connection, id, EntryKind::Membership, content, client_message_id);
    }

    fn result(&self, request_id: RequestId, user: UserId, id: ConversationId) -> ServerFrame {
        let conversation = state(id, &self.conversations[&id], user);
        ServerFrame::ConversationResult { request_id, conversation, seq: 0, duplicate: false }
    }

    fn on_send(
        &mut self,
        now: Millis,
        id: ConnectionId,
        request_id: RequestId,
        send: &Send,
    ) -> Option<ServerFrame> {
        let error = |code| Some(ServerFrame::error_retry(Some(request_id), code, "", 30));
        if let Some(code) = self.refuse_next.pop_front() {
            return error(code);
        }
        let user = self.sessions[&id].user.clone().unwrap().0.user;
        let Some(found) = self.conversations.get(&send.conversation).filter(|found| found.is_member(user))
        else {
            return error(ErrorCode::NotFound);
        };
        let server_ms = START_MS + now.0;
        let (window, future) = (30 * 24 * 3_600_000, 600_000);
        if send.client_message_id.unix_ms() + window < server_ms {
            return error(ErrorCode::IdExpired);
        }
        if send.client_message_id.unix_ms() > server_ms + future {
            return error(ErrorCode::IdFromFuture);
        }
        if let Some((seq, content)) = found.accepted.get(&(user, send.client_message_id)) {
            if *content != send.content {
                return error(ErrorCode::Conflict);
            }
            self.dedup_hits += 1;
            let header = &found.entries[*seq as usize - 1].header;
            return Some(sent(request_id, header, true));
        }
        if send.after.is_some_and(|after| !found.accepted.contains_key(&(user, after))) {
            return error(ErrorCode::OutOfOrder);
        }
        if self.chance(self.faults.busy) {
            return error(ErrorCode::Busy);
        }
        let content = send.content.clone();
        let header =
            self.append(now, id, send.conversation, EntryKind::Message, content, send.client_message_id);
        if self.chance(self.faults.unknown) {
            return error(ErrorCode::OutcomeUnknown);
        }
        if self.chance(self.faults.cut_after_append) {
            self.cut.push(id);
            self.sessions.get_mut(&id).unwrap().session.end(ErrorCode::Internal, "cut");
            return None;
        }
        Some(sent(request_id, &header, false))
    }

    pub fn append(
        &mut self,
        now: Millis,
        connection: ConnectionId,
        id: ConversationId,
        kind: EntryKind,
        content: Bytes,
        client_message_id: ClientMessageId,
    ) -> EntryHeader {
        let (peer, device, number) = self.sessions[&connection].user.clone().unwrap();
        self.commit += 1;
        let conversation = self.conversations.get_mut(&id).unwrap();
        let seq = conversation.head() + 1;
        if conversation.epochs.last().is_none_or(|(epoch, _)| *epoch < self.epoch) {
            conversation.epochs.push((self.epoch, seq));
        }
        let header = EntryHeader {
            seq,
            ordinal: seq,
            epoch: self.epoch,
            hlc: Hlc::from_ms(START_MS + now.0),
            sender: peer.user,
            device: number,
            kind,
            target_seq: 0,
            client_message_id,
            urgency: Urgency::Normal,
            expires_ms: 0,
        };
        let raw = header.encode();
        let leaf = Leaf::of(&raw, &Commitment::of(&[5; 16], &content));
        let chain = conversation.chain(seq - 1).next(id, seq, &leaf);
        conversation.accepted.insert((peer.user, client_message_id), (seq, content.clone()));
        conversation.entries.push(Stored {
            header: header.clone(),
            raw,
            content,
            device,
            chain,
            commit: self.commit,
        });
        conversation.commit = self.commit;
        self.announce(id);
        header
    }

    fn on_sync(&mut self, request_id: RequestId, user: UserId, token: Option<SyncToken>) -> ServerFrame {
        let known = token.is_some_and(|token| {
            let index = self.boots.iter().position(|(boot, _)| *boot == token.boot_id);
            index.is_some_and(|index| {
                let end = self.boots.get(index + 1).map_or(self.commit, |(_, first)| first - 1);
                token.commit <= end
            })
        });
        let since = token.filter(|_| known).map_or(0, |token| token.commit);
        ServerFrame::SyncResult {
            request_id,
            token: SyncToken { boot_id: self.boots.last().unwrap().0, commit: self.commit },
            reset: !known,
            conversations: self.states(user, since),
            next_page: Bytes::new(),
        }
    }

    fn states(&self, user: UserId, since: u64) -> Vec<ConversationState> {
        self.conversations
            .iter()
            .filter(|(_, conversation)| conversation.is_member(user) && conversation.commit > since)
            .map(|(id, conversation)| state(*id, conversation, user))
            .collect()
    }

    fn on_history(&mut self, id: ConnectionId, request_id: RequestId, history: History) -> ServerFrame {
        let conversation = &self.conversations[&history.conversation];
        let (head, max) = (conversation.head(), history.entries_max as u64);
        let (mut from, mut to) = match history.direction {
            Direction::Forward => (history.from.max(1), (history.from.max(1) + max - 1).min(head)),
            Direction::Backward => {
                let to = if history.from == 0 { head } else { history.from.min(head) };
                ((to + 1).saturating_sub(max).max(1), to)
            }
        };
        from = from.max(conversation.first_seq);
        let session = &mut self.sessions.get_mut(&id).unwrap().session;
        let mut entries = Vec::new();
        let is_empty = from > to;
        for seq in from..=to {
            let entry = entry(&conversation.entries[seq as usize - 1], false);
            if !session.take_credit(1, entry.encoded_len() as u64) {
                to = seq - 1;
                break;
            }
            entries.push(entry);
        }
        if entries.is_empty() && !is_empty {
            return ServerFrame::error_retry(Some(request_id), ErrorCode::NoCredit, "", 20);
        }
        let more = match history.direction {
            Direction::Forward => to < head,
            Direction::Backward => !is_empty && from > conversation.first_seq,
        };
        ServerFrame::HistoryPage(HistoryPage {
            request_id,
            chain_before: conversation.chain(from - 1),
            entries,
            first_seq: conversation.first_seq,
            head,
            more,
        })
    }
}

fn sent(request_id: RequestId, header: &EntryHeader, duplicate: bool) -> ServerFrame {
    ServerFrame::Sent(Sent {
        request_id,
        seq: header.seq,
        epoch: header.epoch,
        hlc: header.hlc,
        durability: Durability::Fsync,
        duplicate,
    })
}

fn membership(created: bool, title: &str, changes: impl Iterator<Item = (Peer, MemberAction)>) -> Bytes {
    let changes =
        changes.map(|(peer, action)| MemberChange { peer, action, role: MemberRole::Member }).collect();
    Content::membership(Membership { created, title: title.into(), changes }).encode()
}
