//! `members`: role, subject and the spans that a user may see.

use bytes::Bytes;
use prost::Message;
use talaria_core::log::{MemberRow, Span};
use talaria_protocol::message::MemberRole;

use super::{
    At,
    generated::{MemberRecord, Span as SpanRecord},
};
use crate::{
    error::RecordError,
    keys::{Family, MemberKey},
};

/// The value of a member.
pub fn encode(row: &MemberRow) -> Vec<u8> {
    let role = match row.role {
        MemberRole::Member => 0,
        MemberRole::Admin => 1,
        MemberRole::Owner => 2,
    };
    let spans = row.spans.iter().map(|span| SpanRecord { from: span.from, to: span.to.unwrap_or(0) });
    MemberRecord { role, subject: row.subject.clone(), spans: spans.collect() }.encode_to_vec()
}

/// Parses the value of a member.
///
/// # Errors
/// A role this version does not know; spans that are missing, overlap, do not ascend, or are open before the last.
pub fn decode(key: &MemberKey, value: Bytes) -> Result<MemberRow, RecordError> {
    let bytes = key.encode();
    let at = At { family: Family::Members, key: &bytes };
    let record: MemberRecord = at.parse(value)?;
    let role = match record.role {
        0 => MemberRole::Member,
        1 => MemberRole::Admin,
        2 => MemberRole::Owner,
        other => return Err(at.bad(format!("role {other} is not known"))),
    };
    at.ensure(!record.spans.is_empty(), "no spans")?;
    let mut spans: Vec<Span> = Vec::with_capacity(record.spans.len());
    for span in &record.spans {
        let open_before = spans.last().is_some_and(|last| last.to.is_none());
        at.ensure(!open_before, "a span after an open one")?;
        let after = spans.last().and_then(|last| last.to).unwrap_or(0);
        at.ensure(span.from > after, "spans do not ascend")?;
        at.ensure(span.to == 0 || span.to >= span.from, "a span ends before it begins")?;
        spans.push(Span { from: span.from, to: (span.to != 0).then_some(span.to) });
    }
    Ok(MemberRow { role, subject: record.subject, spans })
}
