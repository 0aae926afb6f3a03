//! One conversation after the other: its heads, its entries in order, and the rows that belong to them.

use bytes::Bytes;
use talaria_core::log::{ConversationRow, Epoch, StoredEntry};
use talaria_protocol::{
    chain::Chain,
    entry::{EntryHeader, EntryKind},
    hlc::Hlc,
    ids::ConversationId,
    limits::DEDUP_WINDOW,
};

use super::{Report, rows};
use crate::{
    commit_log::{Scan, View, Visit},
    error::ReadError,
    keys::{ClientIdKey, ConversationKey, EntryKey, Family},
    read::{client_id, entry, scan},
    record,
};

/// Verifies every conversation that has heads.
pub(super) fn verify_all(
    view: &dyn View,
    last_commit: Option<u64>,
    report: &mut Report,
) -> Result<(), ReadError> {
    scan(view, Family::Conversations, &Scan::all(), |key, value| {
        report.conversations += 1;
        let parsed = ConversationKey::decode(key).map_err(ReadError::from).and_then(|key| {
            let row = record::conversation::decode(&key, Bytes::copy_from_slice(value))?;
            Ok((key.conversation, row))
        });
        match parsed {
            Ok((id, row)) => verify_conversation(view, id, &row, last_commit, report),
            Err(error) => report.add(
                ConversationKey::decode(key).ok().map(|key| key.conversation),
                None,
                error.to_string(),
            ),
        }
        Ok(Visit::Continue(()))
    })
}

fn verify_conversation(
    view: &dyn View,
    id: ConversationId,
    row: &ConversationRow,
    last_commit: Option<u64>,
    report: &mut Report,
) {
    if last_commit.is_some_and(|last| row.commit > last) {
        report.add(Some(id), None, format!("was appended to in commit {}, after the last one", row.commit));
    }
    let cut = row.heads.first_seq - 1;
    report.truncated += u64::from(cut > 0);
    report.cut += cut;
    let mut walk = Walk::new(view, id, row, report);
    if let Err(error) = walk.entries() {
        walk.add(None, error.to_string());
    }
    walk.finish();
    rows::verify_client_ids(view, id, row, report);
    rows::verify_members(view, id, row, report);
    rows::verify_cursors(view, id, row, report);
}

/// The walk over the entries of one conversation.
struct Walk<'a> {
    view: &'a dyn View,
    id: ConversationId,
    row: &'a ConversationRow,
    report: &'a mut Report,
    /// The next seq, and what the entries before it give.
    seq: u64,
    /// `None` once a link could not be checked: the next one begins anew.
    chain: Option<Chain>,
    ordinal: Option<u64>,
    epoch: u64,
    hlc: Option<Hlc>,
}

impl<'a> Walk<'a> {
    fn new(view: &'a dyn View, id: ConversationId, row: &'a ConversationRow, report: &'a mut Report) -> Self {
        let seq = row.heads.first_seq;
        let ordinal = (seq == 1).then_some(0);
        Self { view, id, row, report, seq, chain: Some(row.heads.first_chain), ordinal, epoch: 0, hlc: None }
    }

    fn add(&mut self, seq: impl Into<Option<u64>>, what: impl Into<String>) {
        self.report.add(Some(self.id), seq.into(), what);
    }

    fn entries(&mut self) -> Result<(), ReadError> {
        let range = Scan::prefix(&EntryKey::prefix(self.id));
        scan(self.view, Family::Entries, &range, |key, value| {
            self.report.entries += 1;
            match EntryKey::decode(key) {
                Ok(key) => self.entry(&key, value)?,
                Err(error) => self.add(None, error.to_string()),
            }
            Ok(Visit::Continue(()))
        })
    }

    fn entry(&mut self, key: &EntryKey, value: &[u8]) -> Result<(), ReadError> {
        if key.seq < self.row.heads.first_seq {
            self.add(key.seq, "is below first_seq");
            return Ok(());
        }
        if key.seq > self.row.heads.head {
            self.add(key.seq, "is beyond the head");
            return Ok(());
        }
        self.skip_to(key.seq);
        let parsed = record::entry::decode(key, Bytes::copy_from_slice(value))
            .and_then(|entry| record::entry::header(key, &entry.header).map(|header| (entry, header)));
        match parsed {
            Ok((entry, header)) => {
                self.link(&entry);
                self.header(&header);
                self.id_row(&header)?;
            }
            Err(error) => {
                self.add(key.seq, error.what);
                (self.chain, self.ordinal) = (None, None);
            }
        }
        self.seq = key.seq + 1;
        Ok(())
    }

