//! Rows beside the entries: ids, members, cursors, users and devices, and rows of conversations that are not there.

use bytes::Bytes;
use talaria_core::log::ConversationRow;
use talaria_protocol::ids::{ConversationId, UserId};

use super::{Report, conversation::epoch_at};
use crate::{
    commit_log::{Scan, View, Visit},
    error::{ReadError, RecordError},
    keys::{
        ClientIdKey, ConversationKey, CursorKey, DeviceKey, EntryKey, Family, MemberByUserKey, MemberKey,
        UserKey, prefix_end,
    },
    read::{entry, member, scan},
    record,
};

/// Visits all rows of a range; what a visit fails with, and a failed read, become findings.
fn each(
    view: &dyn View,
    family: Family,
    range: &Scan,
    conversation: Option<ConversationId>,
    report: &mut Report,
    mut visit: impl FnMut(&[u8], &[u8], &mut Report) -> Result<(), ReadError>,
) {
    let scanned = scan(view, family, range, |key, value| {
        match visit(key, value, report) {
            Ok(()) => {}
            Err(ReadError::Record(error)) => report.add(conversation, None, error.to_string()),
            Err(error) => return Err(error),
        }
        Ok(Visit::Continue(()))
    });
    if let Err(error) = scanned {
        report.add(conversation, None, error.to_string());
    }
}

/// Each id's row points to an entry of that sender and id, or to one that was cut.
pub(super) fn verify_client_ids(
    view: &dyn View,
    id: ConversationId,
    heads: &ConversationRow,
    report: &mut Report,
) {
    let first_seq = heads.heads.first_seq;
    let range = Scan::prefix(&ClientIdKey::prefix(id));
    each(view, Family::ClientIds, &range, Some(id), report, |key, value, report| {
        let key = ClientIdKey::decode(key)?;
        let row = record::client_id::decode(&key, Bytes::copy_from_slice(value))?;
        if row.seq < first_seq {
            return Ok(());
        }
        let entry_key = EntryKey { conversation: id, seq: row.seq };
        // An entry that cannot be parsed is a finding of its own.
        let header = match entry(view, &entry_key) {
            Ok(entry) => entry.map(|entry| record::entry::header(&entry_key, &entry.header)),
            Err(ReadError::Record(_)) => return Ok(()),
            Err(error) => return Err(error),
        };
        let what = match header {
            Some(Err(_)) => return Ok(()),
            None => "is what client_ids points to, but there is no such entry",
            Some(Ok(header)) if header.sender != key.user || header.client_message_id != key.id => {
                "is what client_ids points to, but has another sender or id"
            }
            Some(Ok(header)) if (header.epoch, header.hlc) != (row.epoch, row.hlc) => {
                "has another epoch or hlc than client_ids says"
            }
            Some(Ok(_)) => return Ok(()),
        };
        report.add(Some(id), Some(row.seq), format!("{what} (user {}, id {})", key.user, key.id));
        Ok(())
    });
}

/// Each member's row has its derived one, and spans that the conversation has.
pub(super) fn verify_members(
    view: &dyn View,
    id: ConversationId,
    heads: &ConversationRow,
    report: &mut Report,
) {
    let head = heads.heads.head;
    let range = Scan::prefix(&MemberKey::prefix(id));
    let mut members = 0;
    each(view, Family::Members, &range, Some(id), report, |key, value, report| {
        members += 1;
        let key = MemberKey::decode(key)?;
        let derived = MemberByUserKey { user: key.user, conversation: id };
        if view.get(Family::MembersByUser, &derived.encode())?.is_none() {
            report.add(Some(id), None, format!("member {} is not in members_by_user", key.user));
        }
        let row = record::member::decode(&key, Bytes::copy_from_slice(value))?;
        if row.spans.iter().any(|span| span.from > head || span.to.is_some_and(|to| to > head)) {
            report.add(Some(id), None, format!("member {} sees entries beyond the head", key.user));
        }
        Ok(())
    });
    if members == 0 {
        report.add(Some(id), None, "no one is or was a member");
    }
}

