//! Who is connected to this shard: its sessions, those that are opening, and their users.

use std::{collections::HashMap, sync::Arc};

use talaria_protocol::{ids::UserId, message::Credit};

use crate::{
    effect::{Identity, SessionKey},
    peer::ShardId,
    session::Session,
    session_directory::{Presence, SessionDirectory},
};

/// A session whose user's home was asked to open it.
#[derive(Debug)]
pub(crate) struct Opening {
    pub(crate) identity: Identity,
    pub(crate) credit: Credit,
    pub(crate) confirmed: bool,
    /// Another has its place already: that was heard before the answer.
    pub(crate) taken_over: bool,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Directory {
    pub(crate) sessions: HashMap<SessionKey, Session>,
    pub(crate) opening: HashMap<SessionKey, Opening>,
    users: HashMap<UserId, Vec<SessionKey>>,
    presence: Presence,
}

impl Directory {
    pub(crate) fn new(node: Arc<SessionDirectory>, shard: ShardId, incarnation: u32) -> Self {
        Self {
            sessions: HashMap::new(),
            opening: HashMap::new(),
            users: HashMap::new(),
            presence: Presence::new(node, shard, incarnation),
        }
    }

    /// All shards' sessions.
    pub(crate) fn node(&self) -> &SessionDirectory {
        self.presence.directory()
    }

    /// The user's sessions here, of all devices.
    pub(crate) fn of_user(&self, user: UserId) -> &[SessionKey] {
        self.users.get(&user).map_or(&[], |sessions| sessions)
    }

    /// Users with sessions here.
    pub(crate) fn users(&self) -> impl Iterator<Item = UserId> {
        self.users.keys().copied()
    }

    /// Enters a session, in the node's directory first: whatever is scanned for it is scanned later.
    pub(crate) fn insert(&mut self, key: SessionKey, session: Session) {
        let user = session.identity.user;
        self.presence.enter(user);
        self.users.entry(user).or_default().push(key);
        self.sessions.insert(key, session);
    }

    /// Takes a session out; its user too, when it was the last.
    pub(crate) fn remove(&mut self, key: SessionKey) -> Option<Session> {
        let session = self.sessions.remove(&key)?;
        let user = session.identity.user;
        if let Some(sessions) = self.users.get_mut(&user) {
            sessions.retain(|other| *other != key);
            if sessions.is_empty() {
                self.users.remove(&user);
            }
        }
        self.presence.leave(user);
        Some(session)
    }
}
