//! A client's side of credit: how much the server may send, how much came, and when to grant more. spec/delivery.md.

use crate::{
    entry::Entry,
    limits::ENTRY_BYTES_MAX,
    message::{Credit, server::ServerFrame},
};

/// A grant is renewed when this part of its window is consumed.
const CREDIT_RENEWAL_PARTS: u64 = 4;

/// What the server may send, and what of it came and was consumed.
#[derive(Debug)]
pub(super) struct CreditWindow {
    pub(super) window: Credit,
    pub(super) received: Credit,
    pub(super) consumed: Credit,
    pub(super) granted: Credit,
}

impl CreditWindow {
    /// Entries that a frame brings. False when they are more than was granted ([DLV-25]): this bounds what a client
    /// holds, also of entries that came before those before them.
    pub(super) fn receive(&mut self, frame: &ServerFrame) -> bool {
        let entries = match frame {
            ServerFrame::Deliver { entry, .. } => std::slice::from_ref(entry),
            ServerFrame::HistoryPage(page) => page.entries.as_slice(),
            _ => return true,
        };
        let bytes: usize = entries.iter().map(Entry::encoded_len).sum();
        self.received.entries = self.received.entries.saturating_add(entries.len() as u64);
        self.received.bytes = self.received.bytes.saturating_add(bytes as u64);
        self.received.entries <= self.granted.entries && self.received.bytes <= self.granted.bytes
    }

    /// The next grant, once enough of the last one is consumed: a part of the window, or so much that the largest
    /// entry would not fit.
    pub(super) fn renew(&mut self) -> Option<Credit> {
        let next = Credit {
            entries: self.consumed.entries.saturating_add(self.window.entries),
            bytes: self.consumed.bytes.saturating_add(self.window.bytes),
        };
        // Nothing when the window was cut below the first grant, until that is consumed.
        let gain = Credit {
            entries: next.entries.saturating_sub(self.granted.entries),
            bytes: next.bytes.saturating_sub(self.granted.bytes),
        };
        let left_bytes = self.window.bytes.saturating_sub(gain.bytes);
        let due = gain.entries > self.window.entries / CREDIT_RENEWAL_PARTS
            || gain.bytes > self.window.bytes / CREDIT_RENEWAL_PARTS
            || (gain.bytes > 0 && left_bytes < ENTRY_BYTES_MAX as u64);
        if !due {
            return None;
        }
        self.granted = Credit {
            entries: self.granted.entries.max(next.entries),
            bytes: self.granted.bytes.max(next.bytes),
        };
        Some(self.granted)
    }
}
