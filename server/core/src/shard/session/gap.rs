//! Entries were left out. Of a known conversation its users' sessions catch up, or are told that it has changed, as if
//! the entry had come. Of unknown ones all lag, and for what a session has not resumed each user's conversations
//! are looked through, one read at a time: what has changed since is told. So also when a home has begun anew, since
//! nobody knows what it did not fan out.

use std::collections::VecDeque;

use talaria_protocol::{
    ids::{ConversationId, UserId},
    limits::PAGE_CONVERSATIONS_MAX,
    message::server::ServerFrame,
};

use super::lists::state_of_row;
use crate::{
    effect::SessionKey,
    gap::Gap,
    log::{ReadAnswer, ReadOp},
    peer::ShardId,
    session::Progress,
    shard::{Shard, under_way::ReadTarget},
};

/// A look through the conversations of this shard's users.
#[derive(Debug, Default)]
pub(in crate::shard) struct Sweep {
    /// Those that are left; of the first perhaps a page was looked at already.
    users: VecDeque<UserId>,
    after: Option<ConversationId>,
    /// A bit for each home whose conversations count.
    homes: u64,
    since_commit: u64,
    reading: bool,
    /// Begun anew while a read was under way: its answer does not count.
    stale: bool,
}

impl Sweep {
    pub(in crate::shard) fn len(&self) -> usize {
        self.users.len()
    }
}

impl Shard {
    pub(in crate::shard) fn on_gap(&mut self, from: ShardId, gap: Gap) {
        let Some(gaps) = gap.of else { return self.miss_all(from, gap.since_commit) };
        for (id, users) in gaps {
            for user in users {
                for at in 0.. {
                    let Some(key) = self.sessions.directory.of_user(user).get(at).copied() else { break };
                    self.miss(key, id);
                }
            }
        }
    }

    /// An entry that this session's user sees was left out.
    fn miss(&mut self, key: SessionKey, id: ConversationId) {
        let Some(session) = self.sessions.directory.sessions.get_mut(&key) else { return };
        match session.subscriptions.get_mut(&id) {
            None => self.hint(key, id),
            Some(subscription) => match subscription.progress {
                Progress::Stopped => self.hint(key, id),
                Progress::Hinting | Progress::Hinted => {}
                Progress::Resuming(_) | Progress::Lagging => subscription.recheck = true,
                Progress::Live => self.fall_behind(key, id),
            },
        }
    }

    /// Whatever this shard is home to may have been left out.
    fn miss_all(&mut self, home: ShardId, since_commit: u64) {
        let mut sessions: Vec<SessionKey> = self.sessions.directory.sessions.keys().copied().collect();
        sessions.sort_unstable();
        for key in sessions {
            let Some(session) = self.sessions.directory.sessions.get(&key) else { continue };
            let mut of_it: Vec<ConversationId> = session.subscriptions.keys().copied().collect();
            of_it.retain(|id| self.home_of(*id) == home);
            of_it.sort_unstable();
            for id in of_it {
                let Some(session) = self.sessions.directory.sessions.get_mut(&key) else { break };
                let Some(subscription) = session.subscriptions.get_mut(&id) else { continue };
                match subscription.progress {
                    Progress::Live => self.fall_behind(key, id),
                    Progress::Resuming(_) | Progress::Lagging => subscription.recheck = true,
                    Progress::Stopped | Progress::Hinting | Progress::Hinted => {}
                }
            }
        }
        self.begin_sweep(home, since_commit);
    }

    /// A home has begun anew: what is not known to have been fanned out may be of any commit since the log was opened.
    pub(in crate::shard) fn on_home_lost(&mut self, home: ShardId) {
        self.miss_all(home, self.boot_first_commit());
    }

    fn begin_sweep(&mut self, home: ShardId, since_commit: u64) {
        let mut users: Vec<UserId> = self.sessions.directory.users().collect();
        users.sort_unstable();
        let sweep = &mut self.sessions.sweep;
        sweep.since_commit =
            if sweep.homes == 0 { since_commit } else { sweep.since_commit.min(since_commit) };
        sweep.homes |= 1 << home.0;
        sweep.users = users.into();
        sweep.after = None;
        sweep.stale = sweep.reading;
        self.go_on_sweeping();
    }

    /// Reads for the next user, unless a read is under way already or there is none to be had.
    pub(in crate::shard) fn go_on_sweeping(&mut self) {
        let sweep = &mut self.sessions.sweep;
        if sweep.reading || !self.under_way.can_read() {
            return;
        }
        let Some(user) = sweep.users.front().copied() else {
            sweep.homes = 0;
            return;
        };
        sweep.reading = true;
        let (after, since_commit) = (sweep.after, sweep.since_commit.saturating_sub(1));
        let what = ReadOp::UserConversations { user, after, since_commit, rows_max: PAGE_CONVERSATIONS_MAX };
        self.read(what, ReadTarget::Sweep(user));
    }

    pub(in crate::shard) fn on_sweep_read(&mut self, user: UserId, answer: ReadAnswer) {
        self.sessions.sweep.reading = false;
        if std::mem::take(&mut self.sessions.sweep.stale) {
            return;
        }
        let ReadAnswer::UserConversations { rows, next, .. } = answer else {
            return self.ask_again_later();
        };
        let homes = self.sessions.sweep.homes;
        for row in rows {
            if homes & (1 << self.home_of(row.conversation).0) == 0 {
                continue;
            }
            let state = state_of_row(row);
            for at in 0.. {
                let Some(key) = self.sessions.directory.of_user(user).get(at).copied() else { break };
                if self.begin_hint(key, state.conversation, Progress::Hinted) {
                    self.send(key, ServerFrame::Changed(state.clone()));
                }
            }
        }
        self.sessions.sweep.after = next;
        if next.is_none() {
            self.sessions.sweep.users.pop_front();
        }
    }
}
