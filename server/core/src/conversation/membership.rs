//! Who comes and goes: pure functions from the durable rows and a request to the rows and the entry that it
//! makes, or a refusal. Roles: an owner may all; an admin adds, and removes members; a member leaves.

use std::collections::BTreeMap;

use talaria_protocol::{
    error_code::ErrorCode,
    ids::UserId,
    limits::GROUP_MEMBERS_MAX,
    message::{
        ConversationKind, MemberRole, Peer,
        content::{MemberAction, MemberChange, Membership},
    },
};

use super::{Refusal, Sender};
use crate::log::{Heads, MemberRow, Span};

type Rows = BTreeMap<UserId, MemberRow>;

/// What a request changes: the entry's words, and the rows to set. Without changes nothing is appended.
#[derive(Debug, Default)]
pub(super) struct Change {
    pub(super) entry: Membership,
    pub(super) rows: Vec<(UserId, MemberRow)>,
}

impl Change {
    fn push(&mut self, peer: &Peer, action: MemberAction, row: MemberRow) {
        self.entry.changes.push(MemberChange { peer: peer.clone(), action, role: row.role });
        self.rows.retain(|(user, _)| *user != peer.user);
        self.rows.push((peer.user, row));
    }

    fn add(&mut self, rows: &Rows, peer: &Peer, role: MemberRole, from: u64) {
        if self.rows.iter().any(|(user, _)| *user == peer.user) {
            return;
        }
        let mut spans = rows.get(&peer.user).map_or_else(Vec::new, |row| row.spans.clone());
        spans.push(Span { from, to: None });
        self.push(peer, MemberAction::Added, MemberRow { role, subject: peer.subject.clone(), spans });
    }

    fn end(&mut self, user: UserId, row: &MemberRow, action: MemberAction, seq: u64) {
        let mut row = row.clone();
        row.role = MemberRole::Member;
        if let Some(span) = row.spans.last_mut() {
            span.to = Some(seq);
        }
        self.push(&Peer { user, subject: row.subject.clone() }, action, row);
    }
}

/// The beginning of a direct conversation; with oneself: of notes.
pub(super) fn direct(sender: &Sender, other: &Peer) -> Change {
    let mut change = Change { entry: Membership { created: true, ..Membership::default() }, rows: vec![] };
    change.add(&Rows::new(), &sender.peer, MemberRole::Member, 1);
    change.add(&Rows::new(), other, MemberRole::Member, 1);
    change
}

/// The beginning of a group.
pub(super) fn create_group(sender: &Sender, title: &str, members: &[Peer]) -> Result<Change, Refusal> {
    let mut change = Change {
        entry: Membership { created: true, title: title.to_owned(), changes: vec![] },
        rows: vec![],
    };
    change.add(&Rows::new(), &sender.peer, MemberRole::Owner, 1);
    for peer in members {
        change.add(&Rows::new(), peer, MemberRole::Member, 1);
    }
    if change.rows.len() > GROUP_MEMBERS_MAX { Err(group_full()) } else { Ok(change) }
}

/// New members, who see from `seq` on, or all where the history is open.
pub(super) fn add(
    heads: &Heads,
    rows: &Rows,
    sender: &Sender,
    peers: &[Peer],
    seq: u64,
) -> Result<Change, Refusal> {
    need_role(heads, rows, sender, MemberRole::Admin)?;
    let mut change = Change::default();
    for peer in peers {
        if !rows.get(&peer.user).is_some_and(MemberRow::is_member) {
            let from = if heads.history_open { heads.first_seq } else { seq };
            change.add(rows, peer, MemberRole::Member, from);
        }
    }
    let present = rows.values().filter(|row| row.is_member()).count();
    if present + change.rows.len() > GROUP_MEMBERS_MAX { Err(group_full()) } else { Ok(change) }
}

/// Members to go, who see up to `seq`: the entry that says so.
pub(super) fn remove(
    heads: &Heads,
    rows: &Rows,
    sender: &Sender,
    users: &[UserId],
    seq: u64,
) -> Result<Change, Refusal> {
    let role = need_role(heads, rows, sender, MemberRole::Admin)?;
    let mut change = Change::default();
    for user in users {
        if *user == sender.peer.user {
            return Err(Refusal::new(ErrorCode::Invalid, "users: name others; to go yourself, use Leave"));
        }
        let Some(row) = rows.get(user).filter(|row| row.is_member()) else { continue };
        if change.rows.iter().any(|(gone, _)| gone == user) {
            continue;
        }
        if row.role >= role {
            return Err(Refusal::new(
                ErrorCode::Forbidden,
                "an admin can remove members only, an owner admins too",
            ));
        }
        change.end(*user, row, MemberAction::Removed, seq);
    }
    Ok(change)
}

/// The sender goes. An owner's place goes to the admin, else member, of longest standing.
pub(super) fn leave(heads: &Heads, rows: &Rows, sender: &Sender, seq: u64) -> Result<Change, Refusal> {
    let role = need_role(heads, rows, sender, MemberRole::Member)?;
    let mut change = Change::default();
    let user = sender.peer.user;
    if let Some(row) = rows.get(&user) {
        change.end(user, row, MemberAction::Left, seq);
    }
    if role == MemberRole::Owner {
        let heir = rows.iter().filter(|(other, row)| **other != user && row.is_member()).min_by_key(
            |(other, row)| (std::cmp::Reverse(row.role), row.spans.last().map(|span| span.from), **other),
        );
        if let Some((heir, row)) = heir {
            let row = MemberRow { role: MemberRole::Owner, ..row.clone() };
            change.push(&Peer { user: *heir, subject: row.subject.clone() }, MemberAction::RoleChanged, row);
        }
    }
    Ok(change)
}

fn need_role(heads: &Heads, rows: &Rows, sender: &Sender, least: MemberRole) -> Result<MemberRole, Refusal> {
    if heads.kind != ConversationKind::Group {
        return Err(Refusal::new(ErrorCode::Forbidden, "members of a direct conversation do not change"));
    }
    match rows.get(&sender.peer.user).filter(|row| row.is_member()) {
        Some(row) if row.role >= least => Ok(row.role),
        Some(_) => Err(Refusal::new(ErrorCode::Forbidden, "only an admin or the owner may do this")),
        None => Err(Refusal::new(ErrorCode::Forbidden, "not a member any more")),
    }
}

fn group_full() -> Refusal {
    Refusal::new(ErrorCode::GroupFull, "the group would have more members than Limits.group_members_max")
}
