//! After every input: what can go out now goes out. Messages get their ids and are sent, requests are asked,
//! conversations resumed, the next batch is given to the store.

use talaria_protocol::{
    ids::ConversationId,
    limits::CURSORS_PER_RESUME_MAX,
    message::{
        Cursor, Direction, RequestId,
        client::{History, Request},
    },
    session::Millis,
};

use super::{Effect, Engine, Link, Live, Open, Purpose};
use crate::timeline::{Phase, Timeline};

/// Requests in flight that sends leave to others.
const REQUESTS_RESERVED: usize = 8;
/// Entries to read from the history when an own content is missing.
const FETCH_ENTRIES: usize = 50;

impl Engine {
    pub(super) fn pump(&mut self, now: Millis) {
        if self.welcome().is_some() {
            self.mint_due(now);
            self.sync_due(now);
            self.resume_due(now);
            self.fetch_due(now);
            self.ask_due(now);
            self.send_due(now);
        }
        self.read_for_rewinds();
        if let Some(batch) = self.batches.start() {
            self.effects.push_back(Effect::Store(batch));
        }
    }

    /// Sends a request if there is room for it.
    fn request(&mut self, now: Millis, request: Request, purpose: Purpose) -> Option<RequestId> {
        let (session, live) = self.live()?;
        let id = session.request(now, request).ok()?;
        live.requests.insert(id, purpose);
        Some(id)
    }

    /// Requests that may be sent beyond those in flight, `reserved` left.
    fn room(&self, reserved: usize) -> usize {
        let Link::Open(open) = &self.link else { return 0 };
        let Some(live) = &open.live else { return 0 };
        let allowed = (live.welcome.limits.requests_in_flight_max as usize).saturating_sub(reserved).max(1);
        allowed.saturating_sub(open.session.requests_in_flight())
    }

    fn server_unix_ms(&self, now: Millis) -> Option<u64> {
        let Link::Open(open) = &self.link else { return None };
        open.session.server_unix_ms(now)
    }

    fn mint_due(&mut self, now: Millis) {
        let Some(unix_ms) = self.server_unix_ms(now) else { return };
        let batch = self.batches.number();
        let minted = self.outbox.mint(unix_ms, &mut self.mint, &mut self.rng, batch);
        if let Some(last) = minted.last() {
            self.batches.batch().last_minted = last.id;
        }
        self.batches.put(minted);
    }

    fn sync_due(&mut self, now: Millis) {
        if let Some((session, live)) = self.live()
            && let Some(request) = live.sync.next_request(now)
            && let Ok(id) = session.request(now, request)
        {
            live.requests.insert(id, Purpose::Sync);
            live.sync.on_asked();
        }
    }

    /// Resumes what is to be resumed, from cursors that are in the store, unless too much of what came before
    /// waits for the app.
    fn resume_due(&mut self, now: Millis) {
        let window = self.config.window;
        if self.in_hand.entries >= window.entries || self.in_hand.bytes >= window.bytes {
            return;
        }
        let mut cursors = Vec::new();
        for id in self.to_resume.clone() {
            if cursors.len() >= CURSORS_PER_RESUME_MAX {
                break;
            }
            let timeline = self.timelines.entry(id).or_insert_with(|| Timeline::new(id, Cursor::START));
            if matches!(timeline.phase(), Phase::Fetching | Phase::Rewinding(_) | Phase::Damaged(_)) {
                // Resumed by itself afterwards, or never.
                self.to_resume.remove(&id);
                continue;
            }
            let (cursor, dropped) = timeline.begin_resume();
            self.consume_all(now, &dropped);
            if let Some(cursor) = cursor {
                self.to_resume.remove(&id);
                self.gaps.remove(&id);
                self.stats.resumes += 1;
                cursors.push((id, cursor));
            }
        }
        if !cursors.is_empty()
            && let Some((session, _)) = self.live()
        {
            session.resume(now, &cursors);
        }
    }

    fn fetch_due(&mut self, now: Millis) {
        let due: Vec<_> = self.to_fetch.iter().filter(|(_, at)| **at <= now).map(|(id, _)| *id).collect();
        for conversation in due {
            let Some(applied) = self.timelines.get(&conversation).map(Timeline::applied) else { continue };
            let history = History {
                conversation,
                from: applied.seq + 1,
                direction: Direction::Forward,
                entries_max: FETCH_ENTRIES,
            };
            if self.request(now, Request::History(history), Purpose::Fetch(conversation)).is_some() {
                self.to_fetch.remove(&conversation);
            }
        }
    }

    fn ask_due(&mut self, now: Millis) {
        let Some(unix_ms) = self.server_unix_ms(now) else { return };
        while self.room(0) > 0 {
            let (mint, rng) = (&mut self.mint, &mut self.rng);
            let Some((ask_id, request)) = self.asks.next_request(now, || mint.mint(unix_ms, rng)) else {
                return;
            };
            let Some(request_id) = self.request(now, request, Purpose::Ask(ask_id)) else { return };
            self.asks.on_transmitted(ask_id, request_id);
        }
    }

    fn send_due(&mut self, now: Millis) {
        let Link::Open(open) = &self.link else { return };
        let Open { live: Some(Live { sync, .. }), .. } = open.as_ref() else { return };
        // Until it is known whether the log may have gone back, and then whether it did for this conversation, a new
        // message could overtake one that went with it.
        if !sync.is_answered() {
            return;
        }
        let reopened = sync.is_reopened();
        while self.room(REQUESTS_RESERVED) > 0 {
            let (timelines, to_resume) = (&self.timelines, &self.to_resume);
            let held = |id: ConversationId| {
                timelines.get(&id).is_some_and(|timeline| match timeline.phase() {
                    Phase::Rewinding(_) => true,
                    Phase::Resuming => reopened && !timeline.is_confirmed(),
                    Phase::Fetching => reopened,
                    Phase::Idle => reopened && to_resume.contains(&id),
                    Phase::Live | Phase::Damaged(_) => false,
                })
            };
            let Some((local_id, send)) = self.outbox.next_send(now, held) else { return };
            let conversation = send.conversation;
            let Some(request_id) = self.request(now, Request::Send(send), Purpose::Send) else { return };
            self.outbox.on_transmitted(conversation, local_id, request_id);
            self.stats.transmissions += 1;
        }
    }

    /// Makes a conversation live, if it is not.
    pub(super) fn want_live(&mut self, conversation: ConversationId) {
        let phase = self.timelines.get(&conversation).map(Timeline::phase);
        if matches!(phase, None | Some(Phase::Idle)) && self.welcome().is_some() {
            self.to_resume.insert(conversation);
        }
    }

    /// Gaps that did not close are asked for again.
    pub(super) fn ask_for_gaps(&mut self, now: Millis) {
        let late = |id: &ConversationId| self.gap_deadline(*id).is_none_or(|deadline| deadline <= now);
        for id in self.gaps.iter().copied().filter(|id| late(id)).collect::<Vec<_>>() {
            self.gaps.remove(&id);
            if let Some(timeline) = self.timelines.get_mut(&id)
                && timeline.gap_deadline().is_some()
            {
                let dropped = timeline.on_gap_late();
                self.stats.gaps += 1;
                self.consume_all(now, &dropped);
                self.to_resume.insert(id);
            }
        }
    }
}
