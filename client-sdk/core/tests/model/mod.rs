//! A model of the server, in memory, on the real `ServerSession`: one log, all sessions, and the faults that a test
//! asks for. Simple on purpose: what it answers is what spec/ says, computed in the plainest way.
#![allow(dead_code, unreachable_pub, missing_docs, clippy::unwrap_used, clippy::expect_used)]

mod requests;
pub mod world;

use std::collections::{BTreeMap, BTreeSet, HashMap};

use bytes::Bytes;
use talaria_protocol::{
    chain::Chain,
    entry::{Entry, EntryForm, EntryHeader, EntryKind},
    error_code::ErrorCode,
    hlc::Hlc,
    ids::{BootId, ClientMessageId, ConversationId, DeviceId, IdKey, SessionId, UserId},
    message::{
        ConversationKind, ConversationState, Cursor, Durability, MemberRole, Peer,
        client::Hello,
        server::{GoAway, Refused, ServerFrame, Welcome, encode_deliver},
    },
    session::{
        Lane, Millis,
        server::{Config, ServerEvent, ServerSession},
    },
};

/// Ms since 1970 at the model's start.
pub const START_MS: u64 = 1_800_000_000_000;

pub type ConnectionId = u64;

#[derive(Clone)]
pub struct Stored {
    pub header: EntryHeader,
    pub raw: Bytes,
    pub content: Bytes,
    pub device: DeviceId,
    pub chain: Chain,
    commit: u64,
}

pub struct Conversation {
    pub kind: ConversationKind,
    pub title: String,
    pub members: Vec<(Peer, MemberRole)>,
    pub entries: Vec<Stored>,
    pub first_seq: u64,
    epochs: Vec<(u64, u64)>,
    accepted: HashMap<(UserId, ClientMessageId), (u64, Bytes)>,
    commit: u64,
}

impl Conversation {
    pub fn head(&self) -> u64 {
        self.entries.len() as u64
    }
    pub fn chain(&self, seq: u64) -> Chain {
        if seq == 0 { Chain::ZERO } else { self.entries[seq as usize - 1].chain }
    }
    fn epoch_at(&self, seq: u64) -> u64 {
        if seq == 0 { 0 } else { self.entries[seq as usize - 1].header.epoch }
    }
    fn is_member(&self, user: UserId) -> bool {
        self.members.iter().any(|(peer, _)| peer.user == user)
    }
}

struct Session {
    session: ServerSession,
    user: Option<(Peer, DeviceId, u32)>,
    /// Next seq to deliver, and whether `CaughtUp` was said.
    resumed: BTreeMap<ConversationId, (u64, bool)>,
    changed: BTreeSet<ConversationId>,
    sent_up_to: BTreeMap<ConversationId, u64>,
}

/// What goes wrong, in parts of 1000.
#[derive(Clone, Copy, Default)]
pub struct Faults {
    /// A send is answered by BUSY.
    pub busy: u64,
    /// A send is appended and answered by OUTCOME_UNKNOWN.
    pub unknown: u64,
    /// A send is appended and the connection cut before the answer.
    pub cut_after_append: u64,
}

pub struct Model {
    pub key: IdKey,
    pub conversations: BTreeMap<ConversationId, Conversation>,
    pub faults: Faults,
    /// Next answers to sends, whatever they are.
    pub refuse_next: std::collections::VecDeque<ErrorCode>,
    /// Leave out all but so many of the newest entries at resume.
    pub newest_only: Option<u64>,
    /// Sessions fall behind again and again; what they lack is left out but for the last.
    pub lags: bool,
    /// An entry of this seq is not sent, once: the server is broken.
    pub swallows: Option<u64>,
    pub pings: u64,
    /// What each device was told that it does not get.
    pub left_out: BTreeSet<(DeviceId, ConversationId, u64)>,
    pub dedup_hits: u64,
    pub acks: BTreeMap<(DeviceId, ConversationId), u64>,
    /// What each Hello said of its app.
    pub told_background: Vec<bool>,
    pub token_life_ms: u64,
    pub accepts_token: fn(&str) -> bool,
    boots: Vec<(BootId, u64)>,
    commit: u64,
    epoch: u64,
    devices: BTreeMap<(UserId, DeviceId), u32>,
    subjects: BTreeMap<UserId, String>,
    sessions: BTreeMap<ConnectionId, Session>,
    next_connection: ConnectionId,
    random: u64,
    cut: Vec<ConnectionId>,
}

