//! For tests and simulations of this and other crates; plain code, no Cargo feature: [`Scenario`] makes conversations
//! whose chains hold, [`FaultyLog`] fails as it is told.

mod faulty;
mod scenario;

pub use faulty::FaultyLog;
pub use scenario::{Scenario, conversation_id, device_id, message_id, user_id};
