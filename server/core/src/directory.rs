//! Who is connected: users, their devices, their sessions. A user's sessions open one after the other, since each
//! may give the device its number.

use std::collections::{HashMap, VecDeque};

use talaria_protocol::{
    ids::{DeviceId, UserId},
    message::{Credit, Role},
};

use crate::{
    effect::{Identity, SessionKey},
    session::Session,
};

/// A session that waits to be opened.
#[derive(Clone, Debug)]
pub(crate) struct Opening {
    pub(crate) session: SessionKey,
    pub(crate) identity: Identity,
    pub(crate) credit: Credit,
}

/// A user with sessions, or with some that are opening.
#[derive(Debug, Default)]
pub(crate) struct User {
    pub(crate) sessions: Vec<SessionKey>,
    /// The first is being opened, the others wait.
    pub(crate) opening: VecDeque<Opening>,
}

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Directory {
    pub(crate) sessions: HashMap<SessionKey, Session>,
    pub(crate) users: HashMap<UserId, User>,
    /// Sessions that are opening → their users.
    pub(crate) opening: HashMap<SessionKey, UserId>,
}

impl Directory {
    /// The user's sessions, of all devices.
    pub(crate) fn of_user(&self, user: UserId) -> &[SessionKey] {
        self.users.get(&user).map_or(&[], |user| &user.sessions)
    }

    /// Shows all sessions of a device, of whatever role.
    pub(crate) fn of_device(&mut self, user: UserId, device: DeviceId, mut show: impl FnMut(&mut Session)) {
        let Some(user) = self.users.get(&user) else { return };
        for key in &user.sessions {
            if let Some(session) =
                self.sessions.get_mut(key).filter(|session| session.identity.device == device)
            {
                show(session);
            }
        }
    }

    /// The session that a new one of the same device and role takes over.
    pub(crate) fn holder(&self, user: UserId, device: DeviceId, role: Role) -> Option<SessionKey> {
        self.of_user(user).iter().copied().find(|key| {
            self.sessions
                .get(key)
                .is_some_and(|session| session.identity.device == device && session.identity.role == role)
        })
    }

    /// Enters a session.
    pub(crate) fn insert(&mut self, key: SessionKey, session: Session) {
        self.users.entry(session.identity.user).or_default().sessions.push(key);
        self.sessions.insert(key, session);
    }

    /// Takes a session out; its user too, when it was the last and none is opening.
    pub(crate) fn remove(&mut self, key: SessionKey) -> Option<Session> {
        let session = self.sessions.remove(&key)?;
        let user = session.identity.user;
        if let Some(entry) = self.users.get_mut(&user) {
            entry.sessions.retain(|other| *other != key);
        }
        self.forget_if_idle(user);
        Some(session)
    }

    /// Drops a user who has no session and none that is opening.
    pub(crate) fn forget_if_idle(&mut self, user: UserId) {
        if self.users.get(&user).is_some_and(|user| user.sessions.is_empty() && user.opening.is_empty()) {
            self.users.remove(&user);
        }
    }
}
