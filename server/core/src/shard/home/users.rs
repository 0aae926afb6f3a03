//! The users of this shard's slots: their sessions, wherever those are, are opened one after the other, since each may
//! give the device its number, durably. A new session of the same device and role takes the old one over, as soon as
//! its peer is known to be there.

use std::collections::VecDeque;

use talaria_protocol::{
    error_code::ErrorCode,
    ids::{DeviceId, UserId},
    limits::DEVICES_PER_USER_MAX,
    message::Role,
};

use crate::{
    answer::Answer,
    conversation::Refusal,
    effect::{Identity, SessionKey},
    log::{DeviceRow, LogOp, Outcome, ReadOp, UserRow, UserWrite},
    peer::{Control, Open, ShardId},
    shard::{
        Shard,
        under_way::{OpTarget, ReadTarget},
    },
};

/// A device's number is on its way to the log.
#[derive(Clone, Copy, Debug)]
pub(in crate::shard) struct OpeningWrite {
    user: UserId,
    device_number: u32,
}

/// A session that has its place.
#[derive(Clone, Copy, Debug)]
struct Registered {
    shard: ShardId,
    session: SessionKey,
    device: DeviceId,
    role: Role,
    confirmed: bool,
}

/// A user with sessions, or with some that are opening.
#[derive(Debug, Default)]
pub(super) struct HomeUser {
    /// In the order in which they came.
    sessions: Vec<Registered>,
    /// The first is being opened, the others wait. One that has closed is `None`: it has no turn, or its turn ends
    /// without it.
    opening: VecDeque<Option<Open>>,
}

impl HomeUser {
    pub(super) fn opening(&self) -> usize {
        self.opening.len()
    }

    pub(super) fn sessions(&self) -> usize {
        self.sessions.len()
    }

    fn is_idle(&self) -> bool {
        self.sessions.is_empty() && self.opening.is_empty()
    }

    /// Takes out those of the same device and role that give way to a session: all but itself, and but unconfirmed ones
    /// that came after it.
    fn take_over(&mut self, session: SessionKey, device: DeviceId, role: Role) -> Vec<Registered> {
        let mut came = false;
        self.sessions
            .extract_if(.., |other| {
                came |= other.session == session;
                let same = other.session != session && other.device == device && other.role == role;
                same && (other.confirmed || !came)
            })
            .collect()
    }
}

impl Shard {
    /// A session, of whatever shard, wants to be opened.
    pub(in crate::shard) fn open_here(&mut self, open: Open) {
        let user = open.identity.user;
        let entry = self.home.users.entry(user).or_default();
        entry.opening.push_back(Some(open));
        if entry.opening.len() == 1 {
            self.open_next(user);
        }
    }

    /// Begins to open the first of a user's waiting sessions.
    fn open_next(&mut self, user: UserId) {
        while let Some(first) = self.home.users.get_mut(&user).and_then(|entry| entry.opening.front_mut()) {
            match first {
                Some(open) if self.under_way.can_read() => {
                    let device = Some(open.identity.device);
                    return self.read(ReadOp::User { user, device }, ReadTarget::Open(user));
                }
                _ => {
                    let refusal = Refusal::busy("too many reads are under way");
                    self.end_turn(user, |_, _| Answer::Refused(refusal));
                }
            }
        }
        self.forget_if_idle(user);
    }

    /// The first session's turn ends, with this answer if it has not closed.
    fn end_turn(&mut self, user: UserId, answer: impl FnOnce(&mut Self, &Open) -> Answer) {
        let first = self.home.users.get_mut(&user).and_then(|entry| entry.opening.pop_front());
        if let Some(Some(open)) = first {
            let answer = answer(self, &open);
            self.answer(open.shard, open.ask, answer);
        }
    }

    fn refuse_first(&mut self, user: UserId, refusal: Refusal) {
        self.end_turn(user, |_, _| Answer::Refused(refusal));
        self.open_next(user);
    }

    /// What the log knows of the user whose first session is opening; `None`: it could not be read.
    pub(in crate::shard) fn on_user_read(
        &mut self,
        user: UserId,
        found: Option<(Option<UserRow>, Option<DeviceRow>)>,
    ) {
        let Some((row, device)) = found else {
            return self.refuse_first(user, Refusal::read_failed());
        };
        let first = self.home.users.get(&user).and_then(|entry| entry.opening.front());
        let Some(Some(Open { identity, .. })) = first else {
            return self.refuse_first(user, Refusal::busy("it has closed"));
        };
        if let Some(device) = device {
            return self.admit_first(user, device.number);
        }
        let device_number = row.map_or(0, |row| row.last_device_number) + 1;
        if device_number > DEVICES_PER_USER_MAX {
            let message =
                "this user has as many devices as a user can have: use a device id that it has already";
            return self.refuse_first(user, Refusal::new(ErrorCode::TooManyDevices, message));
        }
        if !self.under_way.has_reserved_room() {
            return self.refuse_first(user, Refusal::busy("the log queue is full"));
        }
        let write = user_write(identity, device_number, self.now.unix_ms);
        self.log(LogOp::User(write), OpTarget::Open(OpeningWrite { user, device_number }));
    }

