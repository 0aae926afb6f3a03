//! Answers the domain's reads. Each answer is of one view, so of one moment. Values are parsed and entries must be
//! dense: what is not is an error, never a shorter answer. Hashes are not recomputed here, that would double the cost
//! of catch-up; [`crate::verify()`] and every client do it.

mod recent;

use bytes::Bytes;
use talaria_core::log::{
    Accepted, ConversationRow, MemberRow, PageQuery, ReadAnswer, ReadOp, StoredBody, StoredEntry,
    UserConversation,
};
use talaria_protocol::{
    chain::Chain,
    ids::{ClientMessageId, ConversationId, DeviceId, UserId},
    message::{ConversationKind, Direction},
};

use crate::{
    commit_log::{CommitLog, Scan, View, Visit},
    error::{ReadError, RecordError},
    keys::{
        ClientIdKey, ConversationKey, CursorKey, DeviceKey, EntryKey, Family, MemberByUserKey, MemberKey,
        MetaKey, UserKey,
    },
    record,
};

/// A read of a user's conversations looks at no more than this many times the rows that it may answer.
pub const SCANNED_PER_ROW_MAX: usize = 8;

/// Answers one read.
///
/// # Errors
/// The store failed, or what it holds is damaged.
pub fn read(log: &dyn CommitLog, op: &ReadOp) -> Result<ReadAnswer, ReadError> {
    let view = &*log.view();
    match op {
        ReadOp::Conversation(conversation) => read_conversation(view, *conversation),
        ReadOp::Dedup { conversation, user, ids } => read_dedup(view, *conversation, *user, ids),
        ReadOp::Page(query) => read_page(view, query),
        ReadOp::ResumePoint { conversation, seq, user, device } => {
            let key = CursorKey { conversation: *conversation, user: *user, device: *device };
            read_resume_point(view, *seq, &key)
        }
        ReadOp::UserConversations { user, after, since_commit, rows_max } => {
            read_user_conversations(view, *user, *after, *since_commit, *rows_max)
        }
        ReadOp::RecentConversations { user, before, rows_max } => {
            recent::read_recent(view, *user, *before, *rows_max)
        }
        ReadOp::User { user, device } => read_user(view, *user, *device),
    }
}

/// Shows rows to a visitor that may fail; the first failure ends the scan.
pub(crate) fn scan<E: From<ReadError>>(
    view: &dyn View,
    family: Family,
    range: &Scan,
    mut visit: impl FnMut(&[u8], &[u8]) -> Result<Visit, E>,
) -> Result<(), E> {
    let mut failed = None;
    view.scan(family, range, &mut |key, value| match visit(key, value) {
        Ok(visit) => visit,
        Err(error) => {
            failed = Some(error);
            Visit::Break(())
        }
    })?;
    failed.map_or(Ok(()), Err)
}

/// Heads and commit of a conversation.
pub(crate) fn conversation(
    view: &dyn View,
    conversation: ConversationId,
) -> Result<Option<ConversationRow>, ReadError> {
    let key = ConversationKey { conversation };
    let value = view.get(Family::Conversations, &key.encode())?;
    Ok(value.map(|value| record::conversation::decode(&key, value)).transpose()?)
}

/// One row of a member.
pub(crate) fn member(view: &dyn View, key: &MemberKey) -> Result<Option<MemberRow>, ReadError> {
    let value = view.get(Family::Members, &key.encode())?;
    Ok(value.map(|value| record::member::decode(key, value)).transpose()?)
}

/// One entry.
pub(crate) fn entry(view: &dyn View, key: &EntryKey) -> Result<Option<StoredEntry>, ReadError> {
    let value = view.get(Family::Entries, &key.encode())?;
    Ok(value.map(|value| record::entry::decode(key, value)).transpose()?)
}

/// What an accepted id stands for.
pub(crate) fn client_id(view: &dyn View, key: &ClientIdKey) -> Result<Option<Accepted>, ReadError> {
    let value = view.get(Family::ClientIds, &key.encode())?;
    Ok(value.map(|value| record::client_id::decode(key, value)).transpose()?)
}

fn members(view: &dyn View, conversation: ConversationId) -> Result<Vec<(UserId, MemberRow)>, ReadError> {
    let mut rows = Vec::new();
    scan(view, Family::Members, &Scan::prefix(&MemberKey::prefix(conversation)), |key, value| {
        let key = MemberKey::decode(key)?;
        rows.push((key.user, record::member::decode(&key, Bytes::copy_from_slice(value))?));
        Ok::<_, ReadError>(Visit::Continue(()))
    })?;
    Ok(rows)
}

fn read_conversation(view: &dyn View, id: ConversationId) -> Result<ReadAnswer, ReadError> {
    let Some(row) = conversation(view, id)? else {
        return Ok(ReadAnswer::Conversation(None));
    };
    Ok(ReadAnswer::Conversation(Some((row, members(view, id)?))))
}

