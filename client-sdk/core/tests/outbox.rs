//! The outbox alone: what goes out when, and what never does.
#![allow(clippy::unwrap_used)]

use bytes::Bytes;
use talaria_client_core::{
    mint::IdMint,
    outbox::{Draft, OUTBOX_ITEMS_MAX, Outbox, QueueError, Refusal},
    rng::Rng,
    store::OutboxItem,
};
use talaria_protocol::{
    entry::Urgency,
    error_code::ErrorCode,
    hlc::Hlc,
    ids::{ClientMessageId, ConversationId},
    message::{Durability, RequestId, client::Send, server::Sent},
    session::Millis,
};

const HERE: ConversationId = ConversationId::new([1; 16]);
const THERE: ConversationId = ConversationId::new([2; 16]);
const MS: u64 = 1_800_000_000_000;

struct Bench {
    outbox: Outbox,
    mint: IdMint,
    rng: Rng,
    next_request: u64,
    now: Millis,
}

fn draft(conversation: ConversationId, text: &str) -> Draft {
    let content = Bytes::copy_from_slice(text.as_bytes());
    Draft { conversation, content, urgency: Urgency::Normal, expires_ms: 0, seen: 0 }
}

impl Bench {
    fn new() -> Self {
        let (mint, rng) = (IdMint::new(None), Rng::new([1; 32]));
        Self { outbox: Outbox::load(Vec::new(), None), mint, rng, next_request: 1, now: Millis(1) }
    }

    /// Queues, mints and commits.
    fn push(&mut self, conversation: ConversationId, text: &str) {
        self.outbox.push(draft(conversation, text), 1).unwrap();
        self.outbox.mint(MS, &mut self.mint, &mut self.rng, 1);
        self.outbox.on_committed(1);
    }

    /// Transmits the next message, if there is one now.
    fn send(&mut self) -> Option<(RequestId, Send)> {
        let (local_id, send) = self.outbox.next_send(self.now, |_| false)?;
        let request = RequestId::new(self.next_request).unwrap();
        self.next_request += 1;
        self.outbox.on_transmitted(send.conversation, local_id, request);
        Some((request, send))
    }

    fn texts(&mut self) -> Vec<String> {
        std::iter::from_fn(|| self.send())
            .map(|(_, send)| String::from_utf8(send.content.into()).unwrap())
            .collect()
    }

    fn sent(&mut self, request_id: RequestId, seq: u64) -> bool {
        let (hlc, durability) = (Hlc(0), Durability::Fsync);
        let sent = Sent { request_id, seq, epoch: 1, hlc, durability, duplicate: false };
        self.outbox.on_sent(&sent, |_| 0).unwrap().first
    }

    fn refuse(&mut self, request: RequestId, code: ErrorCode) -> Option<Refusal> {
        self.outbox.on_refused(request, Some(code), 0, self.now, &mut self.rng, 2)
    }

    fn later(&mut self) {
        self.now = Millis(self.now.0 + 60_000);
    }
}

#[test]
fn a_follower_names_its_unanswered_predecessor_only() {
    let mut bench = Bench::new();
    ["a", "b", "c"].iter().for_each(|text| bench.push(HERE, text));
    bench.push(THERE, "x");
    let (a, send_a) = bench.send().unwrap();
    let (_, send_x) = bench.send().unwrap();
    assert_eq!((send_a.after, send_x.conversation, send_x.after), (None, THERE, None), "lanes take turns");
    let (_, send_b) = bench.send().unwrap();
    assert_eq!(send_b.after, Some(send_a.client_message_id));
    bench.sent(a, 5);
    let (_, send_c) = bench.send().unwrap();
    assert_eq!(send_c.after, Some(send_b.client_message_id));
    assert!(bench.send().is_none());
}

#[test]
fn a_refused_predecessor_holds_its_followers_back_and_a_dead_one_is_left_out() {
    let mut bench = Bench::new();
    ["a", "b", "c"].iter().for_each(|text| bench.push(HERE, text));
    let (a, send_a) = bench.send().unwrap();
    let (b, _) = bench.send().unwrap();
    assert_eq!(bench.refuse(a, ErrorCode::Busy), Some(Refusal::Retried));
    assert_eq!(bench.refuse(b, ErrorCode::OutOfOrder), Some(Refusal::Retried));
    assert!(bench.send().is_none(), "not before its time");
    assert!(bench.outbox.poll_timeout(bench.now).is_some());
    bench.later();
    let (a, again) = bench.send().unwrap();
    assert_eq!(again, send_a, "with the same id");
    let (b, _) = bench.send().unwrap();
    assert!(matches!(bench.refuse(a, ErrorCode::Invalid), Some(Refusal::Failed(HERE, _))));
    bench.refuse(b, ErrorCode::OutOfOrder);
    bench.later();
    assert!(bench.send().is_none(), "not before its removal is stored");
    bench.outbox.on_committed(2);
    let (_, send_b) = bench.send().unwrap();
    assert_eq!((send_b.content, send_b.after), (Bytes::from_static(b"b"), None));
}

