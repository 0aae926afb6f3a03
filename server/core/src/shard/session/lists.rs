//! A page of history is cut to the session's credit. A user's conversations, and what of them changed since a sync token,
//! are read from the log without asking anyone: it has them all.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use talaria_protocol::{
    chain::Chain,
    entry::Entry,
    error_code::ErrorCode,
    hlc::Hlc,
    ids::ConversationId,
    limits::PAGE_CONVERSATIONS_MAX,
    message::{
        ConversationState, Credit, Direction, PageToken, Peer, RequestId, SyncToken,
        client::History,
        server::{HistoryPage, ServerFrame},
    },
};

use crate::{
    answer::HistoryAnswer,
    conversation::{Refusal, state_of},
    effect::SessionKey,
    log::{ReadAnswer, ReadOp, UserConversation},
    question::Question,
    shard::{Shard, mail::AskTarget, under_way::ReadTarget},
};

/// A page of conversations is being read.
#[derive(Debug)]
pub(in crate::shard) enum ListRead {
    /// For `ListConversations`.
    All,
    /// For `Sync`.
    Changed {
        /// The offered token is of another history.
        reset: bool,
        since: u64,
        /// Commit that the first page saw; `None` while this is it.
        first_commit: Option<u64>,
    },
}

/// Where a page of a sync begins: what the server put into `next_page`.
#[derive(Debug, PartialEq, Eq)]
struct SyncPage {
    after: ConversationId,
    since: u64,
    commit: u64,
    reset: bool,
}

impl SyncPage {
    const BYTES: usize = 33;

    fn encode(&self) -> Bytes {
        let mut out = BytesMut::with_capacity(Self::BYTES);
        out.put_slice(self.after.as_bytes());
        out.put_u64(self.since);
        out.put_u64(self.commit);
        out.put_u8(u8::from(self.reset));
        out.freeze()
    }

    fn parse(bytes: &[u8]) -> Option<Self> {
        if bytes.len() != Self::BYTES {
            return None;
        }
        let (after, mut rest) = bytes.split_at(16);
        let after = ConversationId::try_from(after).ok()?;
        let (since, commit) = (rest.get_u64(), rest.get_u64());
        Some(Self { after, since, commit, reset: rest.get_u8() == 1 })
    }
}

/// Where a page of the most recent conversations begins: before this one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct RecentPage(Hlc, ConversationId);

impl RecentPage {
    const BYTES: usize = 24;

    fn encode(self) -> Bytes {
        let mut out = BytesMut::with_capacity(Self::BYTES);
        out.put_u64(self.0.0);
        out.put_slice(self.1.as_bytes());
        out.freeze()
    }

    fn parse(mut bytes: &[u8]) -> Option<Self> {
        if bytes.len() != Self::BYTES {
            return None;
        }
        let hlc = Hlc(bytes.get_u64());
        Some(Self(hlc, ConversationId::try_from(bytes).ok()?))
    }
}

pub(in crate::shard) fn bad_page() -> Refusal {
    Refusal::new(ErrorCode::Invalid, "page: not a next_page of an answer to this request")
}

impl Shard {
    pub(super) fn on_history(&mut self, session: SessionKey, request_id: RequestId, mut history: History) {
        let Some(state) = self.sessions.directory.sessions.get(&session) else { return };
        let left = state.credit_left();
        history.entries_max = history.entries_max.min(usize::try_from(left.entries).unwrap_or(usize::MAX));
        if history.entries_max == 0 || left.bytes == 0 {
            return self.refuse(session, request_id, &no_credit());
        }
        let (id, direction) = (history.conversation, history.direction);
        let target = AskTarget::History(session, request_id, direction);
        self.request(session, request_id, id, Question::History(history), target);
    }

    pub(super) fn on_history_page(
        &mut self,
        key: SessionKey,
        request_id: RequestId,
        id: ConversationId,
        direction: Direction,
        page: HistoryAnswer,
    ) {
        let Some(session) = self.sessions.directory.sessions.get_mut(&key) else { return };
        let HistoryAnswer { mut chain_before, mut entries, first_seq, head } = page;
        let kept = affordable(&entries, direction, session.credit_left());
        if kept == 0 && !entries.is_empty() {
            return self.refuse(key, request_id, &no_credit());
        }
        match direction {
            Direction::Forward => entries.truncate(kept),
            Direction::Backward => {
                for entry in entries.drain(..entries.len() - kept) {
                    chain_before = chain_after(&chain_before, id, &entry);
                }
            }
        }
        let mut cost = Credit::default();
        for entry in &entries {
            if let Some(one) = session.take_credit(entry.encoded_len() as u64) {
                cost = Credit { entries: cost.entries + one.entries, bytes: cost.bytes + one.bytes };
            }
        }
        let more = match direction {
            Direction::Forward => entries.last().is_some_and(|entry| entry.seq < head),
            Direction::Backward => entries.first().is_some_and(|entry| entry.seq > first_seq),
        };
        let page = HistoryPage { request_id, chain_before, entries, first_seq, head, more };
        self.reply_at_cost(key, request_id, ServerFrame::HistoryPage(page), cost);
    }

