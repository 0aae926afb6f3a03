//! Interleavings of the mailbox's steps, tried by shuttle. The logic is the node's own, generic over its primitives; beneath
//! it are shuttle's atomics, and a plain bounded queue under shuttle's mutex in the place of crossbeam's.

use std::collections::VecDeque;

use shuttle::{
    check_pct, check_random,
    sync::{Arc, Condvar, Mutex, atomic::AtomicU64, atomic::Ordering},
    thread,
};
use talaria_core::peer::{PeerClass, ShardId};

use super::{
    Envelope, Mailbox,
    primitives::{Bell, Primitives, Queue, Word},
};

const ITERATIONS: usize = 3_000;

struct Tried;

impl Primitives for Tried {
    type Word = AtomicU64;
    type Queue<T: Send> = PlainQueue<T>;
    type Bell = PlainBell;
}

impl Word for AtomicU64 {
    fn load(&self) -> u64 {
        Self::load(self, Ordering::SeqCst)
    }
    fn set(&self, bits: u64) {
        self.fetch_or(bits, Ordering::SeqCst);
    }
    fn swap(&self, bits: u64) -> u64 {
        Self::swap(self, bits, Ordering::SeqCst)
    }
}

struct PlainQueue<T> {
    items: Mutex<VecDeque<T>>,
    places: usize,
}

impl<T> Queue<T> for PlainQueue<T> {
    fn new(places: usize) -> Self {
        Self { items: Mutex::new(VecDeque::new()), places }
    }
    fn push(&self, item: T) -> Result<(), T> {
        let mut items = self.items.lock().unwrap();
        if items.len() == self.places {
            return Err(item);
        }
        items.push_back(item);
        Ok(())
    }
    fn pop(&self) -> Option<T> {
        self.items.lock().unwrap().pop_front()
    }
    fn len(&self) -> usize {
        self.items.lock().unwrap().len()
    }
}

#[derive(Default)]
struct PlainBell {
    has_rung: Mutex<bool>,
    waiting: Condvar,
    rings: AtomicU64,
}

impl Bell for PlainBell {
    fn ring(&self) {
        self.rings.fetch_add(1, Ordering::SeqCst);
        *self.has_rung.lock().unwrap() = true;
        self.waiting.notify_one();
    }
}

impl PlainBell {
    fn wait(&self) {
        let mut has_rung = self.has_rung.lock().unwrap();
        while !*has_rung {
            has_rung = self.waiting.wait(has_rung).unwrap();
        }
        *has_rung = false;
    }
}

type TriedBox = Mailbox<Tried, u64, u64>;

fn mailbox(completions: usize, places: usize) -> Arc<TriedBox> {
    Arc::new(TriedBox::with_places(completions, |_| places))
}

fn envelope(from: u16, message: u64) -> Envelope<u64> {
    Envelope { from: ShardId(from), incarnation: 0, message }
}

/// Under both of shuttle's searches: any thread next, and few preemptions at bad moments.
fn try_all(test: impl Fn() + Send + Sync + Clone + 'static) {
    check_random(test.clone(), ITERATIONS);
    check_pct(test, ITERATIONS, 3);
}

/// A wake-up that is lost leaves the consumer waiting for ever: shuttle calls that a deadlock.
#[test]
fn no_wake_up_is_lost() {
    try_all(|| {
        consume_from_two(&|mailbox, taken| {
            mailbox.begin_turn();
            take_all(mailbox, taken);
        });
    });
}

/// The negative control: a consumer that says it begins when it has ended sleeps on a message.
#[test]
#[should_panic(expected = "deadlock")]
fn a_turn_that_begins_too_late_loses_one() {
    try_all(|| {
        consume_from_two(&|mailbox, taken| {
            take_all(mailbox, taken);
            mailbox.begin_turn();
        });
    });
}

fn take_all(mailbox: &TriedBox, taken: &mut Vec<u64>) {
    while let Some(envelope) = mailbox.take(PeerClass::Ask) {
        taken.push(envelope.message);
    }
}

fn consume_from_two(turn: &dyn Fn(&TriedBox, &mut Vec<u64>)) {
    let mailbox = mailbox(1, 4);
    let producers: Vec<_> = (0..2u16)
        .map(|from| {
            let mailbox = mailbox.clone();
            thread::spawn(move || {
                for n in 0..2 {
                    mailbox.post(PeerClass::Ask, envelope(from, u64::from(from) * 10 + n)).unwrap();
                }
            })
        })
        .collect();
    let mut taken = Vec::new();
    while taken.len() < 4 {
        mailbox.bell.wait();
        turn(&mailbox, &mut taken);
    }
    producers.into_iter().for_each(|producer| producer.join().unwrap());
    let of = |from: u64| taken.iter().copied().filter(|n| n / 10 == from).collect::<Vec<_>>();
    assert_eq!((of(0), of(1)), (vec![0, 1], vec![10, 11]), "each sender's in its order");
    assert!(mailbox.bell.rings.load(Ordering::SeqCst) <= 4);
}

