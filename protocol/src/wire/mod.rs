//! The wire messages, generated from spec/proto/talaria/v1/wire.proto by `cargo xtask codegen` and committed.
//! Byte fields are `Bytes` that share the frame they were decoded from. Nothing outside [`crate::message`] and
//! [`crate::frame`] should need them: parsed types live there. Never print one: it may hold a token or a text.

mod generated;
pub(crate) mod put;

pub use generated::*;
