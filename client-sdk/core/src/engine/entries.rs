//! Entries on their way into the store: each in order, with its content, proven; and what says that some are left
//! out or that all have come.

use talaria_protocol::{
    chain::Chain,
    entry::{Entry, EntryForm, EntryHeader},
    ids::ConversationId,
    message::{Cursor, server::HistoryPage},
    session::Millis,
};

use super::{Cost, Engine, Told, batch::After};
use crate::{
    event::{DamageKind, Event, SendFailure},
    timeline::{CaughtUp, Fork, Intake, LeftOut, Phase, Ready, Timeline},
};

impl Engine {
    pub(super) fn on_deliver(&mut self, now: Millis, conversation: ConversationId, entry: Entry) {
        self.last_delivery = now;
        let cost = self.receive(1, entry.encoded_len());
        let intake = self
            .timelines
            .get_mut(&conversation)
            .map_or(Intake::Dropped, |timeline| timeline.handle_entry(entry, now));
        match intake {
            Intake::Kept => self.apply_ready(now, conversation),
            Intake::Duplicate => {
                self.stats.duplicates_dropped += 1;
                self.consume(now, cost);
            }
            Intake::Dropped => {
                self.stats.entries_dropped += 1;
                self.consume(now, cost);
            }
        }
    }

    /// Takes what has arrived and is next, until an entry is missing.
    fn apply_ready(&mut self, now: Millis, conversation: ConversationId) {
        loop {
            let Some(timeline) = self.timelines.get_mut(&conversation) else { return };
            let Some(ready) = timeline.poll_ready(now) else {
                if timeline.gap_deadline().is_some() {
                    self.gaps.insert(conversation);
                }
                return;
            };
            let goes_on = match ready {
                Ready::Entry(entry) => self.apply_next(now, conversation, entry),
                Ready::Gap { from, to, is_truncated, dropped } => {
                    self.consume_all(now, &dropped);
                    let event = match is_truncated {
                        true => Event::Truncated { conversation, first_seq: to + 1 },
                        false => Event::Skipped { conversation, from, to },
                    };
                    self.on_passed_over(conversation, to, event);
                    true
                }
            };
            if !goes_on || !self.check_caught_up(now, conversation) {
                return;
            }
        }
    }

    /// False when nothing more is to be taken for now.
    fn apply_next(&mut self, now: Millis, conversation: ConversationId, entry: Entry) -> bool {
        let cost = Cost { connection: self.connection, entries: 1, bytes: entry.encoded_len() as u64 };
        match self.with_content(conversation, entry) {
            Ok(entry) => self.apply(now, conversation, &entry, cost),
            Err(missing) => {
                self.stats.entries_dropped += 1;
                self.consume(now, cost);
                drop(missing);
                self.fetch(now, conversation);
                false
            }
        }
    }

    /// The entry with its content; itself, when that was omitted and is not here.
    fn with_content(&self, conversation: ConversationId, entry: Entry) -> Result<Entry, Entry> {
        let EntryForm::Full { header, content: None, salt } = &entry.form else { return Ok(entry) };
        let content = EntryHeader::parse(header)
            .ok()
            .and_then(|parsed| self.outbox.content(conversation, parsed.client_message_id));
        match content {
            Some(content) => {
                let form = EntryForm::Full { header: header.clone(), content: Some(content), salt: *salt };
                Ok(Entry { seq: entry.seq, form })
            }
            None => Err(entry),
        }
    }

    /// Puts the next entry into the batch. False when it does not fit: the conversation is damaged.
    fn apply(&mut self, now: Millis, conversation: ConversationId, entry: &Entry, cost: Cost) -> bool {
        let Some(timeline) = self.timelines.get_mut(&conversation) else { return false };
        let applied = match timeline.apply(entry) {
            Ok(applied) => applied,
            Err(kind) => {
                self.consume(now, cost);
                self.damage(now, conversation, kind);
                return false;
            }
        };
        let cursor = timeline.applied();
        let seq = cursor.seq;
        let own = applied
            .view
            .header
            .as_ref()
            .map(|header| (header.client_message_id, header.epoch, header.hlc, header.sender));
        self.batches.append(conversation, applied.stored, cursor);
        self.batches.after(After::Tell(Told { event: Event::Entry(applied.view), cost }));
        self.stats.entries_stored += 1;
        if let Some((id, epoch, hlc, sender)) = own
            && self.welcome().is_some_and(|welcome| welcome.user == sender)
            && let Some(resolved) = self.outbox.on_own_entry(conversation, id, seq)
        {
            self.batches.remove(resolved.local_id);
            if resolved.first {
                self.acknowledge(resolved, epoch, hlc);
            }
        }
        self.on_moved(conversation, seq);
        true
    }

    pub(super) fn on_caught_up(
        &mut self,
        now: Millis,
        conversation: ConversationId,
        head: u64,
        chain: Option<Chain>,
    ) {
        let streams = self.streams;
        let Some(timeline) = self.timelines.get_mut(&conversation) else { return };
        match timeline.handle_caught_up(head, chain, streams, now) {
            Ok(CaughtUp::Yes { proven }) => self.on_all_held(now, conversation, head, proven),
            Ok(CaughtUp::No) => {
                if timeline.gap_deadline().is_some() {
                    self.gaps.insert(conversation);
                }
            }
            Err(kind) => self.damage(now, conversation, kind),
        }
    }

