//! The node's own counters, from its admin port.

use std::{collections::BTreeMap, net::SocketAddr, time::Duration};

use anyhow::{Context, ensure};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

/// How long the node may take to tell.
const PATIENCE: Duration = Duration::from_secs(10);

/// Values of one moment, by name and labels as `/metrics` shows them.
#[derive(Clone, Debug, Default)]
pub(crate) struct Metrics(BTreeMap<String, f64>);

impl Metrics {
    pub(crate) async fn read(admin: SocketAddr) -> anyhow::Result<Self> {
        let text = timeout(PATIENCE, get(admin)).await.context("the admin port does not answer")??;
        Ok(Self::parse(&text))
    }

    fn parse(text: &str) -> Self {
        let lines = text.lines().filter(|line| !line.starts_with('#'));
        let values = lines.filter_map(|line| {
            let (name, value) = line.rsplit_once(' ')?;
            Some((name.to_owned(), value.parse().ok()?))
        });
        Self(values.collect())
    }

    /// One more, from elsewhere.
    pub(crate) fn add(&mut self, name: &str, value: f64) {
        self.0.insert(name.to_owned(), value);
    }

    /// The sum over all labels; `None`: this node has no such metric.
    pub(crate) fn sum(&self, name: &str) -> Option<f64> {
        let of_name = self.0.iter().filter(|(key, _)| key.split('{').next() == Some(name));
        let mut values = of_name.map(|(_, value)| *value).peekable();
        values.peek()?;
        Some(values.sum())
    }

    /// What changed since `before`, of the names that `wanted` takes; labels included.
    pub(crate) fn changes_since(
        &self,
        before: &Self,
        wanted: impl Fn(&str) -> bool,
    ) -> BTreeMap<String, f64> {
        let changed = self.0.iter().filter_map(|(key, value)| {
            let change = value - before.0.get(key).copied().unwrap_or_default();
            (change != 0.0 && wanted(key)).then(|| (key.clone(), change))
        });
        changed.collect()
    }

    /// By how much the sum grew.
    pub(crate) fn growth(&self, before: &Self, name: &str) -> Option<f64> {
        Some(self.sum(name)? - before.sum(name).unwrap_or_default())
    }
}

async fn get(admin: SocketAddr) -> anyhow::Result<String> {
    let mut tcp = TcpStream::connect(admin).await?;
    tcp.write_all(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").await?;
    let mut answer = Vec::new();
    tcp.read_to_end(&mut answer).await?;
    let answer = String::from_utf8(answer)?;
    let (head, body) = answer.split_once("\r\n\r\n").context("not HTTP")?;
    ensure!(head.contains(" 200 "), "{head}");
    Ok(body.to_owned())
}

#[cfg(test)]
mod tests {
    use super::Metrics;

    #[test]
    fn labels_are_summed() {
        let before = Metrics::parse("# HELP a b\na{x=\"1\"} 2\nb 1\n");
        let after = Metrics::parse("a{x=\"1\"} 5\na{x=\"2 3\"} 4\nab 9\nb 1\n");
        assert_eq!(after.growth(&before, "a"), Some(7.0));
        assert_eq!(after.growth(&before, "c"), None);
        let changes = after.changes_since(&before, |name| name.starts_with('a'));
        assert_eq!(changes.len(), 3);
    }
}
