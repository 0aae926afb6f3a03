//! `talaria log`: looks into the log of a stopped node, read-only. `verify` proves it; `dump` lists its entries for
//! checkers, without what they say.

use std::{
    io::{self, BufWriter, Write},
    path::PathBuf,
    process::ExitCode,
};

use anyhow::{Context, bail};
use talaria_core::log::{PageQuery, ReadAnswer, ReadOp, StoredBody, StoredEntry};
use talaria_log::{CommitLog, Family, Scan, keys::ConversationKey};
use talaria_log_rocksdb::{Options, RocksLog};
use talaria_protocol::{chain::Chain, entry::EntryHeader, ids::ConversationId, message::Direction};

use super::print_line;

/// Entries of one read.
const PAGE_ENTRIES: usize = 1_000;
/// Bytes after which a read ends.
const PAGE_BYTES: usize = 4 * 1024 * 1024;

#[derive(Debug, clap::Subcommand)]
pub(crate) enum LogCommand {
    /// Prove density, commitments and chain of every conversation. Exit 1 on findings.
    Verify(Where),
    /// List entries as lines of JSON: who, which number, digest of the content. Where retention has taken some, a line
    /// of the conversation's first_seq and the chain before it comes first.
    Dump(Dump),
}

#[derive(Debug, clap::Args)]
pub(crate) struct Where {
    /// The node's data directory.
    #[arg(long, env = "TALARIA_DATA_DIR", value_name = "DIR")]
    data_dir: PathBuf,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Dump {
    #[command(flatten)]
    place: Where,
    /// Only this conversation, 32 hex digits.
    #[arg(long, value_name = "HEX", value_parser = parse_id)]
    conversation: Option<ConversationId>,
}

impl LogCommand {
    pub(crate) fn run(self) -> anyhow::Result<ExitCode> {
        match self {
            Self::Verify(place) => verify(&place),
            Self::Dump(dump) => dump.run(),
        }
    }
}

impl Where {
    fn open(&self) -> anyhow::Result<RocksLog> {
        let path = self.data_dir.join("log");
        let log = RocksLog::open_read_only(&path, &Options::default())
            .with_context(|| format!("the log in {}", path.display()))?;
        for torn in log.torn_tails() {
            let (file, at, bytes) = (&torn.file, torn.at, torn.bytes);
            eprintln!("{file}: the last write, {bytes} bytes at {at}, was never completed; it is left out");
        }
        Ok(log)
    }
}

fn verify(place: &Where) -> anyhow::Result<ExitCode> {
    let report = talaria_log::verify(&place.open()?)?;
    print_line(&report.to_string()).context("stdout")?;
    Ok(if report.is_good() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// A line of `dump`.
#[derive(serde::Serialize)]
struct Line {
    conversation: String,
    seq: u64,
    epoch: u64,
    ordinal: u64,
    sender: String,
    device: u32,
    kind: String,
    client_message_id: String,
    /// BLAKE3 of the encoded content; null once erased.
    content_blake3: Option<String>,
    content_bytes: usize,
    chain: String,
}

/// A line of `dump` before the entries of a conversation that does not begin at seq 1 any more.
#[derive(serde::Serialize)]
struct Truncated {
    conversation: String,
    first_seq: u64,
    /// chain(first_seq - 1), from which the chains of the lines that follow can be proven.
    chain_before: String,
}

impl Dump {
    fn run(self) -> anyhow::Result<ExitCode> {
        let log = self.place.open()?;
        let conversations = match self.conversation {
            Some(conversation) => vec![conversation],
            None => conversations(&log)?,
        };
        let mut out = BufWriter::new(io::stdout().lock());
        for conversation in conversations {
            dump(&log, conversation, &mut out)?;
        }
        out.flush()?;
        Ok(ExitCode::SUCCESS)
    }
}

fn conversations(log: &dyn CommitLog) -> anyhow::Result<Vec<ConversationId>> {
    let mut found = Vec::new();
    let mut bad = None;
    log.view().scan(Family::Conversations, &Scan::all(), &mut |key, _| {
        match ConversationKey::decode(key) {
            Ok(key) => found.push(key.conversation),
            Err(error) => bad = Some(error),
        }
        std::ops::ControlFlow::Continue(())
    })?;
    bad.map_or(Ok(found), |error| Err(error.into()))
}

fn dump(log: &dyn CommitLog, conversation: ConversationId, out: &mut impl Write) -> anyhow::Result<()> {
    let mut from = 1;
    loop {
        let query = PageQuery {
            conversation,
            from,
            direction: Direction::Forward,
            entries_max: PAGE_ENTRIES,
            bytes_max: PAGE_BYTES,
        };
        let ReadAnswer::Page { chain_before, entries } = talaria_log::read(log, &ReadOp::Page(query))? else {
            bail!("a page was asked for");
        };
        let (Some(first), Some(last)) = (entries.first(), entries.last()) else { return Ok(()) };
        if from == 1 && first.seq > 1 {
            let line = Truncated {
                conversation: conversation.to_string(),
                first_seq: first.seq,
                chain_before: hex(&chain_before),
            };
            serde_json::to_writer(&mut *out, &line)?;
            out.write_all(b"\n")?;
        }
        from = last.seq + 1;
        for entry in &entries {
            serde_json::to_writer(&mut *out, &line(conversation, entry)?)?;
            out.write_all(b"\n")?;
        }
    }
}

fn line(conversation: ConversationId, entry: &StoredEntry) -> anyhow::Result<Line> {
    let header = EntryHeader::parse(&entry.header)
        .with_context(|| format!("conversation {conversation} seq {}: header", entry.seq))?;
    let content = match &entry.body {
        StoredBody::Kept { content, .. } => Some(content),
        StoredBody::Erased { .. } => None,
    };
    Ok(Line {
        conversation: conversation.to_string(),
        seq: entry.seq,
        epoch: header.epoch,
        ordinal: header.ordinal,
        sender: header.sender.to_string(),
        device: header.device,
        kind: format!("{:?}", header.kind).to_lowercase(),
        client_message_id: header.client_message_id.to_string(),
        content_blake3: content.map(|content| blake3::hash(content).to_hex().to_string()),
        content_bytes: content.map_or(0, bytes::Bytes::len),
        chain: hex(&entry.chain),
    })
}

fn hex(chain: &Chain) -> String {
    blake3::Hash::from_bytes(*chain.as_bytes()).to_hex().to_string()
}

fn parse_id(text: &str) -> Result<ConversationId, String> {
    let mistake = || format!("{text:?} is not 32 hex digits");
    let mut bytes = [0; 16];
    if text.len() != 32 || !text.is_ascii() {
        return Err(mistake());
    }
    for (byte, digits) in bytes.iter_mut().zip(text.as_bytes().chunks(2)) {
        let digits = std::str::from_utf8(digits).map_err(|_| mistake())?;
        *byte = u8::from_str_radix(digits, 16).map_err(|_| mistake())?;
    }
    Ok(ConversationId::new(bytes))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use talaria_log::{GroupCommit, MemoryLog, testing::Scenario};

    #[test]
    fn a_dump_says_where_a_truncated_conversation_begins() {
        let (log, mut group) = (MemoryLog::new(), GroupCommit::new(0));
        let mut chat = Scenario::new(1);
        let mut dumped = |op| {
            group.push(op);
            group.commit(&log);
            let mut out = Vec::new();
            dump(&log, talaria_log::testing::conversation_id(1), &mut out).unwrap();
            let lines = std::str::from_utf8(&out).unwrap().lines();
            lines.map(|line| serde_json::from_str(line).unwrap()).collect::<Vec<serde_json::Value>>()
        };
        dumped(chat.create());
        dumped(chat.message(0, "a"));
        let whole = dumped(chat.message(1, "b"));
        assert_eq!((whole.len(), &whole[0]["seq"]), (3, &1.into()));
        let cut = dumped(chat.cut(3, 3));
        assert_eq!(cut.len(), 2);
        assert_eq!((&cut[0]["first_seq"], &cut[0]["chain_before"]), (&3.into(), &whole[1]["chain"]));
        assert_eq!(cut[1], whole[2]);
    }
}
