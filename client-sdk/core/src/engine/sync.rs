//! What changed while this device was away: the pages of one `Sync`, and when its token may be kept.

use std::collections::{BTreeMap, BTreeSet};

use talaria_protocol::{
    ids::ConversationId,
    message::{ConversationState, PageToken, SyncToken, client::Request},
    session::Millis,
};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// The next page is to be asked for.
    Wanted { not_before: Millis },
    /// It was.
    Asked,
    /// All pages came.
    Listed,
    /// All that was listed is held.
    Held,
}

/// One connection's sync.
#[derive(Debug)]
pub(super) struct Sync {
    phase: Phase,
    page: PageToken,
    offered: Option<SyncToken>,
    first: Option<(SyncToken, bool)>,
    /// Heads that are listed and not held.
    missing: BTreeMap<ConversationId, u64>,
    /// Cursors that moved since the first page was asked for: perhaps beyond the commit of its token.
    moved: BTreeSet<ConversationId>,
}

impl Sync {
    pub(super) fn new(offered: Option<SyncToken>) -> Self {
        Self {
            phase: Phase::Wanted { not_before: Millis::default() },
            page: PageToken::new(),
            offered,
            first: None,
            missing: BTreeMap::new(),
            moved: BTreeSet::new(),
        }
    }

    /// The first page has come: it is known whether the log went back.
    pub(super) fn is_answered(&self) -> bool {
        self.first.is_some()
    }

    /// No token of this log was offered: every cursor is to be ([DLV-32]).
    fn is_reset(&self) -> bool {
        self.first.is_some_and(|(_, reset)| reset || self.offered.is_none())
    }

    /// The log was opened again since the offered token: it may have gone back, also to after that token's commit.
    pub(super) fn is_reopened(&self) -> bool {
        self.is_reset()
            || matches!((self.first, self.offered), (Some((first, _)), Some(offered)) if first.boot_id != offered.boot_id)
    }

    /// Whether the log may have gone back to before this cursor. `moved`: those that moved since the offered token;
    /// `None`: that is not known.
    pub(super) fn is_doubted(
        &self,
        conversation: ConversationId,
        moved: Option<&BTreeSet<ConversationId>>,
    ) -> bool {
        self.is_reset() || (self.is_reopened() && moved.is_none_or(|moved| moved.contains(&conversation)))
    }

    pub(super) fn next_request(&self, now: Millis) -> Option<Request> {
        match self.phase {
            Phase::Wanted { not_before } if not_before <= now => {
                Some(Request::Sync { token: self.offered, page: self.page.clone() })
            }
            _ => None,
        }
    }

    pub(super) fn on_asked(&mut self) {
        self.phase = Phase::Asked;
    }

    /// A page was refused: from the first one again.
    pub(super) fn on_refused(&mut self, not_before: Millis) {
        self.page = PageToken::new();
        self.phase = Phase::Wanted { not_before };
    }

    /// A page has come. `held` says what is applied of a conversation.
    pub(super) fn on_page(
        &mut self,
        token: SyncToken,
        reset: bool,
        conversations: &[ConversationState],
        next_page: PageToken,
        held: impl Fn(ConversationId) -> u64,
    ) {
        if self.page.is_empty() {
            self.first = Some((token, reset));
        }
        let missing = conversations.iter().filter(|state| state.head > held(state.conversation));
        self.missing.extend(missing.map(|state| (state.conversation, state.head)));
        self.phase = match next_page.is_empty() {
            true => Phase::Listed,
            false => Phase::Wanted { not_before: Millis::default() },
        };
        self.page = next_page;
    }

    /// This much is applied of a conversation, or all that there is (`u64::MAX`).
    pub(super) fn on_applied(&mut self, conversation: ConversationId, seq: u64) {
        if seq != u64::MAX {
            self.moved.insert(conversation);
        }
        if self.missing.get(&conversation).is_some_and(|head| *head <= seq) {
            self.missing.remove(&conversation);
        }
    }

    /// The token, once: when all that was listed is applied. It is to be stored with or after that. With it, what has
    /// moved since.
    pub(super) fn take_token(&mut self) -> Option<(SyncToken, BTreeSet<ConversationId>)> {
        if self.phase != Phase::Listed || !self.missing.is_empty() {
            return None;
        }
        self.phase = Phase::Held;
        self.first.map(|(token, _)| (token, std::mem::take(&mut self.moved)))
    }

    pub(super) fn poll_timeout(&self, now: Millis) -> Option<Millis> {
        match self.phase {
            Phase::Wanted { not_before } if not_before > now => Some(not_before),
            _ => None,
        }
    }
}