    /// Whether this was the last entry that a `CaughtUp` spoke of. False: the conversation is damaged.
    fn check_caught_up(&mut self, now: Millis, conversation: ConversationId) -> bool {
        let Some(timeline) = self.timelines.get_mut(&conversation) else { return false };
        match timeline.poll_caught_up() {
            Ok(Some((head, CaughtUp::Yes { proven }))) => self.on_all_held(now, conversation, head, proven),
            Ok(_) => {}
            Err(kind) => {
                self.damage(now, conversation, kind);
                return false;
            }
        }
        true
    }

    fn on_all_held(&mut self, now: Millis, conversation: ConversationId, head: u64, proven: bool) {
        if self.timelines.get(&conversation).is_some_and(Timeline::wants_proof) {
            self.to_resume.insert(conversation);
        }
        let proof = self.outbox.on_caught_up(conversation, proven, self.batches.number());
        self.batches.put(proof.put);
        for local_id in proof.unknown {
            self.give_up(conversation, local_id, SendFailure::OutcomeUnknown);
        }
        if let Some((_, live)) = self.live() {
            live.sync.on_applied(conversation, u64::MAX);
        }
        self.keep_sync_token();
        self.tell(Event::CaughtUp { conversation, head });
        self.send_acks(now, [conversation]);
    }

    /// Some entries are left out, from here or later on.
    pub(super) fn on_left_out(&mut self, now: Millis, conversation: ConversationId, left_out: LeftOut) {
        let Some(timeline) = self.timelines.get_mut(&conversation) else { return };
        if timeline.handle_left_out(left_out, now) {
            return self.apply_ready(now, conversation);
        }
        // More than a server has reason to say: from the cursor again, later.
        let dropped = timeline.on_refused(now);
        self.stats.entries_dropped += dropped.len() as u64;
        self.consume_all(now, &dropped);
        self.gaps.insert(conversation);
    }

    /// Entries up to `to` count as held.
    fn on_passed_over(&mut self, conversation: ConversationId, to: u64, event: Event) {
        let Some(cursor) = self.timelines.get(&conversation).map(Timeline::applied) else { return };
        self.batches.advance(conversation, cursor);
        self.batches.after(After::Tell(Told { event, cost: Cost::default() }));
        let (gone, put) = self.outbox.on_skipped(conversation, to);
        for local_id in gone {
            self.batches.remove(local_id);
        }
        self.batches.put(put);
        self.on_moved(conversation, to);
    }

    /// A cursor has moved.
    fn on_moved(&mut self, conversation: ConversationId, seq: u64) {
        if let Some(moved) = &mut self.moved {
            moved.insert(conversation);
        }
        if let Some((_, live)) = self.live() {
            live.sync.on_applied(conversation, seq);
        }
        self.keep_sync_token();
    }

    fn fetch(&mut self, now: Millis, conversation: ConversationId) {
        let Some(timeline) = self.timelines.get_mut(&conversation) else { return };
        let dropped = timeline.on_fetching();
        self.stats.entries_dropped += dropped.len() as u64;
        self.consume_all(now, &dropped);
        self.to_fetch.insert(conversation, now);
    }

    /// The page that begins with the entry whose content was missing.
    pub(super) fn on_fetched(&mut self, now: Millis, conversation: ConversationId, page: &HistoryPage) {
        let costs: Vec<_> = page.entries.iter().map(|entry| self.receive(1, entry.encoded_len())).collect();
        let expected =
            self.timelines.get(&conversation).filter(|timeline| timeline.phase() == Phase::Fetching);
        let Some(applied) = expected.map(Timeline::applied) else {
            costs.into_iter().for_each(|cost| self.consume(now, cost));
            return;
        };
        let mut fits = page.entries.is_empty() || page.chain_before == applied.chain;
        if !fits {
            self.damage(now, conversation, DamageKind::ChainMismatch);
        }
        for (entry, cost) in page.entries.iter().zip(costs) {
            if fits {
                fits = self.apply(now, conversation, entry, cost);
            } else {
                self.consume(now, cost);
            }
        }
        if let Some(timeline) = self.timelines.get_mut(&conversation) {
            timeline.on_fetched();
            self.to_resume.insert(conversation);
        }
    }

    /// History cannot be trusted: nothing more is taken.
    pub(super) fn damage(&mut self, now: Millis, conversation: ConversationId, kind: DamageKind) {
        let Some(timeline) = self.timelines.get_mut(&conversation) else { return };
        let seq = match kind {
            DamageKind::BadEntry => timeline.applied().seq + 1,
            _ => timeline.applied().seq,
        };
        let dropped = timeline.on_damaged(kind);
        self.consume_all(now, &dropped);
        self.gaps.remove(&conversation);
        self.stats.chain_mismatches +=
            u64::from(matches!(kind, DamageKind::ChainMismatch | DamageKind::BadFork));
        self.tell(Event::Damage { conversation, seq, kind });
    }

    /// The server does not know it (any more): like a log that went back to before its first entry ([DLV-45]).
    pub(super) fn on_gone(&mut self, now: Millis, conversation: ConversationId) {
        if let Some((_, live)) = self.live() {
            live.sync.on_applied(conversation, u64::MAX);
        }
        self.keep_sync_token();
        let held = self.timelines.get(&conversation).map_or(Cursor::START, Timeline::applied);
        if held == Cursor::START {
            self.timelines.remove(&conversation);
        } else {
            self.on_epoch_changed(now, conversation, Fork { first_seq: 1, cursor: Cursor::START });
        }
    }
}