/// Posts `messages`, one after the other, to a mailbox of one place; told that it is full, it waits for the news of room.
fn produce(me: u16, own: &TriedBox, to: &TriedBox, messages: u64) {
    for n in 0..messages {
        let mut message = n;
        while let Err(back) = to.post(PeerClass::FanOut, envelope(me, message)) {
            message = back.message;
            loop {
                own.bell.wait();
                own.begin_turn();
                if own.take_rooms() != 0 {
                    break;
                }
            }
        }
    }
}

fn starve(tell: bool) {
    let consumer = mailbox(1, 1);
    let own: Vec<_> = (0..2).map(|_| mailbox(1, 1)).collect();
    let producers: Vec<_> = (0..2u16)
        .map(|me| {
            let (own, consumer) = (own[usize::from(me)].clone(), consumer.clone());
            thread::spawn(move || produce(me, &own, &consumer, 2))
        })
        .collect();
    let mut taken = 0;
    while taken < 4 {
        consumer.bell.wait();
        consumer.begin_turn();
        while consumer.take(PeerClass::FanOut).is_some() {
            taken += 1;
        }
        let starved = if tell { consumer.end_turn(PeerClass::FanOut) } else { 0 };
        for me in (0..2u16).filter(|me| starved & (1 << me) != 0) {
            own[usize::from(me)].give_room(ShardId(9));
        }
    }
    producers.into_iter().for_each(|producer| producer.join().unwrap());
}

/// Whoever found a queue full hears of room, whatever the consumer did meanwhile.
#[test]
fn no_room_is_lost() {
    try_all(|| starve(true));
}

/// The negative control: nobody is told.
#[test]
#[should_panic(expected = "deadlock")]
fn who_is_not_told_of_room_waits_for_ever() {
    try_all(|| starve(false));
}

/// A shard with three operations under way at most, a writer that answers two at a time, and its completions.
fn write(places: usize) {
    const IN_FLIGHT_MAX: usize = 3;
    const OPS: u64 = 6;
    let (mailbox, log) = (mailbox(places, 1), Arc::new((Mutex::new(VecDeque::new()), Condvar::new())));
    let writer = thread::spawn({
        let (mailbox, log) = (mailbox.clone(), log.clone());
        move || {
            for _ in 0..OPS {
                let mut ops = log.0.lock().unwrap();
                while ops.is_empty() {
                    ops = log.1.wait(ops).unwrap();
                }
                let op = ops.pop_front().unwrap();
                drop(ops);
                mailbox.complete(op);
            }
        }
    });
    let (mut next, mut done) = (0, Vec::new());
    while (done.len() as u64) < OPS {
        while next < OPS && next as usize - done.len() < IN_FLIGHT_MAX {
            log.0.lock().unwrap().push_back(next);
            log.1.notify_one();
            next += 1;
        }
        mailbox.bell.wait();
        mailbox.begin_turn();
        while let Some(op) = mailbox.take_completion() {
            done.push(op);
        }
    }
    writer.join().unwrap();
    assert_eq!(done, (0..OPS).collect::<Vec<_>>(), "in order, each once");
}

#[test]
fn every_completion_comes_and_has_a_place() {
    try_all(|| write(3));
}

/// The negative control: one place too few, and a completion finds none.
#[test]
#[should_panic(expected = "a mailbox has a place for every completion")]
fn a_place_too_few_is_noticed() {
    try_all(|| write(2));
}

#[test]
fn a_burst_rings_once() {
    shuttle::check_dfs(
        || {
            let mailbox = mailbox(1, 8);
            for n in 0..8 {
                mailbox.post(PeerClass::Control, envelope(0, n)).unwrap();
            }
            assert_eq!(mailbox.bell.rings.load(Ordering::SeqCst), 1);
            let full = mailbox.post(PeerClass::Control, envelope(3, 8));
            assert_eq!(full.map_err(|envelope| envelope.message), Err(8));
            mailbox.begin_turn();
            assert_eq!(mailbox.take(PeerClass::Control).map(|envelope| envelope.message), Some(0));
            assert_eq!(
                (mailbox.end_turn(PeerClass::Control), mailbox.end_turn(PeerClass::Control)),
                (1 << 3, 0)
            );
            mailbox.wake();
            assert_eq!(mailbox.bell.rings.load(Ordering::SeqCst), 2);
        },
        None,
    );
}
