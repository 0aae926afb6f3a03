//! Sessions come and go. A device that is seen for the first time gets its number, durably, before its session is
//! in the directory. A new session of the same device and role takes the old one over.

use std::collections::VecDeque;

use talaria_protocol::{error_code::ErrorCode, ids::UserId, limits::DEVICES_PER_USER_MAX, message::Credit};

use super::{OpTarget, ReadTarget, Shard};
use crate::{
    conversation::Refusal,
    directory::Opening,
    effect::{Effect, Identity, SessionKey},
    limits::SESSIONS_MAX,
    log::{DeviceRow, LogOp, Outcome, ReadOp, UserRow, UserWrite},
    session::Session,
};

/// A device's number is on its way to the log.
#[derive(Clone, Copy, Debug)]
pub(super) struct OpeningWrite {
    user: UserId,
    device_number: u32,
}

impl Shard {
    pub(super) fn on_open(&mut self, session: SessionKey, identity: Identity, credit: Credit) {
        if self.directory.sessions.len() + self.directory.opening.len() >= SESSIONS_MAX {
            return self.refuse_open(session, &Refusal::busy("the node has as many sessions as it can hold"));
        }
        let user = identity.user;
        self.directory.opening.insert(session, user);
        let entry = self.directory.users.entry(user).or_default();
        entry.opening.push_back(Opening { session, identity, credit });
        if entry.opening.len() == 1 {
            self.open_next(user);
        }
    }

    /// A session that closes while it is opening is not entered when its turn ends.
    pub(super) fn on_close(&mut self, session: SessionKey) {
        if let Some(user) = self.directory.opening.remove(&session)
            && let Some(user) = self.directory.users.get_mut(&user)
        {
            // The first stays: something is under way for it.
            let mut first = true;
            user.opening.retain(|opening| std::mem::take(&mut first) || opening.session != session);
        }
        self.directory.remove(session);
    }

    /// Begins to open the first of a user's waiting sessions.
    fn open_next(&mut self, user: UserId) {
        while let Some(opening) = self.directory.users.get(&user).and_then(|entry| entry.opening.front()) {
            let device = Some(opening.identity.device);
            if self.under_way.can_read() {
                return self.read(ReadOp::User { user, device }, ReadTarget::Open(user));
            }
            self.take_opening(user, |shard, opening| {
                shard.refuse_open(opening.session, &Refusal::busy("too many reads are under way"));
            });
        }
        self.directory.forget_if_idle(user);
    }

    fn take_opening(&mut self, user: UserId, then: impl FnOnce(&mut Self, Opening)) {
        let queue: Option<&mut VecDeque<Opening>> =
            self.directory.users.get_mut(&user).map(|entry| &mut entry.opening);
        if let Some(opening) = queue.and_then(VecDeque::pop_front)
            && self.directory.opening.remove(&opening.session).is_some()
        {
            then(self, opening);
        }
    }

    fn refuse_open(&mut self, session: SessionKey, refusal: &Refusal) {
        self.effects.push_back(Effect::Refused {
            session,
            code: refusal.code,
            message: refusal.message.to_owned(),
            retry_after_ms: refusal.retry_after_ms,
        });
    }

    fn refuse_first(&mut self, user: UserId, refusal: &Refusal) {
        self.take_opening(user, |shard, opening| shard.refuse_open(opening.session, refusal));
        self.open_next(user);
    }

    /// What the log knows of the user whose first session is opening; `None`: it could not be read.
    pub(super) fn on_user_read(&mut self, user: UserId, found: Option<(Option<UserRow>, Option<DeviceRow>)>) {
        let Some((row, device)) = found else {
            return self.refuse_first(user, &Refusal::read_failed());
        };
        if let Some(device) = device {
            return self.admit_first(user, device.number);
        }
        let Some(opening) = self.directory.users.get(&user).and_then(|entry| entry.opening.front()) else {
            return;
        };
        let identity = &opening.identity;
        let device_number = row.map_or(0, |row| row.last_device_number) + 1;
        if device_number > DEVICES_PER_USER_MAX {
            let message =
                "this user has as many devices as a user can have: use a device id that it has already";
            return self.refuse_first(user, &Refusal::new(ErrorCode::TooManyDevices, message));
        }
        if !self.under_way.has_reserved_room() {
            return self.refuse_first(user, &Refusal::busy("the log queue is full"));
        }
        let write = UserWrite {
            user,
            row: UserRow {
                tenant: identity.tenant.clone(),
                subject: identity.subject.clone(),
                last_device_number: device_number,
            },
            device: Some((
                identity.device,
                DeviceRow { number: device_number, first_seen_ms: self.now.unix_ms },
            )),
        };
        self.log(LogOp::User(write), OpTarget::Open(OpeningWrite { user, device_number }));
    }

    /// The log's word on a new device.
    pub(super) fn on_device_settled(&mut self, write: OpeningWrite, outcome: Outcome) {
        match outcome {
            Outcome::Committed { .. } => self.admit_first(write.user, write.device_number),
            _ => self.refuse_first(
                write.user,
                &Refusal {
                    code: ErrorCode::ReadOnly,
                    message: "the log takes no writes until the node is reopened",
                    retry_after_ms: 5_000,
                },
            ),
        }
    }

    fn admit_first(&mut self, user: UserId, device_number: u32) {
        self.take_opening(user, |shard, Opening { session, identity, credit }| {
            if let Some(old) = shard.directory.holder(user, identity.device, identity.role) {
                shard.end(old, ErrorCode::TakenOver, "a new session of this device");
            }
            shard.directory.insert(session, Session::new(identity, device_number, credit));
            shard.effects.push_back(Effect::Opened { session, device_number });
        });
        self.open_next(user);
    }
}
