//! Reading: history pages, members, a user's conversations, and what of them changed since a sync token.

use bytes::{BufMut, Bytes, BytesMut};
use talaria_protocol::{
    chain::Chain,
    entry::Entry,
    error_code::ErrorCode,
    ids::{ConversationId, UserId},
    limits::{PAGE_BYTES_MAX, PAGE_CONVERSATIONS_MAX, PAGE_MEMBERS_MAX},
    message::{
        ConversationState, Credit, Direction, Member, PageToken, Peer, RequestId, SyncToken,
        client::History,
        server::{HistoryPage, ServerFrame},
    },
};

use super::{ReadTarget, Shard};
use crate::{
    conversation::{Refusal, state_of},
    effect::SessionKey,
    fan_out::{Sight, entry_for},
    log::{MemberRow, PageQuery, ReadAnswer, ReadOp, StoredEntry, UserConversation},
};

/// A history page is being read.
#[derive(Debug)]
pub(super) struct HistoryRead {
    direction: Direction,
    /// The oldest that this reader gets.
    first_seq: u64,
    /// The newest.
    head: u64,
    member: MemberRow,
}

/// A page of conversations is being read.
#[derive(Debug)]
pub(super) enum ListRead {
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
        let number = |at: usize| Some(u64::from_be_bytes(bytes.get(at..at + 8)?.try_into().ok()?));
        if bytes.len() != Self::BYTES {
            return None;
        }
        let after = ConversationId::try_from(&bytes[..16]).ok()?;
        Some(Self { after, since: number(16)?, commit: number(24)?, reset: bytes[32] == 1 })
    }
}

fn bad_page() -> Refusal {
    Refusal::new(ErrorCode::Invalid, "page: not a next_page of an answer to this request")
}

impl Shard {
    pub(super) fn run_history(&mut self, session: SessionKey, request_id: RequestId, history: History) {
        let Some(state) = self.directory.sessions.get(&session) else { return };
        let id = history.conversation;
        let Some(conversation) = self.ready(id) else { return };
        let Some(member) = conversation.member(state.identity.user) else {
            return self.refuse(session, request_id, &Refusal::not_found());
        };
        let left = state.credit_left();
        let entries_max = history.entries_max.min(usize::try_from(left.entries).unwrap_or(usize::MAX));
        if entries_max == 0 || left.bytes == 0 {
            return self.refuse(session, request_id, &no_credit());
        }
        if !self.under_way.can_read() {
            return self.refuse(session, request_id, &Refusal::busy("too many reads are under way"));
        }
        let head = member.head(conversation.heads().head);
        let first_seen = member.spans.first().map_or(head + 1, |span| span.from);
        let first_seq = conversation.heads().first_seq.max(first_seen);
        let from = match history.direction {
            Direction::Forward => history.from.clamp(first_seq, head + 1),
            Direction::Backward if history.from == 0 => head,
            Direction::Backward => history.from.min(head),
        };
        let query = PageQuery {
            conversation: id,
            from,
            direction: history.direction,
            entries_max,
            bytes_max: PAGE_BYTES_MAX,
        };
        let what = HistoryRead { direction: history.direction, first_seq, head, member: member.clone() };
        self.read(ReadOp::Page(query), ReadTarget::History(session, request_id, what));
    }

    pub(super) fn on_history_read(
        &mut self,
        key: SessionKey,
        request_id: RequestId,
        what: &HistoryRead,
        answer: ReadAnswer,
    ) {
        let ReadAnswer::Page { chain_before, entries } = answer else {
            return self.refuse(key, request_id, &Refusal::read_failed());
        };
        let Some(session) = self.directory.sessions.get_mut(&key) else { return };
        let (chain_before, stored) = within(what, chain_before, &entries);
        let mut page: Vec<Entry> = stored
            .iter()
            .map(|entry| {
                entry_for(entry, if what.member.sees(entry.seq) { Sight::Full } else { Sight::Stub })
            })
            .collect();
        let kept = affordable(&page, what.direction, session.credit_left());
        if kept == 0 && !page.is_empty() {
            return self.refuse(key, request_id, &no_credit());
        }
        let mut chain_before = chain_before;
        match what.direction {
            Direction::Forward => page.truncate(kept),
            Direction::Backward => {
                let dropped = page.len() - kept;
                if let Some(last) = dropped.checked_sub(1) {
                    chain_before = stored[last].chain;
                }
                page.drain(..dropped);
            }
        }
        let mut cost = Credit::default();
        for entry in &page {
            if let Some(one) = session.take_credit(entry.encoded_len() as u64) {
                cost = Credit { entries: cost.entries + one.entries, bytes: cost.bytes + one.bytes };
            }
        }
        let more = match what.direction {
            Direction::Forward => page.last().is_some_and(|entry| entry.seq < what.head),
            Direction::Backward => page.first().is_some_and(|entry| entry.seq > what.first_seq),
        };
        let page = HistoryPage {
            request_id,
            chain_before,
            entries: page,
            first_seq: what.first_seq,
            head: what.head,
            more,
        };
        self.reply_at_cost(key, request_id, ServerFrame::HistoryPage(page), cost);
    }

