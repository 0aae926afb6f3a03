//! Which entries are old enough to go. A sweep looks at some conversations a call, in the order of their keys, and says
//! for each where it should begin; it writes nothing: the conversation's shard makes the cut ([`LogOp::Cut`]), and the
//! store gives the space back when it compacts. A conversation that cannot be read is named and passed over.
//!
//! A conversation always keeps its last entry. Cuts are coarse ([`CUT_PART`], [`CUT_ENTRIES`]), so that a conversation
//! in steady use is not rewritten for every entry that comes.
//!
//! [`LogOp::Cut`]: talaria_core::log::LogOp::Cut

use bytes::Bytes;
use talaria_core::log::{ConversationRow, Heads, Retention};
use talaria_protocol::{hlc::Hlc, ids::ConversationId};

use crate::{
    commit_log::{Scan, View, Visit},
    error::ReadError,
    keys::{ConversationKey, EntryKey, Family},
    read::{chain_at, entry, scan},
    record,
};

/// A cut takes at least one in so many of the entries that a conversation has, or [`CUT_ENTRIES`] if that is less. So
/// many entries, less one, may be kept too long.
pub const CUT_PART: u64 = 16;
/// See [`CUT_PART`].
pub const CUT_ENTRIES: u64 = 64;

/// What is kept. Without either limit everything is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Policy {
    /// Entries older than this may go, by their stamps, ms.
    pub age_ms_max: Option<u64>,
    /// Of each conversation the last so many entries stay; 0 counts as 1.
    pub entries_max: Option<u64>,
}

impl Policy {
    /// Nothing ever goes.
    pub fn keeps_all(&self) -> bool {
        self.age_ms_max.is_none() && self.entries_max.is_none()
    }
}

/// What one call found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sweep {
    /// Conversations to cut.
    pub cuts: Vec<Retention>,
    /// Conversations that could not be read; nothing of them goes.
    pub failed: Vec<(ConversationId, ReadError)>,
    /// Go on after this one; `None`: that was all.
    pub next: Option<ConversationId>,
}

/// Looks at up to `conversations_max` conversations after `after` (`None`: from the first). Costs each of them the read
/// of its row, and where something may go of at most 2 + log2(entries) entries.
///
/// # Errors
/// The list of conversations cannot be read.
pub fn sweep(
    view: &dyn View,
    policy: &Policy,
    now_ms: u64,
    after: Option<ConversationId>,
    conversations_max: usize,
) -> Result<Sweep, ReadError> {
    let mut sweep = Sweep::default();
    if policy.keeps_all() {
        return Ok(sweep);
    }
    let mut range = Scan::all();
    if let Some(conversation) = after {
        // The least key after this one.
        range.start = [&ConversationKey { conversation }.encode()[..], &[0]].concat();
    }
    let (mut looked_at, mut last) = (0, after);
    scan(view, Family::Conversations, &range, |key, value| {
        if looked_at >= conversations_max {
            sweep.next = last;
            return Ok::<_, ReadError>(Visit::Break(()));
        }
        looked_at += 1;
        let key = ConversationKey::decode(key)?;
        last = Some(key.conversation);
        match of_row(view, policy, now_ms, &key, value) {
            Ok(cut) => sweep.cuts.extend(cut),
            Err(error) => sweep.failed.push((key.conversation, error)),
        }
        Ok(Visit::Continue(()))
    })?;
    Ok(sweep)
}

fn of_row(
    view: &dyn View,
    policy: &Policy,
    now_ms: u64,
    key: &ConversationKey,
    value: &[u8],
) -> Result<Option<Retention>, ReadError> {
    let conversation = key.conversation;
    let row = record::conversation::decode(key, Bytes::copy_from_slice(value))?;
    let first_seq = first_to_keep(view, policy, now_ms, conversation, &row)?;
    if !is_worth_it(&row.heads, first_seq) {
        return Ok(None);
    }
    let chain_before = chain_at(view, conversation, &row, first_seq - 1)?;
    Ok(Some(Retention { conversation, first_seq, chain_before }))
}

/// Enough goes.
fn is_worth_it(heads: &Heads, first_seq: u64) -> bool {
    let kept = heads.head.saturating_add(1).saturating_sub(heads.first_seq);
    let goes = first_seq.saturating_sub(heads.first_seq);
    goes > 0 && goes >= kept.div_ceil(CUT_PART).min(CUT_ENTRIES)
}

/// In `first_seq..=head`.
fn first_to_keep(
    view: &dyn View,
    policy: &Policy,
    now_ms: u64,
    id: ConversationId,
    row: &ConversationRow,
) -> Result<u64, ReadError> {
    let (first, head) = (row.heads.first_seq, row.heads.head);
    let by_count =
        policy.entries_max.map_or(first, |most| head.saturating_add(1).saturating_sub(most.max(1)));
    let by_count = by_count.clamp(first.min(head), head);
    let Some(age_ms_max) = policy.age_ms_max else { return Ok(by_count) };
    let oldest = Hlc::from_ms(now_ms.saturating_sub(age_ms_max));
    if row.heads.hlc < oldest {
        return Ok(head);
    }
    first_not_before(view, id, by_count..=head, oldest)
}

/// The first of these seqs whose stamp is not before `oldest`, the last if there is none before it: stamps ascend.
fn first_not_before(
    view: &dyn View,
    id: ConversationId,
    seqs: std::ops::RangeInclusive<u64>,
    oldest: Hlc,
) -> Result<u64, ReadError> {
    let (mut low, mut high) = seqs.into_inner();
    let head = high;
    let is_old = |seq: u64| -> Result<bool, ReadError> {
        let key = EntryKey { conversation: id, seq };
        let missing = ReadError::MissingEntry { conversation: id, seq, head };
        let entry = entry(view, &key)?.ok_or(missing)?;
        Ok(record::entry::header(&key, &entry.header)?.hlc < oldest)
    };
    // Most conversations have nothing old: one read tells.
    if low == high || !is_old(low)? {
        return Ok(low);
    }
    low += 1;
    while low < high {
        let middle = low + (high - low) / 2;
        if is_old(middle)? { low = middle + 1 } else { high = middle }
    }
    Ok(low)
}

#[cfg(test)]
mod tests;
