//! The next entries for a session that lags: from the conversation's tail, or a page of the log. What the reader may see,
//! and whether this is all that is durable, is judged here, at one moment.

use talaria_protocol::{
    chain::Chain,
    entry::{Entry, EntryHeader, EntryKind},
    ids::ConversationId,
    limits::{PAGE_BYTES_MAX, PAGE_ENTRIES_MAX},
    message::Direction,
};

use super::Slot;
use crate::{
    answer::{Answer, PageAnswer, PageEnd},
    conversation::{Conversation, Refusal},
    fan_out::{Sight, entry_for},
    log::{Heads, MemberRow, PageQuery, ReadAnswer, ReadOp, StoredEntry},
    peer::Asking,
    question::{PageAsk, Question},
    shard::{Shard, under_way::ReadTarget},
};

/// The last seq that a reader is brought to: of one who was removed, where they may know of no more, or where what the
/// log still has begins.
pub(super) fn reader_head(row: &MemberRow, heads: &Heads) -> u64 {
    row.head(heads.head).max(heads.first_seq - 1)
}

/// A page in the making.
struct Page<'a> {
    asking: &'a Asking,
    row: &'a MemberRow,
    heads: &'a Heads,
    ask: &'a PageAsk,
    /// What was asked for, or the first that the log still has.
    from: u64,
}

impl<'a> Page<'a> {
    fn new(conversation: &'a Conversation, asking: &'a Asking, ask: &'a PageAsk) -> Option<Self> {
        let (row, heads) = (conversation.member(asking.user)?, conversation.heads());
        Some(Self { asking, row, heads, ask, from: ask.from.max(heads.first_seq) })
    }

    fn has_credit(&self) -> bool {
        self.ask.credit.entries > 0 && self.ask.credit.bytes > 0
    }

    fn is_empty(&self) -> bool {
        self.from > reader_head(self.row, self.heads)
    }

    /// The chain before it, where that takes no read.
    fn chain_before(&self, conversation: &Conversation) -> Option<Chain> {
        if self.from == self.heads.first_seq {
            return Some(self.heads.first_chain);
        }
        conversation.tail(self.from - 1).map(|entry| entry.chain)
    }

    fn query(&self, conversation: ConversationId) -> PageQuery {
        let credit = self.ask.credit;
        PageQuery {
            conversation,
            from: self.from,
            direction: Direction::Forward,
            entries_max: usize::try_from(credit.entries).unwrap_or(usize::MAX).min(PAGE_ENTRIES_MAX),
            bytes_max: usize::try_from(credit.bytes).unwrap_or(usize::MAX).min(PAGE_BYTES_MAX),
        }
    }

    fn answer<'b>(
        &self,
        chain_before: Option<Chain>,
        stored: impl Iterator<Item = &'b StoredEntry>,
    ) -> Answer {
        let (entries, end) = self.collect(stored);
        let truncated = (self.from > self.ask.from).then_some((self.from, self.heads.first_chain));
        Answer::Page(PageAnswer { from: self.ask.from, truncated, chain_before, entries, end })
    }

    fn collect<'b>(&self, stored: impl Iterator<Item = &'b StoredEntry>) -> (Vec<Entry>, PageEnd) {
        let head = reader_head(self.row, self.heads);
        let (mut entries, mut bytes, mut next) = (Vec::new(), 0, self.from);
        for stored in stored.take_while(|stored| stored.seq <= head) {
            if entries.len() == PAGE_ENTRIES_MAX || bytes >= PAGE_BYTES_MAX as u64 {
                return (entries, PageEnd::More);
            }
            let entry = entry_for(stored, self.sight(stored));
            bytes += entry.encoded_len() as u64;
            if entries.len() as u64 == self.ask.credit.entries || bytes > self.ask.credit.bytes {
                return (entries, PageEnd::NoCredit);
            }
            entries.push(entry);
            next = stored.seq + 1;
        }
        let end = if next > head {
            let chain = (head == self.heads.head).then_some(self.heads.chain);
            PageEnd::CaughtUp { head, chain }
        } else if self.has_credit() {
            PageEnd::More
        } else {
            PageEnd::NoCredit
        };
        (entries, end)
    }

    fn sight(&self, stored: &StoredEntry) -> Sight {
        if !self.row.sees(stored.seq) {
            return Sight::Stub;
        }
        let own = EntryHeader::parse(&stored.header).is_ok_and(|header| {
            header.sender == self.asking.user
                && header.device == self.asking.device_number
                && header.kind == EntryKind::Message
        });
        if own { Sight::Own } else { Sight::Full }
    }
}

/// The tail from `from` on, if it has that.
fn tail_from(conversation: &Conversation, from: u64) -> impl Iterator<Item = &StoredEntry> {
    (from..).map_while(|seq| conversation.tail(seq))
}

impl Shard {
    pub(super) fn run_page(&mut self, asking: Asking, id: ConversationId, ask: PageAsk) {
        let Some(Slot::Ready(loaded)) = self.home.slots.get(&id) else { return };
        let conversation = &loaded.conversation;
        let Some(page) = Page::new(conversation, &asking, &ask) else {
            return self.answer(asking.shard, asking.ask, Answer::Refused(Refusal::not_found()));
        };
        let chain_before = if ask.chain_wanted { page.chain_before(conversation) } else { None };
        let has_chain = chain_before.is_some() || !ask.chain_wanted;
        let in_tail = conversation.tail(page.from).is_some();
        if page.is_empty() || !page.has_credit() {
            let answer = page.answer(None, std::iter::empty());
            return self.answer(asking.shard, asking.ask, answer);
        }
        if in_tail && has_chain {
            let answer = page.answer(chain_before, tail_from(conversation, page.from));
            return self.answer(asking.shard, asking.ask, answer);
        }
        let query = page.query(id);
        if self.under_way.can_read() {
            self.read(ReadOp::Page(query), ReadTarget::Page(asking, id, ask));
        } else {
            self.home.waiting_to_read.push_back((asking, id, ask));
        }
    }

    /// A page of the log, for one that lags.
    pub(in crate::shard) fn on_page_read(
        &mut self,
        asking: Asking,
        id: ConversationId,
        ask: PageAsk,
        answer: &ReadAnswer,
    ) {
        let ReadAnswer::Page { chain_before, entries } = answer else {
            return self.answer(asking.shard, asking.ask, Answer::Refused(Refusal::read_failed()));
        };
        let Some(conversation) = self.ready(id) else {
            return self.ask_here(asking, id, Question::Page(ask));
        };
        let Some(page) = Page::new(conversation, &asking, &ask) else {
            return self.answer(asking.shard, asking.ask, Answer::Refused(Refusal::not_found()));
        };
        if entries.first().map(|entry| entry.seq) != Some(page.from) {
            // Cut off since.
            return self.ask_here(asking, id, Question::Page(ask));
        }
        let answer = page.answer(Some(*chain_before), entries.iter());
        self.answer(asking.shard, asking.ask, answer);
    }

    /// A reader is free: the page that has waited longest is read.
    pub(in crate::shard) fn read_waiting_pages(&mut self) {
        while self.under_way.can_read()
            && let Some((asking, id, ask)) = self.home.waiting_to_read.pop_front()
        {
            self.ask_here(asking, id, Question::Page(ask));
        }
    }
}