    pub(super) fn run_members(
        &mut self,
        session: SessionKey,
        id: ConversationId,
        request_id: RequestId,
        page: &PageToken,
    ) {
        let Some(state) = self.directory.sessions.get(&session) else { return };
        let Some(conversation) = self.ready(id) else { return };
        let refusal = match conversation.member(state.identity.user) {
            None => Some(Refusal::not_found()),
            Some(row) if !row.is_member() => {
                Some(Refusal::new(ErrorCode::Forbidden, "not a member any more"))
            }
            Some(_) => None,
        };
        if let Some(refusal) = refusal {
            return self.refuse(session, request_id, &refusal);
        }
        let after = if page.is_empty() { Ok(None) } else { UserId::try_from(&page[..]).map(Some) };
        let Ok(after) = after else { return self.refuse(session, request_id, &bad_page()) };
        let rows = conversation.members_after(after).filter(|(_, row)| row.is_member());
        let mut members: Vec<Member> =
            rows.take(PAGE_MEMBERS_MAX + 1).map(|(user, row)| member_of(*user, row)).collect();
        let more = members.len() > PAGE_MEMBERS_MAX;
        members.truncate(PAGE_MEMBERS_MAX);
        let next_page = match members.last() {
            Some(last) if more => last.peer.user.to_bytes(),
            _ => Bytes::new(),
        };
        self.reply(session, request_id, ServerFrame::MemberList { request_id, members, next_page });
    }

    pub(super) fn on_list_conversations(
        &mut self,
        session: SessionKey,
        request_id: RequestId,
        page: &PageToken,
    ) {
        let after = if page.is_empty() { Ok(None) } else { ConversationId::try_from(&page[..]).map(Some) };
        let Ok(after) = after else { return self.refuse(session, request_id, &bad_page()) };
        self.read_list(session, request_id, after, 0, ListRead::All);
    }

    pub(super) fn on_sync(
        &mut self,
        session: SessionKey,
        request_id: RequestId,
        token: Option<SyncToken>,
        page: &PageToken,
    ) {
        if page.is_empty() {
            let since = token.and_then(|token| self.known(&token));
            let what =
                ListRead::Changed { reset: since.is_none(), since: since.unwrap_or(0), first_commit: None };
            return self.read_list(session, request_id, None, since.unwrap_or(0), what);
        }
        let Some(SyncPage { after, since, commit, reset }) = SyncPage::parse(page) else {
            return self.refuse(session, request_id, &bad_page());
        };
        let what = ListRead::Changed { reset, since, first_commit: Some(commit) };
        self.read_list(session, request_id, Some(after), since, what);
    }

    /// The commit of a token that is of this log's history: its boot is known, and it is within it.
    fn known(&self, token: &SyncToken) -> Option<u64> {
        let boots = &self.config.log.boots;
        let at = boots.iter().position(|boot| boot.boot_id == token.boot_id)?;
        let ended_before = boots.get(at + 1).is_some_and(|next| token.commit >= next.first_commit);
        (!ended_before).then_some(token.commit)
    }

    fn read_list(
        &mut self,
        session: SessionKey,
        request_id: RequestId,
        after: Option<ConversationId>,
        since_commit: u64,
        what: ListRead,
    ) {
        let Some(state) = self.directory.sessions.get(&session) else { return };
        let user = state.identity.user;
        if !self.under_way.can_read() {
            return self.refuse(session, request_id, &Refusal::busy("too many reads are under way"));
        }
        let read = ReadOp::UserConversations { user, after, since_commit, rows_max: PAGE_CONVERSATIONS_MAX };
        self.read(read, ReadTarget::List(session, request_id, what));
    }

    pub(super) fn on_list_read(
        &mut self,
        session: SessionKey,
        request_id: RequestId,
        what: &ListRead,
        answer: ReadAnswer,
    ) {
        let ReadAnswer::UserConversations { commit, rows, next } = answer else {
            return self.refuse(session, request_id, &Refusal::read_failed());
        };
        let conversations: Vec<ConversationState> = rows.into_iter().map(state_of_row).collect();
        let frame = match what {
            ListRead::All => {
                let next_page = next.map_or_else(Bytes::new, ConversationId::to_bytes);
                ServerFrame::ConversationList { request_id, conversations, next_page }
            }
            ListRead::Changed { reset, since, first_commit } => {
                let Some(boot) = self.config.log.boots.last() else { return };
                let commit = first_commit.unwrap_or(commit);
                let next_page = next.map_or_else(Bytes::new, |after| {
                    SyncPage { after, since: *since, commit, reset: *reset }.encode()
                });
                let token = SyncToken { boot_id: boot.boot_id, commit };
                ServerFrame::SyncResult { request_id, token, reset: *reset, conversations, next_page }
            }
        };
        self.reply(session, request_id, frame);
    }
}

fn no_credit() -> Refusal {
    Refusal::new(ErrorCode::NoCredit, "grant credit for at least one entry, then ask again")
}

fn member_of(user: UserId, row: &MemberRow) -> Member {
    let joined_seq = row.spans.last().map_or(0, |span| span.from);
    Member { peer: Peer { user, subject: row.subject.clone() }, role: row.role, joined_seq }
}

fn state_of_row(row: UserConversation) -> ConversationState {
    let peer = row.peer.map(|(user, subject)| Peer { user, subject });
    state_of(row.conversation, &row.row.heads, &row.member, peer)
}

/// The part of a page that this reader may know of, and the chain before it.
fn within<'a>(
    what: &HistoryRead,
    chain_before: Chain,
    entries: &'a [StoredEntry],
) -> (Chain, &'a [StoredEntry]) {
    let begin = entries.partition_point(|entry| entry.seq < what.first_seq);
    let end = entries.partition_point(|entry| entry.seq <= what.head).max(begin);
    let chain = begin.checked_sub(1).map_or(chain_before, |before| entries[before].chain);
    (chain, &entries[begin..end])
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
    fn sync_pages_round_trip() {
        let page = SyncPage { after: ConversationId::new([7; 16]), since: 3, commit: 9, reset: true };
        assert_eq!(SyncPage::parse(&page.encode()), Some(page));
        assert_eq!(SyncPage::parse(&[0; 32]), None);
    }
}