    /// The log's word on a new device.
    pub(in crate::shard) fn on_device_settled(&mut self, write: OpeningWrite, outcome: Outcome) {
        match outcome {
            Outcome::Committed { .. } => self.admit_first(write.user, write.device_number),
            _ => self.refuse_first(
                write.user,
                Refusal {
                    code: ErrorCode::ReadOnly,
                    message: "the log takes no writes until the node is reopened",
                    retry_after_ms: 5_000,
                },
            ),
        }
    }

    fn admit_first(&mut self, user: UserId, device_number: u32) {
        self.end_turn(user, |shard, open| {
            let Open { session, ref identity, confirmed, .. } = *open;
            let (device, role) = (identity.device, identity.role);
            let place = Registered { shard: open.shard, session, device, role, confirmed };
            shard.home.users.entry(user).or_default().sessions.push(place);
            if confirmed {
                shard.take_over(user, &place);
            }
            Answer::Opened { device_number, confirmed }
        });
        self.open_next(user);
    }

    fn take_over(&mut self, user: UserId, place: &Registered) {
        let Some(entry) = self.home.users.get_mut(&user) else { return };
        for old in entry.take_over(place.session, place.device, place.role) {
            self.post_control(old.shard, old.session, Control::TakeOver);
        }
    }

    /// The peer of a session is there now.
    pub(in crate::shard) fn confirm_here(&mut self, user: UserId, session: SessionKey) {
        let Some(entry) = self.home.users.get_mut(&user) else { return };
        if let Some(place) = entry.sessions.iter_mut().find(|other| other.session == session) {
            place.confirmed = true;
            let place = *place;
            self.take_over(user, &place);
        }
    }

    /// A session is gone, whether it was open or opening.
    pub(in crate::shard) fn close_here(&mut self, user: UserId, session: SessionKey) {
        let Some(entry) = self.home.users.get_mut(&user) else { return };
        entry.sessions.retain(|other| other.session != session);
        let of_it = |open: &Option<Open>| open.as_ref().is_some_and(|open| open.session == session);
        let Some(at) = entry.opening.iter().position(of_it) else { return self.forget_if_idle(user) };
        // The first stays: something is under way for it.
        let closed = if at == 0 { entry.opening[0].take() } else { entry.opening.remove(at).flatten() };
        if let Some(open) = closed {
            self.answer(open.shard, open.ask, Answer::Refused(Refusal::busy("it has closed")));
        }
    }

    /// A session that has its place already: this shard has begun anew, and did not know. Where another one that came
    /// since has the place, that keeps it.
    pub(in crate::shard) fn register_here(
        &mut self,
        shard: ShardId,
        session: SessionKey,
        identity: &Identity,
        confirmed: bool,
    ) {
        let Identity { user, device, role, .. } = *identity;
        let entry = self.home.users.entry(user).or_default();
        let has_place = |other: &Registered| other.confirmed && other.device == device && other.role == role;
        if confirmed && entry.sessions.iter().any(has_place) {
            return self.post_control(shard, session, Control::TakeOver);
        }
        entry.sessions.push(Registered { shard, session, device, role, confirmed });
    }

    /// A shard has begun anew: its sessions are gone, those that were opening too.
    pub(in crate::shard) fn forget_sessions_of(&mut self, shard: ShardId) {
        for entry in self.home.users.values_mut() {
            entry.sessions.retain(|other| other.shard != shard);
            for open in &mut entry.opening {
                open.take_if(|open| open.shard == shard);
            }
        }
        self.home.users.retain(|_, entry| !entry.is_idle());
    }

    fn forget_if_idle(&mut self, user: UserId) {
        if self.home.users.get(&user).is_some_and(HomeUser::is_idle) {
            self.home.users.remove(&user);
        }
    }
}

fn user_write(identity: &Identity, device_number: u32, now_ms: u64) -> UserWrite {
    UserWrite {
        user: identity.user,
        row: UserRow {
            tenant: identity.tenant.clone(),
            subject: identity.subject.clone(),
            last_device_number: device_number,
        },
        device: Some((identity.device, DeviceRow { number: device_number, first_seen_ms: now_ms })),
    }
}