    /// Seqs before this one that were not there.
    fn skip_to(&mut self, seq: u64) {
        if self.seq < seq {
            let last = seq - 1;
            let what =
                if self.seq == last { "is missing".to_owned() } else { format!("to {last} are missing") };
            self.add(self.seq, what);
            (self.chain, self.ordinal) = (None, None);
            self.seq = seq;
        }
    }

    fn link(&mut self, entry: &StoredEntry) {
        let epoch = self.row.heads.epochs.iter().find(|epoch| epoch.first_seq == entry.seq);
        if let (Some(epoch), Some(chain)) = (epoch, self.chain)
            && epoch.chain_before != chain
        {
            self.add(entry.seq, "begins an epoch whose chain_before is not the chain before it");
        }
        if let Some(before) = self.chain
            && before.next(self.id, entry.seq, &entry.leaf()) != entry.chain
        {
            self.add(entry.seq, "is not what its chain was made of: header, content or salt were changed");
        }
        self.chain = Some(entry.chain);
    }

    fn header(&mut self, header: &EntryHeader) {
        let seq = header.seq;
        let is_message = header.kind == EntryKind::Message;
        if let Some(before) = self.ordinal
            && header.ordinal != before + u64::from(is_message)
        {
            self.add(seq, format!("has ordinal {}, after {before}", header.ordinal));
        }
        self.ordinal = Some(header.ordinal);
        if header.epoch < self.epoch {
            self.add(seq, format!("has epoch {}, after {}", header.epoch, self.epoch));
        }
        self.epoch = header.epoch;
        let listed = epoch_at(&self.row.heads.epochs, seq);
        if listed != Some(header.epoch) {
            self.add(seq, format!("has epoch {}, the conversation's list says {listed:?}", header.epoch));
        }
        if let Some(before) = self.hlc
            && header.hlc <= before
        {
            self.add(seq, format!("has hlc {}, after {}", header.hlc.0, before.0));
        }
        self.hlc = Some(header.hlc);
    }

    /// Each entry has the row of its id, and no other entry has the same.
    fn id_row(&mut self, header: &EntryHeader) -> Result<(), ReadError> {
        let (sender, id) = (header.sender, header.client_message_id);
        let row = match client_id(self.view, &ClientIdKey { conversation: self.id, user: sender, id }) {
            Ok(row) => row,
            // Reported where all rows of ids are read.
            Err(ReadError::Record(_)) => return Ok(()),
            Err(error) => return Err(error),
        };
        let window_ms = DEDUP_WINDOW.as_millis() as u64;
        match row {
            Some(row) if row.seq == header.seq => {}
            Some(row) => {
                if self.has_same_id(row.seq, header)? {
                    self.report.duplicates += 1;
                    self.add(
                        header.seq,
                        format!("is a duplicate: seq {} has the same sender and id {id}", row.seq),
                    );
                } else {
                    self.add(header.seq, format!("has id {id}, which client_ids gives to seq {}", row.seq));
                }
            }
            None if id.unix_ms() + window_ms < self.row.heads.hlc.unix_ms() => {}
            None => self.add(header.seq, format!("has id {id}, which client_ids does not have")),
        }
        Ok(())
    }

    fn has_same_id(&self, seq: u64, header: &EntryHeader) -> Result<bool, ReadError> {
        let key = EntryKey { conversation: self.id, seq };
        let Some(other) = entry(self.view, &key)? else {
            return Ok(false);
        };
        let other = record::entry::header(&key, &other.header)?;
        Ok(other.sender == header.sender && other.client_message_id == header.client_message_id)
    }

    /// The heads are those of the last entry.
    fn finish(&mut self) {
        let heads = &self.row.heads;
        self.skip_to(heads.head + 1);
        if self.chain.is_some_and(|chain| chain != heads.chain) {
            self.add(heads.head, "the head's chain is not this entry's");
        }
        if self.ordinal.is_some_and(|ordinal| ordinal != heads.ordinal) {
            self.add(heads.head, format!("the head's ordinal {} is not this entry's", heads.ordinal));
        }
        if self.chain.is_some() && self.hlc.is_some_and(|hlc| hlc != heads.hlc) {
            self.add(heads.head, "the head's hlc is not this entry's");
        }
    }
}

/// The epoch that a list has at a seq.
pub(super) fn epoch_at(epochs: &[Epoch], seq: u64) -> Option<u64> {
    epochs.iter().rev().find(|epoch| epoch.first_seq <= seq).map(|epoch| epoch.epoch)
}
