//! What a device hears, and makes of it.

use std::collections::HashSet;

use talaria_protocol::{
    chain::{Chain, Leaf},
    entry::{Entry, EntryForm, EntryHeader},
    error_code::ErrorCode,
    ids::ConversationId,
    message::{
        ConversationState, Cursor, RequestId, SyncToken,
        client::Request,
        server::{HistoryPage, ServerFrame},
    },
};

use super::{
    super::{
        book::Book,
        world::{Out, World},
    },
    Asked, Device, Item, Subscribed,
};

impl Device {
    // What it hears.

    pub(crate) fn on_out(&mut self, out: Out, world: &mut World, book: &mut Book) {
        match out {
            Out::Opened(_) => {
                if self.confirmed {
                    self.check_taken_over(world, book);
                }
                self.opened = true;
                self.clock = (world.hlc().unix_ms(), world.now.mono_ms);
                self.needs_sync = true;
                self.sync();
            }
            Out::Refused(code) => {
                assert!(code.retryable(), "refused for good: {code:?}");
                self.lose_connection();
            }
            // A session of before, of another shard, was admitted after it.
            Out::End(ErrorCode::TakenOver) if world.shards.len() > 1 => {
                book.saw("taken over by an older one");
                self.lose_connection();
            }
            Out::End(code) => panic!("{} {}: the session ended: {code:?}", self.name, self.number),
            Out::Frame(frame) => self.on_frame(frame, world, book),
        }
    }

    fn on_frame(&mut self, frame: ServerFrame, world: &World, book: &mut Book) {
        match frame {
            ServerFrame::Deliver { conversation, entry } => self.on_entry(conversation, &entry, world, book),
            ServerFrame::Sent(sent) => {
                let Some(Asked::Item(id)) = self.requests.remove(&sent.request_id) else {
                    panic!("{sent:?}")
                };
                let session = self.session.expect("a session");
                book.on_sent(world, self.user, id, &sent, session);
                self.outbox.retain(|item| item.id != id);
            }
            ServerFrame::ConversationResult { request_id, conversation, seq, .. } => {
                let Some(Asked::Item(id)) = self.requests.remove(&request_id) else { panic!("{seq}") };
                book.on_changed(world, self.user, id, conversation.conversation, seq);
                self.outbox.retain(|item| item.id != id);
                self.want(&conversation);
            }
            ServerFrame::Error { request_id: Some(request_id), code, .. } => {
                self.on_refused(request_id, ErrorCode::from_wire(code).expect("a known code"), book);
            }
            ServerFrame::Error { conversation: Some(id), code, .. } => {
                self.on_stopped(id, ErrorCode::from_wire(code).expect("a known code"), book);
            }
            ServerFrame::SyncResult { request_id, token, reset, conversations, next_page } => {
                self.requests.remove(&request_id).expect("a request");
                self.on_sync(token, reset, &conversations, next_page, book);
            }
            ServerFrame::Changed(state) => {
                book.saw("changed");
                self.want(&state);
            }
            ServerFrame::CaughtUp { conversation, head, chain } => {
                let held = self.held.entry(conversation).or_default();
                if book.rollbacks > 0 && held.cursor.seq != head {
                    // Of a resume before it was told that the conversation is gone.
                    return;
                }
                held.caught_up = true;
                assert_eq!(held.cursor.seq, head, "{} {}: caught up", self.name, self.number);
                assert!(chain.is_none_or(|chain| chain == held.cursor.chain));
                self.keep_token();
            }
            ServerFrame::Skipped { conversation, from, to, chain } => {
                let held = self.held.get_mut(&conversation).expect("resumed");
                if to > held.cursor.seq {
                    assert_eq!(from, held.cursor.seq + 1);
                    held.cursor = Cursor { epoch: held.cursor.epoch, seq: to, chain };
                    book.on_skipped(world, self.user, conversation, from, to, chain);
                }
            }
            ServerFrame::Truncated { conversation, first_seq, chain } => {
                self.on_truncated(conversation, first_seq, chain, world, book);
            }
            ServerFrame::EpochChanged { conversation, first_seq, chain, epoch } => {
                book.saw("fork");
                assert!(book.rollbacks > 0, "a fork, but the log never went back");
                self.drop_from(conversation, first_seq, book);
                let held = self.held.get_mut(&conversation).expect("resumed");
                held.cursor = Cursor { epoch, seq: first_seq - 1, chain };
                held.subscribed = Subscribed::Wanted;
            }
            ServerFrame::HistoryPage(page) => self.on_page(&page, world, book),
            ServerFrame::MemberList { request_id, .. } | ServerFrame::ConversationList { request_id, .. } => {
                self.requests.remove(&request_id).expect("a request");
            }
            other => panic!("{other:?}"),
        }
    }

