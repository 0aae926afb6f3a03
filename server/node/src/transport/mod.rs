//! Transports: how bytes of clients come and go. TCP with TLS, and QUIC; each brings connections to the same session driver.

mod addresses;
mod admission;
mod connection;
pub mod quic;
mod stall;
pub mod steering;
pub(crate) mod tcp;
mod tls_socket;
mod transmit;

pub(crate) use addresses::AddressLimits;
pub(crate) use admission::{Admission, NodeAdmission};