/// No cursor is beyond the head, and each has the epoch of its seq, where the list still tells it.
pub(super) fn verify_cursors(
    view: &dyn View,
    id: ConversationId,
    row: &ConversationRow,
    report: &mut Report,
) {
    let range = Scan::prefix(&CursorKey::prefix(id));
    each(view, Family::Cursors, &range, Some(id), report, |key, value, report| {
        let key = CursorKey::decode(key)?;
        let (epoch, seq) = record::cursor::decode(&key, Bytes::copy_from_slice(value))?;
        let whose = format!("(user {}, device {})", key.user, key.device);
        if seq > row.heads.head {
            report.add(Some(id), Some(seq), format!("is a cursor beyond the head {whose}"));
        } else if epoch_at(&row.heads.epochs, seq).is_some_and(|listed| listed != epoch) {
            report.add(
                Some(id),
                Some(seq),
                format!("has another epoch than a cursor there, {epoch} {whose}"),
            );
        }
        Ok(())
    });
}

/// No rows belong to a conversation without heads. Looks at one row of each conversation.
pub(super) fn verify_orphans(view: &dyn View, report: &mut Report) {
    for family in [Family::Entries, Family::ClientIds, Family::Members, Family::Cursors] {
        let mut range = Scan::all();
        loop {
            let mut first: Option<Vec<u8>> = None;
            let found = view.scan(family, &range, &mut |key, _| {
                first = Some(key.to_vec());
                Visit::Break(())
            });
            let next = match (found, first) {
                (Err(error), _) => {
                    report.add(None, None, error.to_string());
                    break;
                }
                (Ok(()), None) => break,
                (Ok(()), Some(key)) => orphan(view, family, &key, report),
            };
            match next {
                Some(start) => range.start = start,
                None => break,
            }
        }
    }
}

/// Where the next conversation begins.
fn orphan(view: &dyn View, family: Family, key: &[u8], report: &mut Report) -> Option<Vec<u8>> {
    let prefix_len = EntryKey::prefix(ConversationId::new([0; 16])).len();
    let prefix = key.get(..prefix_len).unwrap_or(key);
    match ConversationKey::decode(prefix) {
        Err(error) => report.add(None, None, RecordError { family, ..error }.to_string()),
        Ok(ConversationKey { conversation }) => match view.get(Family::Conversations, prefix) {
            Ok(Some(_)) => {}
            Ok(None) => report.add(Some(conversation), None, format!("has {}, but no heads", family.name())),
            Err(error) => report.add(Some(conversation), None, error.to_string()),
        },
    }
    prefix_end(prefix)
}

/// Each derived row has its member's.
pub(super) fn verify_by_user(view: &dyn View, report: &mut Report) {
    each(view, Family::MembersByUser, &Scan::all(), None, report, |key, _, report| {
        let MemberByUserKey { user, conversation } = MemberByUserKey::decode(key)?;
        let found = match member(view, &MemberKey { conversation, user }) {
            // Reported where all members are read.
            Err(ReadError::Record(_)) => return Ok(()),
            found => found?,
        };
        if found.is_none() {
            report.add(Some(conversation), None, format!("members_by_user has {user}, members has not"));
        }
        Ok(())
    });
}

/// Users parse; each device has a user, and a number of its own that the user has given out.
pub(super) fn verify_devices(view: &dyn View, report: &mut Report) {
    each(view, Family::Users, &Scan::all(), None, report, |key, value, _| {
        record::user::decode(&UserKey::decode(key)?, Bytes::copy_from_slice(value))?;
        Ok(())
    });
    let mut of: Option<(UserId, Vec<u32>)> = None;
    each(view, Family::Devices, &Scan::all(), None, report, |key, value, report| {
        let key = DeviceKey::decode(key)?;
        let number = record::user::decode_device(&key, Bytes::copy_from_slice(value))?.number;
        let user_key = UserKey { user: key.user };
        let user = match view.get(Family::Users, &user_key.encode())? {
            Some(value) => record::user::decode(&user_key, value).ok(),
            None => {
                report.add(
                    None,
                    None,
                    format!("device {} is of user {}, who is not there", key.device, key.user),
                );
                None
            }
        };
        let name = format!("device {} of user {}", key.device, key.user);
        if user.is_some_and(|user| number > user.last_device_number) {
            report.add(None, None, format!("{name} has number {number}, which was not given out"));
        }
        match &mut of {
            Some((user, numbers)) if *user == key.user => {
                if numbers.contains(&number) {
                    report.add(None, None, format!("{name} has number {number}, as another device has"));
                }
                numbers.push(number);
            }
            _ => of = Some((key.user, vec![number])),
        }
        Ok(())
    });
}