fn read_dedup(
    view: &dyn View,
    conversation: ConversationId,
    user: UserId,
    ids: &[ClientMessageId],
) -> Result<ReadAnswer, ReadError> {
    let mut highest = None;
    let of_user = Scan::prefix(&ClientIdKey::user_prefix(conversation, user)).backward();
    scan(view, Family::ClientIds, &of_user, |key, _| {
        highest = Some(ClientIdKey::decode(key)?.id);
        Ok::<_, ReadError>(Visit::Break(()))
    })?;
    let mut found = Vec::new();
    for &id in ids {
        if let Some(accepted) = client_id(view, &ClientIdKey { conversation, user, id })? {
            found.push((id, accepted));
        }
    }
    Ok(ReadAnswer::Dedup { highest, found })
}

fn read_page(view: &dyn View, query: &PageQuery) -> Result<ReadAnswer, ReadError> {
    let id = query.conversation;
    let Some(row) = conversation(view, id)? else {
        return Ok(ReadAnswer::Page { chain_before: Chain::ZERO, entries: Vec::new() });
    };
    let (first, head) = (row.heads.first_seq, row.heads.head);
    let mut page = PageBuilder { query, head, bytes: 0, entries: Vec::new() };
    let before = match query.direction {
        Direction::Forward => {
            let from = query.from.clamp(first, head + 1);
            page.collect(view, from, head)?;
            from - 1
        }
        Direction::Backward => {
            let from = query.from.min(head);
            page.collect(view, first, from)?;
            page.entries.last().map_or(from.max(first - 1), |oldest| oldest.seq - 1)
        }
    };
    let chain_before = chain_at(view, id, &row, before)?;
    Ok(ReadAnswer::Page { chain_before, entries: page.ascending() })
}

/// chain(seq), where `seq` is in `first_seq - 1..=head`: at most one read.
pub(crate) fn chain_at(
    view: &dyn View,
    id: ConversationId,
    row: &ConversationRow,
    seq: u64,
) -> Result<Chain, ReadError> {
    let heads = &row.heads;
    if seq == heads.first_seq - 1 {
        return Ok(heads.first_chain);
    }
    if seq == heads.head {
        return Ok(heads.chain);
    }
    if let Some(epoch) = heads.epochs.iter().find(|epoch| epoch.first_seq == seq + 1) {
        return Ok(epoch.chain_before);
    }
    match entry(view, &EntryKey { conversation: id, seq })? {
        Some(entry) => Ok(entry.chain),
        None => Err(ReadError::MissingEntry { conversation: id, seq, head: heads.head }),
    }
}

struct PageBuilder<'a> {
    query: &'a PageQuery,
    head: u64,
    bytes: usize,
    entries: Vec<StoredEntry>,
}

impl PageBuilder<'_> {
    /// Reads `low..=high` in the query's direction until the page is full. A seq that is not there is an error.
    fn collect(&mut self, view: &dyn View, low: u64, high: u64) -> Result<(), ReadError> {
        if low > high || self.is_full() {
            return Ok(());
        }
        let id = self.query.conversation;
        let key = |seq| EntryKey { conversation: id, seq }.encode();
        let range = Scan::range(&key(low), &key(high + 1));
        let forward = self.query.direction == Direction::Forward;
        let (range, mut expected, last) =
            if forward { (range, low, high) } else { (range.backward(), high, low) };
        let missing = |seq, head| ReadError::MissingEntry { conversation: id, seq, head };
        let mut done = false;
        scan(view, Family::Entries, &range, |key, value| {
            let key = EntryKey::decode(key)?;
            if key.seq != expected {
                return Err(missing(expected, self.head));
            }
            self.push(record::entry::decode(&key, Bytes::copy_from_slice(value))?);
            done = expected == last || self.is_full();
            expected = if forward { expected + 1 } else { expected - 1 };
            Ok(if done { Visit::Break(()) } else { Visit::Continue(()) })
        })?;
        if done { Ok(()) } else { Err(missing(expected, self.head)) }
    }

    fn push(&mut self, entry: StoredEntry) {
        let content = match &entry.body {
            StoredBody::Kept { content, .. } => content.len(),
            StoredBody::Erased { .. } => 0,
        };
        self.bytes += entry.header.len() + content;
        self.entries.push(entry);
    }

    fn is_full(&self) -> bool {
        self.entries.len() >= self.query.entries_max || self.bytes >= self.query.bytes_max
    }

    fn ascending(self) -> Vec<StoredEntry> {
        let mut entries = self.entries;
        if self.query.direction == Direction::Backward {
            entries.reverse();
        }
        entries
    }
}