    fn on_truncated(
        &mut self,
        id: ConversationId,
        first_seq: u64,
        chain: Chain,
        world: &World,
        book: &mut Book,
    ) {
        book.saw("truncated");
        let held = self.held.get_mut(&id).expect("resumed");
        if first_seq > held.cursor.seq + 1 {
            assert!(first_seq <= world.cuts.first_seq(id), "what is there is not truncated");
            assert_eq!(world.stored(id, first_seq - 1).expect("it was there").chain, chain);
            held.gone.push(held.cursor.seq + 1..=first_seq - 1);
            held.cursor = Cursor { epoch: held.cursor.epoch, seq: first_seq - 1, chain };
            self.keep_token();
        }
    }

    fn want(&mut self, state: &ConversationState) {
        let held = self.held.entry(state.conversation).or_default();
        if held.subscribed == Subscribed::No {
            held.subscribed = Subscribed::Wanted;
        }
    }

    fn on_refused(&mut self, request_id: RequestId, code: ErrorCode, book: &mut Book) {
        book.saw(code.name());
        match self.requests.remove(&request_id).expect("a request") {
            Asked::Item(id) if code.retryable() => {
                let item = self.outbox.iter_mut().find(|item| item.id == id).expect("an item");
                item.in_flight = None;
            }
            Asked::Item(id) => {
                book.on_failed(self.user, id, code);
                self.outbox.retain(|item| item.id != id);
            }
            Asked::Sync => self.needs_sync = true,
            Asked::History(..) | Asked::Other => {}
        }
    }

    fn on_stopped(&mut self, id: ConversationId, code: ErrorCode, book: &mut Book) {
        book.saw("delivery stopped");
        // Told before, by the answer to another resume.
        let Some(held) = self.held.get_mut(&id) else { return };
        match code {
            ErrorCode::Busy | ErrorCode::ReadFailed => held.subscribed = Subscribed::Wanted,
            ErrorCode::NotFound => {
                assert!(book.rollbacks > 0, "a conversation is gone, but the log never went back");
                self.drop_from(id, 1, book);
                self.held.remove(&id);
                if let Some(syncing) = &mut self.syncing {
                    syncing.listed.remove(&id);
                }
                self.keep_token();
            }
            other => panic!("{} {}: {other:?} for {id}", self.name, self.number),
        }
    }

    /// Forgets a fork; own messages of it are sent again under their ids.
    fn drop_from(&mut self, id: ConversationId, first_seq: u64, book: &mut Book) {
        let held = self.held.get_mut(&id).expect("held");
        held.entries.split_off(&first_seq);
        held.acked = held.acked.min(first_seq - 1);
        for (id, request) in book.lost_of(self.user, (self.number, self.role), id) {
            if !self.outbox.iter().any(|item| item.id == id) {
                self.outbox.push(Item { id, request, in_flight: None });
            }
        }
    }

    fn on_sync(
        &mut self,
        token: SyncToken,
        reset: bool,
        conversations: &[ConversationState],
        next_page: bytes::Bytes,
        book: &mut Book,
    ) {
        let Some(syncing) = &mut self.syncing else { return };
        book.saw(if reset && self.token.is_some() { "reset" } else { "sync" });
        assert!(!reset || self.token.is_none() || book.rollbacks > 0, "reset, but the log never went back");
        // Opened again, the log may have gone back behind the token and its list ([DLV-79]).
        let reopened = self.token.is_some_and(|kept| kept.boot_id != token.boot_id);
        syncing.reset |= reset || reopened;
        syncing.token.get_or_insert(token);
        syncing.listed.extend(conversations.iter().map(|state| (state.conversation, state.head)));
        syncing.complete = next_page.is_empty();
        let everything = syncing.reset && syncing.complete;
        for state in conversations {
            self.held.entry(state.conversation).or_default();
        }
        let behind: HashSet<ConversationId> = conversations.iter().map(|state| state.conversation).collect();
        for (id, held) in &mut self.held {
            if held.subscribed == Subscribed::No && (everything || behind.contains(id)) {
                held.subscribed = Subscribed::Wanted;
            }
        }
        if !next_page.is_empty() {
            self.ask(Asked::Sync, Request::Sync { token: self.token, page: next_page });
        }
        self.keep_token();
    }

