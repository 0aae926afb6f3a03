//! What is left of a run: the log, read row by row once its node is down, and each device's store.

use std::{collections::HashMap, ops::ControlFlow, path::Path, process::Command};

use anyhow::{Context, bail};
use bytes::Bytes;
use talaria_client::store::Store;
use talaria_core::log::{PageQuery, ReadAnswer, ReadOp, StoredBody};
use talaria_log::{CommitLog, Family, Scan, keys::conversations::ConversationKey};
use talaria_log_rocksdb::{Options, RocksLog};
use talaria_protocol::{
    entry::EntryForm,
    ids::ConversationId,
    message::{
        Direction,
        content::{Body, Content},
    },
};

use crate::{
    check::Logged,
    history::{OpId, Shown},
};

/// The metadata key that carries a message's number in the play.
pub const OP_KEY: &str = "op";

/// Entries read at once.
const PAGE: usize = 1_000;

/// What an encoded content is in the play.
pub fn logged(seq: u64, content: Option<&Bytes>) -> Logged {
    let parsed = content.and_then(|content| Content::parse(content).ok());
    match parsed {
        Some(content) => {
            let shown = shown(seq, &content);
            Logged { seq, op: shown.op, digest: shown.digest }
        }
        None => Logged { seq, op: None, digest: [0; 32] },
    }
}

/// What a device shows of a content.
pub fn shown(seq: u64, content: &Content) -> Shown {
    let op: Option<OpId> = content
        .metadata
        .iter()
        .find(|(key, _)| key == OP_KEY)
        .and_then(|(_, value)| Some(OpId::from_be_bytes(value[..].try_into().ok()?)));
    let digest = match &content.body {
        Body::Text(text) => *blake3::hash(text.as_bytes()).as_bytes(),
        _ => [0; 32],
    };
    Shown { seq, op, digest }
}

/// What `talaria log verify` finds; nothing: it is clean.
pub fn log_verify(talaria: &Path, data_dir: &Path) -> anyhow::Result<Vec<String>> {
    let output = Command::new(talaria).args(["log", "verify", "--data-dir"]).arg(data_dir).output()?;
    if output.status.success() {
        return Ok(vec![]);
    }
    let said = [output.stdout, output.stderr].concat();
    Ok(String::from_utf8_lossy(&said).lines().map(str::to_owned).collect())
}

/// Everything that the log of a stopped node holds.
pub fn read_log(data_dir: &Path) -> anyhow::Result<HashMap<ConversationId, Vec<Logged>>> {
    let log = RocksLog::open_read_only(data_dir.join("log"), &Options::default())?;
    let mut conversations = Vec::new();
    log.view().scan(Family::Conversations, &Scan::all(), &mut |key, _| {
        conversations.push(ConversationKey::decode(key));
        ControlFlow::Continue(())
    })?;
    let mut entries = HashMap::new();
    for key in conversations {
        let id = key.context("a key of the log")?.conversation;
        entries.insert(id, read_conversation(&log, id)?);
    }
    Ok(entries)
}

fn read_conversation(log: &dyn CommitLog, conversation: ConversationId) -> anyhow::Result<Vec<Logged>> {
    let mut all: Vec<Logged> = Vec::new();
    loop {
        let from = all.last().map_or(1, |last| last.seq + 1);
        let direction = Direction::Forward;
        let query = PageQuery { conversation, from, direction, entries_max: PAGE, bytes_max: usize::MAX };
        let ReadAnswer::Page { entries, .. } = talaria_log::read(log, &ReadOp::Page(query))? else {
            bail!("the log answered a page with something else");
        };
        if entries.is_empty() {
            return Ok(all);
        }
        all.extend(entries.iter().map(|entry| match &entry.body {
            StoredBody::Kept { content, .. } => logged(entry.seq, Some(content)),
            StoredBody::Erased { .. } => logged(entry.seq, None),
        }));
    }
}

/// Everything that a device's store holds of a conversation.
pub fn read_store(store: &dyn Store, conversation: ConversationId) -> anyhow::Result<Vec<Logged>> {
    let mut all: Vec<Logged> = Vec::new();
    loop {
        let from = all.last().map_or(1, |last| last.seq + 1);
        let entries = store.entries(conversation, from, PAGE)?;
        if entries.is_empty() {
            return Ok(all);
        }
        all.extend(entries.iter().map(|held| match &held.entry.form {
            EntryForm::Full { content, .. } => logged(held.entry.seq, content.as_ref()),
            _ => logged(held.entry.seq, None),
        }));
    }
}