    pub(super) fn on_list_conversations(
        &mut self,
        session: SessionKey,
        request_id: RequestId,
        page: &PageToken,
    ) {
        let before = if page.is_empty() { None } else { RecentPage::parse(page) };
        if before.is_none() && !page.is_empty() {
            return self.refuse(session, request_id, &bad_page());
        }
        let Some(state) = self.sessions.directory.sessions.get(&session) else { return };
        let (user, before) = (state.identity.user, before.map(|RecentPage(hlc, id)| (hlc, id)));
        let read = ReadOp::RecentConversations { user, before, rows_max: PAGE_CONVERSATIONS_MAX };
        self.read_list(session, request_id, read, ListRead::All);
    }

    pub(super) fn on_sync(
        &mut self,
        session: SessionKey,
        request_id: RequestId,
        token: Option<SyncToken>,
        page: &PageToken,
    ) {
        let Some(state) = self.sessions.directory.sessions.get(&session) else { return };
        let user = state.identity.user;
        let (after, what) = if page.is_empty() {
            let since = token.and_then(|token| self.known(&token));
            let (reset, since) = (since.is_none(), since.unwrap_or(0));
            (None, ListRead::Changed { reset, since, first_commit: None })
        } else {
            let Some(SyncPage { after, since, commit, reset }) = SyncPage::parse(page) else {
                return self.refuse(session, request_id, &bad_page());
            };
            (Some(after), ListRead::Changed { reset, since, first_commit: Some(commit) })
        };
        let since_commit = if let ListRead::Changed { since, .. } = what { since } else { 0 };
        let read = ReadOp::UserConversations { user, after, since_commit, rows_max: PAGE_CONVERSATIONS_MAX };
        self.read_list(session, request_id, read, what);
    }

    /// The commit of a token that is of this log's history: its boot is known, and it is within it.
    fn known(&self, token: &SyncToken) -> Option<u64> {
        let boots = &self.config.log.boots;
        let at = boots.iter().position(|boot| boot.boot_id == token.boot_id)?;
        let ended_before = boots.get(at + 1).is_some_and(|next| token.commit >= next.first_commit);
        (!ended_before).then_some(token.commit)
    }

    fn read_list(&mut self, session: SessionKey, request_id: RequestId, read: ReadOp, what: ListRead) {
        if !self.under_way.can_read() {
            return self.refuse(session, request_id, &Refusal::busy("too many reads are under way"));
        }
        self.read(read, ReadTarget::List(session, request_id, what));
    }

    pub(in crate::shard) fn on_list_read(
        &mut self,
        session: SessionKey,
        request_id: RequestId,
        what: &ListRead,
        answer: ReadAnswer,
    ) {
        let frame = match (what, answer) {
            (ListRead::All, ReadAnswer::RecentConversations { rows, next }) => {
                let next_page = next.map_or_else(Bytes::new, |(hlc, id)| RecentPage(hlc, id).encode());
                ServerFrame::ConversationList { request_id, conversations: states_of(rows), next_page }
            }
            (
                ListRead::Changed { reset, since, first_commit },
                ReadAnswer::UserConversations { commit, rows, next },
            ) => {
                let Some(boot) = self.config.log.boots.last() else { return };
                let commit = first_commit.unwrap_or(commit);
                let next_page = next.map_or_else(Bytes::new, |after| {
                    SyncPage { after, since: *since, commit, reset: *reset }.encode()
                });
                let token = SyncToken { boot_id: boot.boot_id, commit };
                let conversations = states_of(rows);
                ServerFrame::SyncResult { request_id, token, reset: *reset, conversations, next_page }
            }
            _ => return self.refuse(session, request_id, &Refusal::read_failed()),
        };
        self.reply(session, request_id, frame);
    }
}

fn no_credit() -> Refusal {
    Refusal::new(ErrorCode::NoCredit, "grant credit for at least one entry, then ask again")
}

/// Of a page's entry, which has all that the chain takes.
fn chain_after(before: &Chain, id: ConversationId, entry: &Entry) -> Chain {
    entry.leaf().map_or(*before, |leaf| before.next(id, entry.seq, &leaf))
}

fn states_of(rows: Vec<UserConversation>) -> Vec<ConversationState> {
    rows.into_iter().map(state_of_row).collect()
}

pub(super) fn state_of_row(row: UserConversation) -> ConversationState {
    let peer = row.peer.map(|(user, subject)| Peer { user, subject });
    state_of(row.conversation, &row.row.heads, &row.member, peer)
}

/// How many of a page's entries the credit is enough for, from the end that was asked for.
fn affordable(page: &[Entry], direction: Direction, left: Credit) -> usize {
    let mut bytes = 0u64;
    let fits = |entry: &&Entry| {
        bytes += entry.encoded_len() as u64;
        bytes <= left.bytes
    };
    let count = match direction {
        Direction::Forward => page.iter().take_while(fits).count(),
        Direction::Backward => page.iter().rev().take_while(fits).count(),
    };
    count.min(usize::try_from(left.entries).unwrap_or(usize::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_round_trip() {
        let page = SyncPage { after: ConversationId::new([7; 16]), since: 3, commit: 9, reset: true };
        assert_eq!(SyncPage::parse(&page.encode()), Some(page));
        assert_eq!(SyncPage::parse(&[0; 32]), None);
        let page = RecentPage(Hlc(u64::MAX - 1), ConversationId::new([8; 16]));
        assert_eq!(RecentPage::parse(&page.encode()), Some(page));
        assert_eq!(RecentPage::parse(&[0; 33]), None);
    }
}