impl Model {
    pub fn new(seed: u64) -> Self {
        Self {
            key: IdKey::new([9; 32]),
            conversations: BTreeMap::new(),
            faults: Faults::default(),
            refuse_next: Default::default(),
            newest_only: None,
            lags: false,
            swallows: None,
            pings: 0,
            left_out: BTreeSet::new(),
            dedup_hits: 0,
            acks: BTreeMap::new(),
            told_background: Vec::new(),
            token_life_ms: 3_600_000,
            accepts_token: |_| true,
            boots: vec![(BootId::new([1; 16]), 1)],
            commit: 0,
            epoch: 100,
            devices: BTreeMap::new(),
            subjects: BTreeMap::new(),
            sessions: BTreeMap::new(),
            next_connection: 1,
            random: seed | 1,
            cut: Vec::new(),
        }
    }

    pub fn chance(&mut self, per_mille: u64) -> bool {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random % 1000 < per_mille
    }

    // ---- connections ----

    pub fn connect(&mut self, now: Millis) -> ConnectionId {
        let id = self.next_connection;
        self.next_connection += 1;
        self.sessions.insert(
            id,
            Session {
                session: ServerSession::new(now, Config::default()),
                user: None,
                resumed: BTreeMap::new(),
                changed: BTreeSet::new(),
                sent_up_to: BTreeMap::new(),
            },
        );
        id
    }

    pub fn disconnect(&mut self, id: ConnectionId) {
        self.sessions.remove(&id);
    }

    /// Connections that the model itself cut.
    pub fn take_cut(&mut self) -> Vec<ConnectionId> {
        std::mem::take(&mut self.cut)
    }

    pub fn frame_bytes_max(&self, id: ConnectionId) -> usize {
        self.sessions.get(&id).map_or(1 << 20, |session| session.session.frame_bytes_max())
    }

    /// Connections whose last frame was taken.
    pub fn is_closed(&self, id: ConnectionId) -> bool {
        self.sessions.get(&id).is_none_or(|session| session.session.is_closed())
    }

    pub fn end_sessions(&mut self, code: ErrorCode, reconnect_after_ms: u32) {
        for session in self.sessions.values_mut() {
            session.session.go_away(GoAway {
                code: code as u32,
                message: String::new(),
                redirect: String::new(),
                reconnect_after_ms,
            });
        }
    }

    /// The node dies and comes back; with `lose`, the last so many entries of every conversation are gone.
    pub fn restart(&mut self, lose: u64) {
        self.cut.extend(self.sessions.keys().copied());
        self.sessions.clear();
        self.epoch += 10;
        if lose > 0 {
            for conversation in self.conversations.values_mut() {
                let keep = conversation.head().saturating_sub(lose).max(1);
                conversation.entries.truncate(keep as usize);
                conversation.accepted.retain(|_, (seq, _)| *seq <= keep);
                conversation.epochs.retain(|(_, first)| *first <= keep);
                conversation.commit = conversation.entries.last().unwrap().commit;
            }
            self.commit =
                self.conversations.values().map(|conversation| conversation.commit).max().unwrap_or(0);
        }
        self.boots.push((BootId::new([self.boots.len() as u8 + 1; 16]), self.commit + 1));
    }

    pub fn handle_frame(&mut self, now: Millis, id: ConnectionId, payload: Bytes) {
        let Some(session) = self.sessions.get_mut(&id) else { return };
        session.session.handle_frame(now, payload);
        while let Some(event) = self.sessions.get_mut(&id).and_then(|session| session.session.poll_event()) {
            self.on_event(now, id, event);
        }
        self.deliver();
    }

    pub fn handle_timeouts(&mut self, now: Millis) {
        for session in self.sessions.values_mut() {
            if session.session.poll_timeout().is_some_and(|at| at <= now) {
                session.session.handle_timeout(now);
            }
        }
    }

    pub fn poll_transmit(&mut self, id: ConnectionId) -> Option<Bytes> {
        self.sessions.get_mut(&id)?.session.poll_transmit()
    }

    /// The next frame of one lane, for a transport with streams.
    pub fn poll_lane(&mut self, id: ConnectionId, lane: Lane) -> Option<Bytes> {
        self.sessions.get_mut(&id)?.session.poll_lane(lane)
    }