fn read_resume_point(view: &dyn View, seq: u64, cursor: &CursorKey) -> Result<ReadAnswer, ReadError> {
    let conversation_id = cursor.conversation;
    let row = conversation(view, conversation_id)?;
    let at = match row {
        // The end of what was cut: its chain is known, its epoch if that went on after it.
        Some(row) if seq > 0 && seq == row.heads.first_seq - 1 => {
            Some((row.heads.first_chain, row.heads.epoch_at(seq)))
        }
        Some(row) if !(row.heads.first_seq..=row.heads.head).contains(&seq) => None,
        None => None,
        Some(row) => {
            let key = EntryKey { conversation: conversation_id, seq };
            let missing =
                ReadError::MissingEntry { conversation: conversation_id, seq, head: row.heads.head };
            let entry = entry(view, &key)?.ok_or(missing)?;
            Some((entry.chain, record::entry::header(&key, &entry.header)?.epoch))
        }
    };
    let delivered = view.get(Family::Cursors, &cursor.encode())?;
    let delivered = delivered.map(|value| record::cursor::decode(cursor, value)).transpose()?;
    Ok(ReadAnswer::ResumePoint { at, delivered })
}

fn read_user_conversations(
    view: &dyn View,
    user: UserId,
    after: Option<ConversationId>,
    since_commit: u64,
    rows_max: usize,
) -> Result<ReadAnswer, ReadError> {
    let scanned_max = rows_max.saturating_mul(SCANNED_PER_ROW_MAX).max(1);
    let found = conversations_of(view, user, after, scanned_max + 1)?;
    let mut rows = Vec::new();
    let mut next = None;
    for (index, &conversation) in found.iter().enumerate() {
        if rows.len() >= rows_max || index >= scanned_max {
            next = index.checked_sub(1).map_or(after, |last| Some(found[last]));
            break;
        }
        rows.extend(user_conversation(view, user, conversation, since_commit)?);
    }
    let commit = view.get(Family::Meta, MetaKey::Commit.encode())?;
    let commit = commit.map_or(Ok(0), |value| record::meta::decode_commit(&value))?;
    Ok(ReadAnswer::UserConversations { commit, rows, next })
}

/// At most `count` conversations of a user, in the order of their keys, after `after`.
fn conversations_of(
    view: &dyn View,
    user: UserId,
    after: Option<ConversationId>,
    count: usize,
) -> Result<Vec<ConversationId>, ReadError> {
    let mut range = Scan::prefix(&MemberByUserKey::prefix(user));
    if let Some(conversation) = after {
        // The least key after this one.
        range.start = [&MemberByUserKey { user, conversation }.encode()[..], &[0]].concat();
    }
    let mut found = Vec::new();
    scan(view, Family::MembersByUser, &range, |key, _| {
        found.push(MemberByUserKey::decode(key)?.conversation);
        Ok::<_, ReadError>(if found.len() == count { Visit::Break(()) } else { Visit::Continue(()) })
    })?;
    Ok(found)
}

/// The row, unless nothing was appended since. Its stamp is that of the last entry that the user may know of.
fn user_conversation(
    view: &dyn View,
    user: UserId,
    id: ConversationId,
    since_commit: u64,
) -> Result<Option<UserConversation>, ReadError> {
    let inconsistent = |what: String| ReadError::Inconsistent { conversation: id, what };
    let mut row = conversation(view, id)?
        .ok_or_else(|| inconsistent(format!("no heads, yet members_by_user has it for user {user}")))?;
    if row.commit <= since_commit {
        return Ok(None);
    }
    let member = member(view, &MemberKey { conversation: id, user })?
        .ok_or_else(|| inconsistent(format!("no row of member {user}, yet members_by_user has it")))?;
    row.heads.hlc = recent::visible_hlc(view, id, &row, &member)?;
    let peer = match row.heads.kind {
        ConversationKind::Direct => members(view, id)?.into_iter().find(|(other, _)| *other != user),
        ConversationKind::Group => None,
    };
    let peer = peer.map(|(other, row)| (other, row.subject));
    Ok(Some(UserConversation { conversation: id, row, member, peer }))
}

fn read_user(view: &dyn View, user: UserId, device: Option<DeviceId>) -> Result<ReadAnswer, ReadError> {
    let key = UserKey { user };
    let row = view.get(Family::Users, &key.encode())?;
    let row = row.map(|value| record::user::decode(&key, value)).transpose()?;
    let device = match device {
        None => None,
        Some(device) => {
            let key = DeviceKey { user, device };
            let value = view.get(Family::Devices, &key.encode())?;
            let decode = |value| record::user::decode_device(&key, value);
            value.map(decode).transpose().map_err(|error: RecordError| ReadError::from(error))?
        }
    };
    Ok(ReadAnswer::User { row, device })
}
