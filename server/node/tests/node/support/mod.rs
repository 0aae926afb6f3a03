//! What the tests share: a node in this process ([`node`]), the real program ([`process`]), a raw client ([`client`]),
//! two who talk while others misbehave ([`honest`]), those who come back ([`persistent`]), a slow disk ([`slow_log`]), and HTTP ([`http`]).

pub(crate) mod client;
pub(crate) mod honest;
pub(crate) mod http;
pub(crate) mod node;
pub(crate) mod persistent;
pub(crate) mod process;
pub(crate) mod slow_log;
