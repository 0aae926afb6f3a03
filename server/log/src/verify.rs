//! Proves a log, on a node that is stopped: that every conversation is dense and chained, that its heads are its last
//! entry, and that the rows that are written together are there together. Reads everything once, in the order of
//! keys, in memory that does not grow with the log; writes nothing. What is wrong is a [`Finding`] that names
//! conversation and seq, and verification goes on with the next conversation.

mod conversation;
mod rows;

use std::fmt;

use talaria_protocol::ids::ConversationId;

use crate::{
    commit_log::{CommitLog, View},
    error::ReadError,
    keys::MetaKey,
    open::{OpenError, stored},
};

/// Findings that a report keeps; of more it only keeps the number.
pub const FINDINGS_MAX: usize = 1_000;

/// Something that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// Where; `None`: in no conversation.
    pub conversation: Option<ConversationId>,
    /// The entry that it is about.
    pub seq: Option<u64>,
    /// What is wrong.
    pub what: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(conversation) = self.conversation {
            write!(f, "conversation {conversation} ")?;
        }
        if let Some(seq) = self.seq {
            write!(f, "seq {seq} ")?;
        }
        f.write_str(&self.what)
    }
}

/// What a verification saw.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Conversations.
    pub conversations: u64,
    /// Entries that are there.
    pub entries: u64,
    /// Conversations that do not begin at seq 1 any more.
    pub truncated: u64,
    /// Entries that those had before: `first_seq - 1` of each.
    pub cut: u64,
    /// Entries whose (sender, client message id) another entry of the conversation has; each is a finding too.
    pub duplicates: u64,
    /// At most [`FINDINGS_MAX`].
    pub findings: Vec<Finding>,
    /// Findings beyond those.
    pub more: u64,
}

impl Report {
    /// Nothing is wrong.
    pub fn is_good(&self) -> bool {
        self.findings.is_empty()
    }

    fn add(&mut self, conversation: Option<ConversationId>, seq: Option<u64>, what: impl Into<String>) {
        if self.findings.len() < FINDINGS_MAX {
            self.findings.push(Finding { conversation, seq, what: what.into() });
        } else {
            self.more += 1;
        }
    }
}

/// Lines for `talaria log verify`: findings, then the counts.
impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.findings.iter().try_for_each(|finding| writeln!(f, "{finding}"))?;
        if self.more > 0 {
            writeln!(f, "… and {} more", self.more)?;
        }
        let Self { conversations, entries, duplicates, .. } = self;
        let verdict = if self.is_good() { "ok" } else { "DAMAGED" };
        let findings = self.findings.len() as u64 + self.more;
        write!(
            f,
            "{verdict}: {conversations} conversations, {entries} entries, {duplicates} duplicates, {findings} findings"
        )?;
        match (self.truncated, self.cut) {
            (0, _) => Ok(()),
            (truncated, cut) => write!(f, "; retention took {cut} entries of {truncated} conversations"),
        }
    }
}

/// Verifies all of a log.
///
/// # Errors
/// The list of conversations cannot be read, so nothing can be said of the rest. A failed read elsewhere is a
/// finding.
pub fn verify(log: &dyn CommitLog) -> Result<Report, ReadError> {
    let view = &*log.view();
    let mut report = Report::default();
    let last_commit = verify_meta(view, &mut report)?;
    conversation::verify_all(view, last_commit, &mut report)?;
    rows::verify_orphans(view, &mut report);
    rows::verify_by_user(view, &mut report);
    rows::verify_devices(view, &mut report);
    Ok(report)
}

/// Number of the last commit; `None` when `meta` does not say.
fn verify_meta(view: &dyn View, report: &mut Report) -> Result<Option<u64>, ReadError> {
    match stored(view) {
        Ok(Some(info)) => return Ok(Some(info.commit)),
        Ok(None) => {
            let name = String::from_utf8_lossy(MetaKey::Format.encode());
            report.add(None, None, format!("meta {name:?} is missing: an empty log, or a damaged one"));
        }
        Err(OpenError::Read(error @ ReadError::Store { .. })) => return Err(error),
        Err(error) => report.add(None, None, error.to_string()),
    }
    Ok(None)
}

#[cfg(test)]
mod tests;
