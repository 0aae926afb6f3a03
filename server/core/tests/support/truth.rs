//! What is so, by brute force: a conversation is read from the log, entry by entry, and its members are followed by
//! what the entries say, without spans, rows or heads. Panics at the first thing that must not be.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use talaria_core::log::{StoredBody, StoredEntry};
use talaria_log::{CommitLog, Family, Scan, commit_log::Visit, keys::ConversationKey};
use talaria_protocol::{
    chain::{Chain, Leaf},
    entry::{EntryHeader, EntryKind},
    hlc::Hlc,
    ids::{ClientMessageId, ConversationId, UserId},
    message::{
        MemberRole,
        content::{Body, Content, MemberAction, Membership},
    },
};

use super::world::World;

/// An entry, and who may see it.
pub(crate) struct TrueEntry {
    pub(crate) stored: StoredEntry,
    pub(crate) header: EntryHeader,
    pub(crate) content: bytes::Bytes,
    pub(crate) leaf: Leaf,
    pub(crate) seen_by: BTreeSet<UserId>,
}

/// A conversation.
pub(crate) struct Truth {
    pub(crate) conversation: ConversationId,
    pub(crate) entries: Vec<TrueEntry>,
    /// Role, and the entry that added them.
    pub(crate) members: BTreeMap<UserId, (MemberRole, u64)>,
}

/// All conversations of the log.
pub(crate) fn conversations(world: &World) -> Vec<ConversationId> {
    let mut found = Vec::new();
    let view = world.log.inner().view();
    let scanned = view.scan(Family::Conversations, &Scan::all(), &mut |key, _| {
        found.push(ConversationKey::decode(key).expect("a key").conversation);
        Visit::Continue(())
    });
    scanned.expect("a memory log can be read");
    found
}

impl Truth {
    pub(crate) fn of(world: &World, conversation: ConversationId) -> Self {
        let mut truth = Self { conversation, entries: Vec::new(), members: BTreeMap::new() };
        let (mut chain, mut last_epoch, mut last_hlc, mut ordinal) = (Chain::ZERO, 0, Hlc(0), 0);
        let mut ids = HashSet::new();
        for stored in world.page(conversation, 1, usize::MAX) {
            let header = EntryHeader::parse(&stored.header).expect("a header");
            let seq = truth.entries.len() as u64 + 1;
            assert_eq!((stored.seq, header.seq), (seq, seq), "seqs are dense");
            ordinal += u64::from(header.kind == EntryKind::Message);
            assert_eq!(header.ordinal, ordinal, "ordinals count messages");
            assert!(header.epoch >= last_epoch, "epochs do not decrease");
            assert!(header.hlc > last_hlc, "stamps increase: {:?} then {:?}", last_hlc, header.hlc);
            assert!(ids.insert((header.sender, header.client_message_id)), "an id was appended twice");
            (last_epoch, last_hlc) = (header.epoch, header.hlc);
            let leaf = stored.leaf();
            chain = chain.next(conversation, seq, &leaf);
            assert_eq!(chain, stored.chain, "the chain is broken at {seq}");
            truth.add(stored, header, leaf);
        }
        truth
    }

    fn add(&mut self, stored: StoredEntry, header: EntryHeader, leaf: Leaf) {
        let StoredBody::Kept { content, .. } = &stored.body else { panic!("nothing is erased") };
        let content = content.clone();
        let before: BTreeSet<UserId> = self.members.keys().copied().collect();
        match Content::parse(&content).expect("a content").body {
            Body::Membership(membership) => self.follow(&membership, &header),
            Body::Text(_) => {
                assert!(self.members.contains_key(&header.sender), "said by one who is not in it");
            }
            other => panic!("{other:?}"),
        }
        let seen_by = before.into_iter().chain(self.members.keys().copied()).collect();
        self.entries.push(TrueEntry { stored, header, content, leaf, seen_by });
    }

    /// Applies a change, and checks that its author might make it.
    fn follow(&mut self, membership: &Membership, header: &EntryHeader) {
        let (sender, seq) = (header.sender, header.seq);
        assert_eq!(membership.created, seq == 1);
        assert!(!membership.changes.is_empty(), "an entry of no change");
        let by = self.members.get(&sender).map(|(role, _)| *role);
        let mut owner_left = false;
        for change in &membership.changes {
            let user = change.peer.user;
            let target = self.members.get(&user).copied();
            match change.action {
                MemberAction::Added => {
                    assert!(membership.created || by >= Some(MemberRole::Admin), "added by whom?");
                    assert!(target.is_none(), "added twice");
                    self.members.insert(user, (change.role, seq));
                }
                MemberAction::Removed => {
                    let (role, _) = target.expect("removed, but was not there");
                    assert!(by >= Some(MemberRole::Admin) && by > Some(role), "removed by whom?");
                    self.members.remove(&user);
                }
                MemberAction::Left => {
                    assert_eq!(user, sender);
                    owner_left = target.expect("left, but was not there").0 == MemberRole::Owner;
                    self.members.remove(&user);
                }
                MemberAction::RoleChanged => {
                    assert!(owner_left && change.role == MemberRole::Owner);
                    let standing = |role: MemberRole, since: u64| (std::cmp::Reverse(role), since);
                    let (role, since) = target.expect("the heir is a member");
                    let best = self.members.values().map(|(role, since)| standing(*role, *since)).min();
                    assert_eq!(Some(standing(role, since)), best, "the heir is of longest standing");
                    self.members.insert(user, (MemberRole::Owner, since));
                    owner_left = false;
                }
            }
        }
        let group_has_owner = self.members.values().any(|(role, _)| *role == MemberRole::Owner);
        assert!(!owner_left || self.members.is_empty() || group_has_owner, "a group without an owner");
    }

    pub(crate) fn sees(&self, user: UserId, seq: u64) -> bool {
        self.at(seq).is_some_and(|entry| entry.seen_by.contains(&user))
    }

    pub(crate) fn at(&self, seq: u64) -> Option<&TrueEntry> {
        self.entries.get(usize::try_from(seq.checked_sub(1)?).ok()?)
    }

    /// The last seq that a user may know of; 0: none.
    pub(crate) fn head(&self, user: UserId) -> u64 {
        let last = self.entries.iter().rev().find(|entry| entry.seen_by.contains(&user));
        last.map_or(0, |entry| entry.stored.seq)
    }

    /// The first one; 0: none.
    pub(crate) fn first(&self, user: UserId) -> u64 {
        let first = self.entries.iter().find(|entry| entry.seen_by.contains(&user));
        first.map_or(0, |entry| entry.stored.seq)
    }

    pub(crate) fn find(&self, user: UserId, id: ClientMessageId) -> Option<&TrueEntry> {
        let is = |entry: &&TrueEntry| entry.header.sender == user && entry.header.client_message_id == id;
        self.entries.iter().find(is)
    }
}
