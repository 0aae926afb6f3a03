//! What a mailbox is built of. The logic of [`super`] is generic over it, so that tests run the same logic under a
//! scheduler that tries interleavings.

use std::sync::atomic::{AtomicU64, Ordering};

use crossbeam::queue::ArrayQueue;
use tokio::sync::Notify;

/// A set of primitives.
pub trait Primitives {
    /// Bits that several threads set and take.
    type Word: Word;
    /// A bounded queue of many producers and one consumer.
    type Queue<T: Send>: Queue<T>;
    /// Wakes the consumer. A ring while nobody waits is kept for the next wait.
    type Bell: Bell;
}

/// See [`Primitives::Word`]. Sequentially consistent.
pub trait Word: Default {
    /// The bits.
    fn load(&self) -> u64;
    /// Sets bits.
    fn set(&self, bits: u64);
    /// Replaces all, and gives what was there.
    fn swap(&self, bits: u64) -> u64;
}

/// See [`Primitives::Queue`].
pub trait Queue<T> {
    /// With so many places.
    fn new(places: usize) -> Self;
    /// Puts it in, or gives it back when there is no place.
    ///
    /// # Errors
    /// What was given.
    fn push(&self, item: T) -> Result<(), T>;
    /// The oldest.
    fn pop(&self) -> Option<T>;
    /// How many wait.
    fn len(&self) -> usize;
}

/// See [`Primitives::Bell`].
pub trait Bell: Default {
    /// Rings once.
    fn ring(&self);
}

/// The ones of a node: std's atomics, crossbeam's queue, tokio's `Notify`.
#[derive(Debug)]
pub struct Real;

impl Primitives for Real {
    type Word = AtomicU64;
    type Queue<T: Send> = ArrayQueue<T>;
    type Bell = Notify;
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

impl<T> Queue<T> for ArrayQueue<T> {
    fn new(places: usize) -> Self {
        Self::new(places)
    }
    fn push(&self, item: T) -> Result<(), T> {
        Self::push(self, item)
    }
    fn pop(&self) -> Option<T> {
        Self::pop(self)
    }
    fn len(&self) -> usize {
        Self::len(self)
    }
}

impl Bell for Notify {
    fn ring(&self) {
        self.notify_one();
    }
}
