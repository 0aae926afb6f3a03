//! The demo: people on many devices play scenes to each other through one node, whose power is cut in the middle of
//! sends, while apps are killed and connections cut. Afterwards [`check`] compares what was said with the log and with
//! every device. Everything it claims is counted here; nothing is asked of the SDK or the node that it could embellish.

pub mod cast;
pub mod check;
pub mod device;
pub mod history;
pub mod node;
pub mod play;
pub mod remains;
pub mod report;
pub mod script;