    fn on_event(&mut self, now: Millis, id: ConnectionId, event: ServerEvent) {
        match event {
            ServerEvent::Hello(hello) => self.on_hello(now, id, &hello),
            ServerEvent::Reauth { request_id, token } => {
                let good = (self.accepts_token)(&token.0);
                let (life, session) = (self.token_life_ms, &mut self.sessions.get_mut(&id).unwrap().session);
                if good {
                    session.handle_reauthed(request_id, START_MS + now.0 + life, Millis(now.0 + life));
                } else {
                    session.reply(ServerFrame::error(Some(request_id), ErrorCode::TokenInvalid, ""));
                }
            }
            ServerEvent::Request { request_id, request } => self.on_request(now, id, request_id, request),
            ServerEvent::Ack { conversation, up_to } => self.on_ack(id, conversation, up_to),
            ServerEvent::Resume(cursors) => {
                cursors
                    .into_iter()
                    .for_each(|(conversation, cursor)| self.on_resume(id, conversation, cursor));
            }
            ServerEvent::Ping(nonce) => {
                self.pings += 1;
                self.sessions.get_mut(&id).unwrap().session.pong(nonce, Hlc::from_ms(START_MS + now.0));
            }
            ServerEvent::CreditGranted | ServerEvent::Logout => {}
        }
    }

    fn on_hello(&mut self, now: Millis, id: ConnectionId, hello: &Hello) {
        self.told_background.push(hello.background);
        if !(self.accepts_token)(&hello.token.0) {
            let refused = Refused {
                code: ErrorCode::TokenInvalid as u32,
                message: String::new(),
                retry_after_ms: 0,
                redirect: String::new(),
            };
            self.sessions.get_mut(&id).unwrap().session.handle_refusal(refused);
            return;
        }
        // A token is "subject" or "subject#anything".
        let subject = hello.token.0.split('#').next().unwrap().to_string();
        let user = self.key.user("", &subject);
        self.subjects.insert(user, subject.clone());
        let number = self.devices.keys().filter(|(other, _)| *other == user).count() as u32 + 1;
        let number = *self.devices.entry((user, hello.device)).or_insert(number);
        let taken_over: Vec<_> = self
            .sessions
            .iter()
            .filter(|(_, session)| {
                session.user.as_ref().is_some_and(|(_, device, _)| *device == hello.device)
            })
            .map(|(id, _)| *id)
            .collect();
        for other in taken_over {
            self.sessions.get_mut(&other).unwrap().session.end(ErrorCode::TakenOver, "");
        }
        let welcome = Welcome {
            session: SessionId::new([0; 16]),
            user,
            subject: subject.clone(),
            device_number: number,
            protocol: 1,
            limits: Default::default(),
            keepalive_ms: 30_000,
            hlc: Hlc::from_ms(START_MS + now.0),
            node: "model".into(),
            token_expires_ms: START_MS + now.0 + self.token_life_ms,
            durability: Durability::Fsync,
        };
        let expires = Millis(now.0 + self.token_life_ms);
        let session = self.sessions.get_mut(&id).unwrap();
        session.user = Some((Peer { user, subject }, hello.device, number));
        session.session.handle_welcome(now, welcome, expires);
    }

    fn on_ack(&mut self, id: ConnectionId, conversation: ConversationId, up_to: u64) {
        let session = self.sessions.get_mut(&id).unwrap();
        let sent = session.sent_up_to.get(&conversation).copied().unwrap_or(0);
        assert!(up_to <= sent, "an ack beyond what was sent: {up_to} > {sent}");
        let device = session.user.as_ref().unwrap().1;
        let acked = self.acks.entry((device, conversation)).or_insert(0);
        *acked = up_to.max(*acked);
    }

    // ---- resume ----

