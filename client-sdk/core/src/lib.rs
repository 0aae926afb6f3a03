//! The client as a pure machine: [`engine::Engine`] takes frames, commands, the store's answers and the time, and
//! gives frames to write, effects to perform and events to show. Around it: the [`outbox`] (own messages in order),
//! a [`timeline`] per conversation (entries in order, proven), the [`store`]'s data types and contract, [`backoff`].
//! Nothing here does I/O, reads a clock or draws randomness: time and seeds are arguments. No text of a message and
//! no token is ever printed.

pub mod ask;
pub mod backoff;
pub mod engine;
pub mod event;
pub mod history;
pub mod mint;
pub mod outbox;
pub mod rng;
pub mod store;
pub mod timeline;