    /// Once everything listed is held, and on a reset everything was offered, the token stands for it.
    fn keep_token(&mut self) {
        let Some(syncing) = &self.syncing else { return };
        let is_held = |(id, head): (&ConversationId, &u64)| {
            self.held.get(id).is_some_and(|held| held.cursor.seq >= *head)
        };
        let offered = self.held.values().all(|held| held.caught_up);
        if syncing.complete && syncing.listed.iter().all(is_held) && (!syncing.reset || offered) {
            self.token = syncing.token;
            self.syncing = None;
        }
    }

    fn on_entry(&mut self, id: ConversationId, entry: &Entry, world: &World, book: &mut Book) {
        self.received.entries += 1;
        self.received.bytes += entry.encoded_len() as u64;
        let Some(held) = self.held.get_mut(&id) else {
            // Gone, it was told to an earlier resume; a later one found it again.
            assert!(book.rollbacks > 0, "only what was resumed is delivered");
            self.held.entry(id).or_default();
            return;
        };
        assert!(held.subscribed != Subscribed::No, "not resumed, or stopped");
        let leaf = leaf_of(entry, book);
        let hidden = matches!(entry.form, EntryForm::Hidden { .. });
        book.on_delivered(world, self.user, id, entry);
        if entry.seq <= held.cursor.seq {
            if let Some((known, was_hidden)) = held.entries.get(&entry.seq) {
                assert_eq!((*known, *was_hidden), (leaf, hidden), "another entry under the same seq");
            }
            return;
        }
        if book.rollbacks > 0 && entry.seq > held.cursor.seq + 1 {
            // Likewise.
            return;
        }
        assert_eq!(entry.seq, held.cursor.seq + 1, "{} {}: a gap in {id}", self.name, self.number);
        let chain = held.cursor.chain.next(id, entry.seq, &leaf);
        let epoch = header_of(entry).map_or(held.cursor.epoch, |header| header.epoch);
        held.cursor = Cursor { epoch, seq: entry.seq, chain };
        held.entries.insert(entry.seq, (leaf, hidden));
        self.keep_token();
    }

    fn on_page(&mut self, page: &HistoryPage, world: &World, book: &mut Book) {
        let Some(Asked::History(asked, begun)) = self.requests.remove(&page.request_id) else {
            panic!("not asked for: {page:?}")
        };
        let id = asked.conversation;
        for pair in page.entries.windows(2) {
            assert_eq!(pair[0].seq + 1, pair[1].seq, "a page is dense");
        }
        let mut chain = page.chain_before;
        for entry in &page.entries {
            self.received.entries += 1;
            self.received.bytes += entry.encoded_len() as u64;
            let leaf = entry.leaf().expect("a page omits nothing");
            chain = chain.next(id, entry.seq, &leaf);
            let stored = world.stored(id, entry.seq);
            if book.rollbacks == 0 {
                assert_eq!(Some(chain), stored.map(|stored| stored.chain), "the page's chain");
                let known = self.held.get(&id).and_then(|held| held.entries.get(&entry.seq));
                assert!(known.is_none_or(|(known, _)| *known == leaf), "history differs from delivery");
            }
        }
        book.on_history(self.user, &asked, begun, page);
    }
}

pub(crate) fn header_of(entry: &Entry) -> Option<EntryHeader> {
    match &entry.form {
        EntryForm::Full { header, .. } | EntryForm::Erased { header, .. } => {
            Some(EntryHeader::parse(header).expect("a header"))
        }
        EntryForm::Hidden { .. } => None,
    }
}

/// Own content that was omitted is known.
fn leaf_of(entry: &Entry, book: &Book) -> Leaf {
    entry.leaf().unwrap_or_else(|| {
        let header = header_of(entry).expect("content was omitted from it");
        let content = book.content(header.sender, header.client_message_id);
        entry.leaf_with(&content).expect("now it is complete")
    })
}