    fn on_resume(&mut self, id: ConnectionId, conversation: ConversationId, cursor: Cursor) {
        let session = self.sessions.get_mut(&id).unwrap();
        let user = session.user.as_ref().unwrap().0.user;
        let Some(found) = self.conversations.get(&conversation).filter(|found| found.is_member(user)) else {
            let error = ServerFrame::conversation_error(conversation, ErrorCode::NotFound, "");
            return session.session.send(&error);
        };
        if cursor.seq > found.head() || found.chain(cursor.seq) != cursor.chain {
            let last = found.epochs.iter().rposition(|(epoch, _)| *epoch <= cursor.epoch);
            let end = match last {
                Some(index) => found.epochs.get(index + 1).map_or(found.head(), |(_, first)| first - 1),
                None => 0,
            };
            let known = last.is_some_and(|index| found.epochs[index].0 == cursor.epoch);
            if known && cursor.seq <= end {
                let error = ServerFrame::conversation_error(conversation, ErrorCode::ChainMismatch, "");
                return session.session.send(&error);
            }
            return session.session.send(&ServerFrame::EpochChanged {
                conversation,
                first_seq: end + 1,
                chain: found.chain(end),
                epoch: found.epoch_at(end),
            });
        }
        let mut next = cursor.seq + 1;
        if next < found.first_seq {
            next = found.first_seq;
            let chain = found.chain(next - 1);
            session.session.send(&ServerFrame::Truncated { conversation, first_seq: next, chain });
        }
        if let Some(newest) = self.newest_only
            && found.head() + 1 > next + newest
        {
            let to = found.head() - newest;
            let chain = found.chain(to);
            session.session.send(&ServerFrame::Skipped { conversation, from: next, to, chain });
            let device = session.user.as_ref().unwrap().1;
            self.left_out.extend((next..=to).map(|seq| (device, conversation, seq)));
            next = to + 1;
        }
        session.resumed.insert(conversation, (next, false));
        session.changed.remove(&conversation);
        let sent = session.sent_up_to.entry(conversation).or_insert(0);
        *sent = (*sent).max(next - 1);
    }

    /// Everything that credit allows, to everyone.
    pub fn deliver(&mut self) {
        for session in self.sessions.values_mut() {
            let Some((peer, device, _)) = session.user.clone() else { continue };
            for (id, conversation) in &self.conversations {
                if !conversation.is_member(peer.user) {
                    continue;
                }
                let Some((next, caught_up)) = session.resumed.get_mut(id) else { continue };
                if self.lags && *caught_up && conversation.head() >= *next && conversation.head() % 16 < 8 {
                    let to = conversation.head() - 1;
                    if to < *next + 5 {
                        continue;
                    }
                    let skipped = ServerFrame::Skipped {
                        conversation: *id,
                        from: *next,
                        to,
                        chain: conversation.chain(to),
                    };
                    session.session.send(&skipped);
                    self.left_out.extend((*next..=to).map(|seq| (device, *id, seq)));
                    session.sent_up_to.insert(*id, to);
                    *next = to + 1;
                }
                while *next <= conversation.head() {
                    if self.swallows.take_if(|seq| *seq == *next).is_some() {
                        *next += 1;
                        continue;
                    }
                    let stored = &conversation.entries[*next as usize - 1];
                    let omit = stored.device == device && stored.header.kind == EntryKind::Message;
                    let entry = entry(stored, omit);
                    if !session.session.take_credit(1, entry.encoded_len() as u64) {
                        break;
                    }
                    let lane = if *caught_up { Lane::Live } else { Lane::Bulk };
                    session.session.send_of(*id, lane, encode_deliver(*id, &entry));
                    let sent = session.sent_up_to.entry(*id).or_insert(0);
                    *sent = (*sent).max(*next);
                    *next += 1;
                }
                if *next > conversation.head() && !*caught_up {
                    *caught_up = true;
                    let head = conversation.head();
                    session.session.send(&ServerFrame::CaughtUp { conversation: *id, head, chain: None });
                }
            }
        }
    }

    fn announce(&mut self, id: ConversationId) {
        let conversation = &self.conversations[&id];
        for session in self.sessions.values_mut() {
            let Some((peer, _, _)) = &session.user else { continue };
            if conversation.is_member(peer.user)
                && !session.resumed.contains_key(&id)
                && session.changed.insert(id)
            {
                session.session.send(&ServerFrame::Changed(state(id, conversation, peer.user)));
            }
        }
    }
}

fn entry(stored: &Stored, omit: bool) -> Entry {
    let content = (!omit).then(|| stored.content.clone());
    let form = EntryForm::Full { header: stored.raw.clone(), content, salt: [5; 16] };
    Entry { seq: stored.header.seq, form }
}

fn state(id: ConversationId, conversation: &Conversation, user: UserId) -> ConversationState {
    let other = conversation.members.iter().map(|(peer, _)| peer).find(|peer| peer.user != user);
    ConversationState {
        conversation: id,
        kind: conversation.kind,
        title: conversation.title.clone(),
        head: conversation.head(),
        epoch: conversation.epoch_at(conversation.head()),
        first_seq: conversation.first_seq,
        hlc: Hlc::from_ms(START_MS),
        member: true,
        role: MemberRole::Member,
        peer: (conversation.kind == ConversationKind::Direct).then(|| other.cloned()).flatten(),
    }
}
