//! Who plays, on which devices, in which conversations.

use talaria_client::TransportChoice;

/// The users. The first four have two devices each.
pub const USERS: [&str; 8] = ["alice", "bob", "carol", "dan", "erin", "frank", "grace", "heidi"];

/// A device of a user.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeviceRole {
    /// An index of [`USERS`].
    pub user: usize,
    /// Of the user's devices.
    pub number: usize,
}

impl DeviceRole {
    /// For people to read.
    pub fn name(self) -> String {
        format!("{}/{}", USERS[self.user], ["phone", "tablet"][self.number])
    }
}

/// How the device of this place connects: every other one by QUIC, so that each user with two devices has both.
pub fn transport(index: usize) -> TransportChoice {
    if index.is_multiple_of(2) { TransportChoice::Quic } else { TransportChoice::Tcp }
}

/// The twelve devices.
pub fn devices() -> Vec<DeviceRole> {
    let second = |user: usize| if user < 4 { 2 } else { 1 };
    (0..USERS.len())
        .flat_map(|user| (0..second(user)).map(move |number| DeviceRole { user, number }))
        .collect()
}

/// A conversation to be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Plan {
    /// Between two users.
    Direct(usize, usize),
    /// The first makes it.
    Group(&'static str, Vec<usize>),
}

impl Plan {
    /// Indices of [`USERS`]; the first makes it.
    pub fn members(&self) -> Vec<usize> {
        match self {
            Self::Direct(a, b) => vec![*a, *b],
            Self::Group(_, members) => members.clone(),
        }
    }
}

/// Twelve direct conversations and eight groups, of three to eight members.
pub fn conversations() -> Vec<Plan> {
    let directs =
        [(0, 1), (0, 2), (1, 2), (1, 3), (2, 3), (3, 4), (4, 5), (5, 6), (6, 7), (7, 0), (2, 5), (3, 6)];
    let groups: [(&'static str, &[usize]); 8] = [
        ("Elsinore, the platform", &[0, 1, 2, 3]),
        ("Capulet's orchard", &[1, 4, 5]),
        ("Half-Moon Street", &[2, 3, 6, 7]),
        ("Languages", &[0, 1, 2, 3, 4, 5]),
        ("Everyone", &[0, 1, 2, 3, 4, 5, 6, 7]),
        ("Rehearsal", &[7, 6, 5]),
        ("Prompters", &[4, 0, 3]),
        ("Foyer", &[5, 2, 1, 7, 0]),
    ];
    let directs = directs.into_iter().map(|(a, b)| Plan::Direct(a, b));
    directs.chain(groups.into_iter().map(|(title, members)| Plan::Group(title, members.to_vec()))).collect()
}
