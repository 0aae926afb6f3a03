//! What these tests share.

pub(crate) mod client;
pub(crate) mod relay;
