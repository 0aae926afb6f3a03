//! History pages, members, and the state of a conversation, as one user may see them.

use bytes::Bytes;
use talaria_protocol::{
    chain::Chain,
    error_code::ErrorCode,
    ids::{ConversationId, UserId},
    limits::{PAGE_BYTES_MAX, PAGE_MEMBERS_MAX},
    message::{Direction, Member, PageToken, Peer, client::History},
};

use crate::{
    answer::{Answer, HistoryAnswer},
    conversation::Refusal,
    fan_out::{Sight, entry_for},
    log::{MemberRow, PageQuery, ReadAnswer, ReadOp, StoredEntry},
    peer::Asking,
    shard::{Shard, session::bad_page, under_way::ReadTarget},
};

/// A history page is being read.
#[derive(Debug)]
pub(in crate::shard) struct HistoryRead {
    /// Where a forward page was to begin.
    begin: Option<u64>,
    /// The oldest that this reader gets.
    first_seq: u64,
    /// The newest.
    head: u64,
    member: MemberRow,
}

impl Shard {
    pub(super) fn run_history(&mut self, asking: Asking, history: History) {
        let id = history.conversation;
        let Some(conversation) = self.ready(id) else { return };
        let Some(member) = conversation.member(asking.user) else {
            return self.answer(asking.shard, asking.ask, Answer::Refused(Refusal::not_found()));
        };
        let head = member.head(conversation.heads().head);
        let first_seen = member.spans.first().map_or(head + 1, |span| span.from);
        let first_seq = conversation.heads().first_seq.max(first_seen);
        let from = match history.direction {
            Direction::Forward => history.from.max(first_seq).min(head + 1),
            Direction::Backward if history.from == 0 => head,
            Direction::Backward => history.from.min(head),
        };
        if first_seq > head {
            // All that this reader might see is gone.
            let page = HistoryAnswer { chain_before: Chain::ZERO, entries: vec![], first_seq, head };
            return self.answer(asking.shard, asking.ask, Answer::History(page));
        }
        let begin = (history.direction == Direction::Forward).then_some(from);
        let what = HistoryRead { begin, first_seq, head, member: member.clone() };
        if !self.under_way.can_read() {
            let refusal = Refusal::busy("too many reads are under way");
            return self.answer(asking.shard, asking.ask, Answer::Refused(refusal));
        }
        let query = PageQuery {
            conversation: id,
            from,
            direction: history.direction,
            entries_max: history.entries_max,
            bytes_max: PAGE_BYTES_MAX,
        };
        self.read(ReadOp::Page(query), ReadTarget::History(asking, what));
    }

    pub(in crate::shard) fn on_history_read(
        &mut self,
        asking: Asking,
        what: &HistoryRead,
        answer: &ReadAnswer,
    ) {
        let ReadAnswer::Page { chain_before, entries } = answer else {
            return self.answer(asking.shard, asking.ask, Answer::Refused(Refusal::read_failed()));
        };
        let (chain_before, stored) = within(what, *chain_before, entries);
        let sight = |entry: &StoredEntry| {
            if what.member.sees(entry.seq) { Sight::Full } else { Sight::Stub }
        };
        let entries = stored.iter().map(|entry| entry_for(entry, sight(entry))).collect();
        let HistoryRead { begin, first_seq, head, .. } = *what;
        // What it was to begin with may have been cut off since.
        let begins = stored.first().map(|entry| entry.seq);
        let first_seq = begins.filter(|seq| begin.is_some_and(|begin| *seq > begin)).unwrap_or(first_seq);
        let page = HistoryAnswer { chain_before, entries, first_seq, head };
        self.answer(asking.shard, asking.ask, Answer::History(page));
    }

    pub(super) fn run_members(&mut self, asking: Asking, id: ConversationId, page: &PageToken) {
        let answer = self.members_page(asking.user, id, page).unwrap_or_else(Answer::Refused);
        self.answer(asking.shard, asking.ask, answer);
    }

    fn members_page(&self, user: UserId, id: ConversationId, page: &PageToken) -> Result<Answer, Refusal> {
        let conversation = self.ready(id).ok_or(Refusal::not_found())?;
        let row = conversation.member(user).ok_or(Refusal::not_found())?;
        if !row.is_member() {
            return Err(Refusal::new(ErrorCode::Forbidden, "not a member any more"));
        }
        let after = if page.is_empty() { Ok(None) } else { UserId::try_from(&page[..]).map(Some) };
        let after = after.map_err(|_| bad_page())?;
        let rows = conversation.members_after(after).filter(|(_, row)| row.is_member());
        let mut members: Vec<Member> =
            rows.take(PAGE_MEMBERS_MAX + 1).map(|(user, row)| member_of(*user, row)).collect();
        let more = members.len() > PAGE_MEMBERS_MAX;
        members.truncate(PAGE_MEMBERS_MAX);
        let next_page = match members.last() {
            Some(last) if more => last.peer.user.to_bytes(),
            _ => Bytes::new(),
        };
        Ok(Answer::Members(members, next_page))
    }

    pub(super) fn run_state(&mut self, asking: Asking, id: ConversationId) {
        let state = self.ready(id).and_then(|conversation| conversation.state(asking.user));
        self.answer(asking.shard, asking.ask, Answer::State(state.map(Box::new)));
    }
}

fn member_of(user: UserId, row: &MemberRow) -> Member {
    let joined_seq = row.spans.last().map_or(0, |span| span.from);
    Member { peer: Peer { user, subject: row.subject.clone() }, role: row.role, joined_seq }
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
