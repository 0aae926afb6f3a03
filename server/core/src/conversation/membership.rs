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
use crate::{
    limits::{GROUP_ROWS_MAX, SPANS_PER_MEMBER_MAX},
    log::{Heads, MemberRow, Span},
};

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
    let new = change.rows.iter().filter(|(user, _)| !rows.contains_key(user)).count();
    let comes_and_goes = change.rows.iter().any(|(_, row)| row.spans.len() > SPANS_PER_MEMBER_MAX);
    if rows.len() + new > GROUP_ROWS_MAX || comes_and_goes {
        let message =
            "the group has had as many members, or one of these has joined as often, as a group can keep";
        return Err(Refusal::new(ErrorCode::GroupFull, message));
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::Heads;
    use MemberRole::{Admin, Member, Owner};

    const NAMES: [(&str, MemberRole, u64, bool); 6] = [
        ("owner", Owner, 1, true),
        ("late admin", Admin, 9, true),
        ("admin", Admin, 4, true),
        ("old member", Member, 1, true),
        ("member", Member, 2, true),
        ("former", Member, 1, false),
    ];

    fn user(name: &str) -> UserId {
        let mut bytes = [0; 16];
        bytes[..name.len()].copy_from_slice(name.as_bytes());
        UserId::new(bytes)
    }

    fn sender(name: &str) -> Sender {
        Sender { peer: Peer { user: user(name), subject: name.to_owned() }, device: 1 }
    }

    fn rows() -> Rows {
        let row = |(name, role, from, present): (&str, MemberRole, u64, bool)| {
            let spans = vec![Span { from, to: (!present).then_some(from + 1) }];
            (user(name), MemberRow { role, subject: name.to_owned(), spans })
        };
        NAMES.into_iter().map(row).collect()
    }

    fn group() -> Heads {
        Heads { kind: ConversationKind::Group, head: 20, ..Heads::empty() }
    }

    fn in_short(change: Result<Change, Refusal>) -> Result<Vec<(String, MemberAction)>, ErrorCode> {
        let changes = change.map_err(|refusal| refusal.code)?.entry.changes;
        Ok(changes.into_iter().map(|change| (change.peer.subject, change.action)).collect())
    }

    #[test]
    fn who_may_remove_whom() {
        let roles = |name: &str| NAMES.iter().find(|(known, ..)| *known == name).map(|(_, role, ..)| *role);
        for (by, ..) in NAMES {
            for (name, _, _, present) in NAMES {
                let removed = in_short(remove(&group(), &rows(), &sender(by), &[user(name)], 21));
                let expected = match (by, roles(by)) {
                    ("former", _) | (_, Some(Member)) => Err(ErrorCode::Forbidden),
                    _ if by == name => Err(ErrorCode::Invalid),
                    _ if !present => Ok(vec![]),
                    (_, role) if role > roles(name) => Ok(vec![(name.to_owned(), MemberAction::Removed)]),
                    _ => Err(ErrorCode::Forbidden),
                };
                assert_eq!(removed, expected, "{by} removes {name}");
            }
        }
    }

    #[test]
    fn who_may_add() {
        for (by, allowed) in
            [("owner", true), ("admin", true), ("late admin", true), ("member", false), ("former", false)]
        {
            let peers = ["new", "member", "former", "new"].map(|name| sender(name).peer);
            let added = in_short(add(&group(), &rows(), &sender(by), &peers, 21));
            let expected =
                [("new".to_owned(), MemberAction::Added), ("former".to_owned(), MemberAction::Added)];
            assert_eq!(
                added,
                if allowed { Ok(expected.to_vec()) } else { Err(ErrorCode::Forbidden) },
                "{by}"
            );
        }
    }

    #[test]
    fn neither_members_who_were_nor_comings_and_goings_grow_without_end() {
        let mut rows = rows();
        let spans = |count| vec![Span { from: 1, to: Some(2) }; count];
        for (count, code) in
            [(SPANS_PER_MEMBER_MAX - 1, None), (SPANS_PER_MEMBER_MAX, Some(ErrorCode::GroupFull))]
        {
            let row = MemberRow { role: Member, subject: "former".to_owned(), spans: spans(count) };
            rows.insert(user("former"), row);
            let added = add(&group(), &rows, &sender("owner"), &[sender("former").peer], 21);
            assert_eq!(added.err().map(|refusal| refusal.code), code, "{count}");
        }
        for n in rows.len()..GROUP_ROWS_MAX {
            let gone = MemberRow { role: Member, subject: String::new(), spans: spans(1) };
            rows.insert(user(&format!("gone {n}")), gone);
        }
        let added = add(&group(), &rows, &sender("owner"), &[sender("new").peer], 21);
        assert_eq!(added.err().map(|refusal| refusal.code), Some(ErrorCode::GroupFull));
    }

    #[test]
    fn spans_begin_and_end_with_the_entries_that_say_so() {
        let former = [sender("former").peer];
        let open = Heads { history_open: true, ..group() };
        for (heads, from) in [(group(), 21), (open, 1)] {
            let change = add(&heads, &rows(), &sender("owner"), &former, 21).expect("allowed");
            let (_, row) = &change.rows[0];
            assert_eq!(row.spans, [Span { from: 1, to: Some(2) }, Span { from, to: None }]);
            assert_eq!(row.role, Member);
        }
        let change = leave(&group(), &rows(), &sender("admin"), 21).expect("allowed");
        let (_, row) = &change.rows[0];
        assert_eq!((row.role, &row.spans[..]), (Member, &[Span { from: 4, to: Some(21) }][..]));
        assert!(row.sees(21) && !row.sees(22) && !row.is_member());
    }

    #[test]
    fn the_heir_is_the_admin_of_longest_standing_else_the_member() {
        let mut rows = rows();
        for heir in ["admin", "late admin", "old member", "member"] {
            let left = in_short(leave(&group(), &rows, &sender("owner"), 21));
            let left_and = |heir: &str| {
                Ok(vec![
                    ("owner".to_owned(), MemberAction::Left),
                    (heir.to_owned(), MemberAction::RoleChanged),
                ])
            };
            assert_eq!(left, left_and(heir));
            rows.remove(&user(heir));
        }
        assert_eq!(in_short(leave(&group(), &rows, &sender("owner"), 21)).map(|left| left.len()), Ok(1));
    }
}
