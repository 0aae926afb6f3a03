//! A page of history, proven: that its entries are dense, that its hashes lead to those of the entries that the
//! store holds, and that it is what was asked for. Pages and held entries in, entries to show or the seq that does
//! not fit out.

use talaria_protocol::{chain::Chain, ids::ConversationId, message::server::HistoryPage};

use crate::{event::EntryView, store::StoredEntry};

/// Why a page is not shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HistoryMismatch {
    /// Its hashes differ from what this device holds: one of both was changed.
    #[error("history differs from what this device holds at seq {seq}")]
    Chain {
        /// The first one that differs.
        seq: u64,
    },
    /// Its entries are not dense, or one contradicts its header.
    #[error("history is broken at seq {seq}")]
    Broken {
        /// Which one.
        seq: u64,
    },
}

/// Proves a page of a conversation against the entries that are held from just before its first one to just after its
/// last one, ascending. A page that fills a gap is proven where it meets what is held: the entry before the gap, and the
/// one after it, whose hash follows from the page's last.
///
/// # Errors
/// It does not fit.
pub fn verify(
    conversation: ConversationId,
    page: &HistoryPage,
    held: &[StoredEntry],
) -> Result<Vec<EntryView>, HistoryMismatch> {
    let Some(first) = page.entries.first() else { return Ok(Vec::new()) };
    let held_chain = |seq: u64| match held.binary_search_by_key(&seq, |held| held.entry.seq) {
        Ok(index) => held.get(index).map(|held| held.chain),
        Err(_) if seq == 0 => Some(Chain::ZERO),
        Err(_) => None,
    };
    let check = |seq: u64, chain: Chain| match held_chain(seq) {
        Some(held) if held != chain => Err(HistoryMismatch::Chain { seq }),
        _ => Ok(()),
    };
    let mut chain = page.chain_before;
    check(first.seq.saturating_sub(1), chain)?;
    let mut views = Vec::with_capacity(page.entries.len());
    for (seq, entry) in (first.seq..).zip(&page.entries) {
        let broken = HistoryMismatch::Broken { seq };
        let view = EntryView::new(conversation, entry).map_err(|_| broken)?;
        if entry.seq != seq || view.header.as_ref().is_some_and(|header| header.seq != seq) {
            return Err(broken);
        }
        chain = chain.next(conversation, seq, &entry.leaf().ok_or(broken)?);
        check(seq, chain)?;
        views.push(view);
    }
    let after = first.seq + page.entries.len() as u64;
    if let Ok(index) = held.binary_search_by_key(&after, |held| held.entry.seq)
        && let Some(leaf) = held.get(index).and_then(|held| held.entry.leaf())
    {
        check(after, chain.next(conversation, after, &leaf))?;
    }
    Ok(views)
}
