//! Sessions come and go. Who opens a session is its user's home; it is in the directories before anyone hears of it, and
//! before anything is read for it.

use talaria_protocol::{error_code::ErrorCode, ids::ConversationId, ids::UserId, message::Credit};

use crate::{
    conversation::Refusal,
    directory::Opening,
    effect::{Effect, Identity, SessionKey},
    limits::SESSIONS_MAX,
    peer::{Body, Control, Open, ShardId},
    session::Session,
    shard::{Shard, mail::AskTarget},
};

impl Shard {
    pub(in crate::shard) fn on_open(
        &mut self,
        session: SessionKey,
        identity: Identity,
        credit: Credit,
        confirmed: bool,
    ) {
        let directory = &self.sessions.directory;
        if directory.sessions.len() + directory.opening.len() >= SESSIONS_MAX {
            return self.refuse_new(session, &Refusal::busy("the node has as many sessions as it can hold"));
        }
        let home = self.home_of_user(identity.user);
        let nowhere = ConversationId::new([0; 16]);
        let Some(ask) = self.begin_ask(home, nowhere, AskTarget::Open(session, identity.user)) else {
            return self.refuse_new(session, &Refusal::busy("too many questions are under way"));
        };
        let open = Open { shard: self.config.shard, ask, session, identity: identity.clone(), confirmed };
        let opening = Opening { identity, credit, confirmed, taken_over: false };
        self.sessions.directory.opening.insert(session, opening);
        self.post(home, Body::Open(open));
    }

    fn refuse_new(&mut self, session: SessionKey, refusal: &Refusal) {
        self.effects.push_back(Effect::Refused {
            session,
            code: refusal.code,
            message: refusal.message.to_owned(),
            retry_after_ms: refusal.retry_after_ms,
        });
    }

    /// Of one that has closed meanwhile nobody is told.
    pub(in crate::shard) fn refuse_open(&mut self, session: SessionKey, refusal: &Refusal) {
        if self.sessions.directory.opening.remove(&session).is_some() {
            self.refuse_new(session, refusal);
        }
    }

    /// Its home has given a session its place.
    pub(super) fn on_opened(
        &mut self,
        session: SessionKey,
        user: UserId,
        device_number: u32,
        confirmed_at_home: bool,
    ) {
        let Some(opening) = self.sessions.directory.opening.remove(&session) else {
            // That it has closed may have come there before it was to be opened.
            return self.tell_closed(user, session);
        };
        let Opening { identity, credit, confirmed, taken_over } = opening;
        self.sessions.directory.insert(session, Session::new(identity, device_number, confirmed, credit));
        self.effects.push_back(Effect::Opened { session, device_number });
        if confirmed && !confirmed_at_home {
            self.post_control(self.home_of_user(user), session, Control::Confirm { user });
        }
        if taken_over {
            self.on_taken_over(session);
        }
    }

    /// The peer of a session is there now. While it is opening, its home is told when that has answered.
    pub(in crate::shard) fn on_confirm(&mut self, session: SessionKey) {
        if let Some(opening) = self.sessions.directory.opening.get_mut(&session) {
            opening.confirmed = true;
        } else if let Some(state) = self.sessions.directory.sessions.get_mut(&session)
            && !state.confirmed
        {
            state.confirmed = true;
            let user = state.identity.user;
            self.post_control(self.home_of_user(user), session, Control::Confirm { user });
        }
    }

    pub(in crate::shard) fn on_close(&mut self, session: SessionKey) {
        let opening = self.sessions.directory.opening.remove(&session);
        let open = self.sessions.directory.remove(session);
        let user = opening.map(|opening| opening.identity.user).or(open.map(|open| open.identity.user));
        if let Some(user) = user {
            self.tell_closed(user, session);
        }
    }

    pub(super) fn tell_closed(&mut self, user: UserId, session: SessionKey) {
        self.post_control(self.home_of_user(user), session, Control::Closed { user });
    }

    /// A breach of the protocol.
    pub(super) fn end_for(&mut self, session: SessionKey, code: ErrorCode, message: &str) {
        if let Some(gone) = self.sessions.directory.remove(session) {
            self.end(session, code, message);
            self.tell_closed(gone.identity.user, session);
        }
    }

    /// Its home has given its place to another.
    pub(in crate::shard) fn on_taken_over(&mut self, session: SessionKey) {
        if let Some(opening) = self.sessions.directory.opening.get_mut(&session) {
            opening.taken_over = true;
        } else if self.sessions.directory.remove(session).is_some() {
            self.end(session, ErrorCode::TakenOver, "a new session of this device");
        }
    }

    /// The home of these sessions' users has begun anew.
    pub(in crate::shard) fn register_again(&mut self, home: ShardId) {
        let sessions = &self.sessions.directory.sessions;
        let mut of_it: Vec<SessionKey> = sessions
            .iter()
            .filter(|(_, state)| self.home_of_user(state.identity.user) == home)
            .map(|(session, _)| *session)
            .collect();
        of_it.sort_unstable();
        for session in of_it {
            let Some(state) = self.sessions.directory.sessions.get(&session) else { continue };
            let (identity, confirmed) = (Box::new(state.identity.clone()), state.confirmed);
            self.post_control(home, session, Control::Register { identity, confirmed });
        }
    }
}
