//! What could not be fanned out to a shard, until it is told. Nothing of an entry is kept but where it was and who sees
//! it: its sessions read it from the log.

use std::collections::{BTreeMap, BTreeSet};

use talaria_protocol::ids::{ConversationId, UserId};

use crate::limits::{GAP_CONVERSATIONS_MAX, GAP_CONVERSATIONS_PER_MESSAGE, GAP_USERS_MAX};

/// Some entries were left out, durable in this commit or a later one.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Gap {
    pub(crate) since_commit: u64,
    /// Of these conversations, for these users; `None`: of any of the shard that says so.
    pub(crate) of: Option<Vec<(ConversationId, Vec<UserId>)>>,
}

/// The gaps of one destination. Full, all they say is that there are some.
#[derive(Debug, Default)]
pub(crate) struct Gaps {
    of: BTreeMap<ConversationId, BTreeSet<UserId>>,
    users: usize,
    /// Of any conversation.
    all: bool,
    /// The first commit that any of these may be of; `None`: there are none.
    since_commit: Option<u64>,
}

impl Gaps {
    /// How many conversations are known to have one; one more stands for all.
    pub(crate) fn len(&self) -> usize {
        self.of.len() + usize::from(self.all)
    }

    /// An entry of this commit was left out for these users.
    pub(crate) fn add(&mut self, conversation: ConversationId, users: &[UserId], commit: u64) {
        self.since_commit = Some(self.since_commit.map_or(commit, |since| since.min(commit)));
        if self.all {
            return;
        }
        let of = self.of.entry(conversation).or_default();
        let before = of.len();
        of.extend(users);
        self.users += of.len() - before;
        if self.of.len() > GAP_CONVERSATIONS_MAX || self.users > GAP_USERS_MAX {
            self.add_all(commit);
        }
    }

    fn add_all(&mut self, commit: u64) {
        self.of.clear();
        self.users = 0;
        self.all = true;
        self.since_commit = Some(self.since_commit.map_or(commit, |since| since.min(commit)));
    }

    /// A message of these was not posted.
    pub(crate) fn put_back(&mut self, gap: Gap) {
        match gap.of {
            None => self.add_all(gap.since_commit),
            Some(gaps) => {
                for (conversation, users) in gaps {
                    self.add(conversation, &users, gap.since_commit);
                }
            }
        }
    }

    /// What to tell next, a part of it when it is much.
    pub(crate) fn take(&mut self) -> Option<Gap> {
        let since_commit = self.since_commit?;
        if std::mem::take(&mut self.all) {
            self.since_commit = None;
            return Some(Gap { since_commit, of: None });
        }
        let mut part = Vec::new();
        while part.len() < GAP_CONVERSATIONS_PER_MESSAGE
            && let Some((conversation, users)) = self.of.pop_first()
        {
            self.users -= users.len();
            part.push((conversation, users.into_iter().collect()));
        }
        if self.of.is_empty() {
            self.since_commit = None;
        }
        Some(Gap { since_commit, of: Some(part) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(number: usize) -> ConversationId {
        let mut id = [0; 16];
        id[..8].copy_from_slice(&number.to_be_bytes());
        ConversationId::new(id)
    }

    fn user(number: u8) -> UserId {
        UserId::new([number; 16])
    }

    #[test]
    fn users_are_kept_by_conversation_and_told_in_parts() {
        let mut gaps = Gaps::default();
        gaps.add(id(1), &[user(1), user(2)], 7);
        gaps.add(id(1), &[user(2), user(3)], 9);
        gaps.add(id(2), &[user(1)], 8);
        let gap = gaps.take().expect("there are some");
        let told = vec![(id(1), vec![user(1), user(2), user(3)]), (id(2), vec![user(1)])];
        assert_eq!(gap, Gap { since_commit: 7, of: Some(told) });
        assert_eq!((gaps.take(), gaps.len(), gaps.users), (None, 0, 0));
        gaps.put_back(gap);
        for number in 10..10 + GAP_CONVERSATIONS_PER_MESSAGE {
            gaps.add(id(number), &[user(1)], 20);
        }
        let lengths = [(); 3].map(|()| gaps.take().and_then(|gap| gap.of).map(|of| of.len()));
        assert_eq!(lengths, [Some(GAP_CONVERSATIONS_PER_MESSAGE), Some(2), None]);
        assert_eq!((gaps.len(), gaps.users), (0, 0));
    }

    #[test]
    fn too_many_stand_for_all_since_the_first() {
        let mut gaps = Gaps::default();
        for number in 0..=GAP_CONVERSATIONS_MAX {
            gaps.add(id(number), &[user(1)], 5 + number as u64);
        }
        assert_eq!(gaps.len(), 1);
        gaps.add(id(1), &[user(1)], 3);
        let gap = gaps.take().expect("there are some");
        assert_eq!(gap, Gap { since_commit: 3, of: None });
        gaps.put_back(gap);
        assert_eq!(gaps.take(), Some(Gap { since_commit: 3, of: None }));
        assert_eq!(gaps.take(), None);
        let many: Vec<UserId> = (0..=GAP_USERS_MAX as u32)
            .map(|number| UserId::new(std::array::from_fn(|at| number.to_be_bytes()[at % 4])))
            .collect();
        gaps.add(id(1), &many, 5);
        assert_eq!(gaps.take(), Some(Gap { since_commit: 5, of: None }));
    }
}
