//! Talaria's client for Rust apps: connect, send, receive, resume.
//!
//! A [`Client`] keeps one device connected. It queues messages in a [`Store`] and sends them in order until each is
//! acknowledged; it brings every entry of the user's conversations into the store once, in order, proven against the
//! conversation's hash chain, and tells the app by [`Client::events`]. Networks, servers and apps may die in between:
//! what was queued goes out, what was missed comes in.
//!
//! It is carried by QUIC or by TLS over TCP, whichever works first where the device is: see
//! [`ClientConfig::transport`]. Of the life of a phone it needs to be told two things, that the network has changed
//! ([`Client::network_changed`]) and that the app came to the front or left it ([`Client::set_foreground`]).
//!
//! What outlives the app's process is up to the [`Store`]. The one that comes with this crate, [`MemoryStore`], keeps nothing
//! beyond it: an app whose outbox and history must survive a restart brings a store of its own, which
//! [`store_contract`] checks.
//!
//! ```
//! # #[path = "../tests/support/node.rs"] mod node;
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let node = node::Node::start();
//! use talaria_client::{Client, ClientConfig, Event, TokenProvider, new_device_id};
//!
//! let token = node.token("alice");
//! let config = ClientConfig::new(node.server(), new_device_id(), TokenProvider::fixed(token)).ca_file(node.ca())?;
//! let client = Client::connect(config).await?;
//! let mut events = client.events();
//!
//! let conversation = client.direct_with("bob").await?;
//! let sent = conversation.send_text("Good morrow, cousin.").await?.acknowledged().await?;
//! println!("in the log as {}", sent.seq);
//!
//! while let Some(event) = events.next().await {
//!     if let Event::Entry(entry) = event
//!         && let Some(text) = entry.text()
//!     {
//!         assert_eq!(text, "Good morrow, cousin.");
//!         break;
//!     }
//! }
//! client.shutdown().await;
//! # Ok(())
//! # }
//! ```

mod client;
mod config;
mod conversation;
mod driver;
mod error;
mod events;
mod transport;

pub use client::{Client, Connection, Me};
pub use config::{ClientConfig, TokenProvider};
pub use conversation::{Conversation, History, IntoUser, Outgoing, SendHandle, TimelineItem};
pub use error::{ConfigError, ConnectError, HistoryError, QueueError, RequestError, SendError};
pub use events::Events;
/// The types in a [`StoreBatch`](store::StoreBatch), for who writes a [`Store`].
pub use talaria_client_core::store;
pub use talaria_client_core::{
    engine::{StopReason, TokenError},
    event::{Acknowledged as Sent, DamageKind, EntryView, Event, SendFailure, Shown, Stats},
    store::{LocalId, MemoryStore, Store, StoreError, contract as store_contract},
};
pub use talaria_protocol::{
    entry::{EntryHeader, EntryKind, Urgency},
    error_code::ErrorCode,
    ids::{ClientMessageId, ConversationId, DeviceId, UserId},
    message::{
        ConversationKind, ConversationState, Direction, Durability, Member, MemberRole, Peer, UserRef,
        client::ClientInfo,
        content::{Body, Content, MemberAction, MemberChange, Membership},
    },
};
pub use transport::{Transport, TransportChoice};

/// A new device's id: make one per installation of the app, keep it, and give it to every [`ClientConfig`].
///
/// # Panics
/// When the system has no randomness.
pub fn new_device_id() -> DeviceId {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    let [random @ .., _, _, _, _, _, _] = driver::random::<16>();
    DeviceId::from_parts(u64::try_from(since.as_millis()).unwrap_or_default(), random)
}