#[test]
fn what_was_unanswered_at_a_cut_goes_out_again_in_order() {
    let mut bench = Bench::new();
    ["a", "b", "c"].iter().for_each(|text| bench.push(HERE, text));
    let first: Vec<_> = std::iter::from_fn(|| bench.send()).map(|(_, send)| send).collect();
    bench.outbox.on_disconnected();
    let second: Vec<_> = std::iter::from_fn(|| bench.send()).map(|(_, send)| send).collect();
    assert_eq!(first, second, "ids and links too");
}

#[test]
fn an_accepted_message_whose_entry_never_came_is_tried_again_and_told_once() {
    let mut bench = Bench::new();
    bench.push(HERE, "a");
    let (request, send) = bench.send().unwrap();
    assert!(bench.sent(request, 5));
    bench.outbox.on_caught_up(HERE, true, 2);
    assert!(bench.send().is_none(), "its entry may still come on this connection");
    bench.outbox.on_disconnected();
    assert!(bench.send().is_none());
    bench.outbox.on_caught_up(HERE, false, 2);
    let (request, again) = bench.send().unwrap();
    assert_eq!(again.client_message_id, send.client_message_id);
    assert!(!bench.sent(request, 5), "the app was told before");
    assert!(
        bench.outbox.on_own_entry(HERE, send.client_message_id, 5).is_some_and(|resolved| !resolved.first)
    );
    assert!(bench.outbox.is_empty());
}

#[test]
fn a_fork_brings_back_what_it_lost_before_what_was_queued_since() {
    let mut bench = Bench::new();
    bench.push(HERE, "accepted");
    let (request, send) = bench.send().unwrap();
    bench.sent(request, 9);
    bench.outbox.on_disconnected();
    bench.push(HERE, "new");
    let lost = |ms, text| (ClientMessageId::from_parts(ms, [0; 10]), draft(HERE, text));
    let put = bench.outbox.on_fork(HERE, 8, vec![lost(1, "stored 1"), lost(2, "stored 2")], 3);
    assert_eq!(put.len(), 2, "what only the entries held");
    bench.outbox.on_committed(3);
    assert_eq!(bench.texts(), ["stored 1", "stored 2", "accepted", "new"]);
    let mut kept: Vec<OutboxItem> = put;
    kept.sort_by_key(|item| item.order);
    assert!(kept[0].order < kept[1].order && kept[1].order <= 1 << 32, "so a restart keeps the order");
    assert_eq!(send.client_message_id.unix_ms(), MS);
}

#[test]
fn a_fork_after_an_accepted_message_leaves_it_alone() {
    let mut bench = Bench::new();
    bench.push(HERE, "a");
    let (request, _) = bench.send().unwrap();
    bench.sent(request, 5);
    bench.outbox.on_fork(HERE, 6, Vec::new(), 2);
    assert!(bench.send().is_none());
}

#[test]
fn a_refused_id_waits_for_a_proof() {
    let mut bench = Bench::new();
    ["a", "b"].iter().for_each(|text| bench.push(HERE, text));
    let (request, send) = bench.send().unwrap();
    assert_eq!(bench.refuse(request, ErrorCode::IdExpired), Some(Refusal::NeedsProof(HERE)));
    bench.later();
    assert!(bench.send().is_none(), "nor does what follows overtake it");
    bench.outbox.on_caught_up(HERE, false, 2);
    assert!(bench.outbox.mint(MS, &mut bench.mint, &mut bench.rng, 2).is_empty(), "that proves nothing");
    let proof = bench.outbox.on_caught_up(HERE, true, 2);
    assert_eq!((proof.put.len(), proof.unknown.len()), (1, 0));
    assert_eq!(bench.outbox.mint(MS, &mut bench.mint, &mut bench.rng, 2).len(), 1);
    bench.outbox.on_committed(2);
    let (_, again) = bench.send().unwrap();
    assert_eq!(again.content, send.content);
    assert_ne!(again.client_message_id, send.client_message_id);
}

#[test]
fn a_skip_over_an_accepted_message_ends_it() {
    let mut bench = Bench::new();
    bench.push(HERE, "a");
    let (request, _) = bench.send().unwrap();
    bench.sent(request, 5);
    let (gone, put) = bench.outbox.on_skipped(HERE, 5);
    assert_eq!((gone.len(), put.len()), (1, 0));
    assert!(bench.outbox.is_empty());
}

#[test]
fn it_is_bounded() {
    let mut bench = Bench::new();
    for _ in 0..OUTBOX_ITEMS_MAX {
        bench.outbox.push(draft(HERE, "x"), 1).unwrap();
    }
    assert_eq!(bench.outbox.push(draft(HERE, "x"), 1), Err(QueueError::Full));
}
