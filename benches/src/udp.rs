//! Packets that found a UDP socket's buffer full, as the system counts them: what a node that does not read in time
//! loses, of those it serves too.

use anyhow::Context;

/// Counts of one moment.
#[derive(Clone, Copy, Debug)]
pub(crate) struct UdpDrops {
    /// At the node's sockets.
    pub(crate) node: u64,
    /// At all sockets of the machine since it started, those that are closed included.
    pub(crate) all: u64,
}

impl UdpDrops {
    /// Of the node that listens on this port.
    pub(crate) fn now(port: u16) -> anyhow::Result<Self> {
        let sockets = ["/proc/net/udp", "/proc/net/udp6"].map(std::fs::read_to_string);
        let node = sockets.iter().flatten().map(|table| drops_of_port(table, port)).sum();
        let all = buffer_errors(&std::fs::read_to_string("/proc/net/snmp")?).context("/proc/net/snmp")?;
        Ok(Self { node, all })
    }

    pub(crate) fn since(self, before: Self) -> Self {
        Self { node: self.node.saturating_sub(before.node), all: self.all.saturating_sub(before.all) }
    }
}

/// The last column of the lines with this local port.
fn drops_of_port(table: &str, port: u16) -> u64 {
    let of_port = |line: &str| {
        let mut fields = line.split_ascii_whitespace();
        let (_, local_port) = fields.nth(1)?.rsplit_once(':')?;
        (u16::from_str_radix(local_port, 16) == Ok(port)).then(|| fields.last()?.parse::<u64>().ok())?
    };
    table.lines().filter_map(of_port).sum()
}

/// `RcvbufErrors` of UDP.
fn buffer_errors(snmp: &str) -> Option<u64> {
    let mut lines = snmp.lines().filter_map(|line| line.strip_prefix("Udp: "));
    let (names, values) = (lines.next()?, lines.next()?);
    let mut pairs = names.split(' ').zip(values.split(' '));
    pairs.find(|(name, _)| *name == "RcvbufErrors")?.1.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_are_read() {
        let table = "  sl  local_address rem_address st drops\n 1: 0100007F:8D2B 0:0 07 142\n 2: 0:8D2B 0:0 07 8\n 3: 0:1 0:0 07 9\n";
        assert_eq!(drops_of_port(table, 0x8d2b), 150);
        let snmp = "Tcp: a b\nTcp: 1 2\nUdp: InDatagrams RcvbufErrors X\nUdp: 5 77 1\n";
        assert_eq!(buffer_errors(snmp), Some(77));
        assert!(UdpDrops::now(1).is_ok());
    }
}
