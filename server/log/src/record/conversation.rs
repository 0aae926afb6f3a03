//! `conversations`: heads, epochs, settings and the commit of the last append.

use bytes::Bytes;
use prost::Message;
use talaria_core::log::{ConversationRow, Epoch, Heads};
use talaria_protocol::{chain::Chain, hlc::Hlc, message::ConversationKind, wire};

use super::{
    At,
    generated::{ConversationRecord, EpochRecord},
};
use crate::{
    error::RecordError,
    keys::{ConversationKey, Family},
};

/// The value of a conversation whose last append is in commit `commit`.
pub fn encode(heads: &Heads, commit: u64) -> Vec<u8> {
    let kind = match heads.kind {
        ConversationKind::Direct => wire::ConversationKind::Direct,
        ConversationKind::Group => wire::ConversationKind::Group,
    };
    let epochs = heads.epochs.iter().map(|epoch| EpochRecord {
        epoch: epoch.epoch,
        first_seq: epoch.first_seq,
        chain_before: epoch.chain_before.to_bytes(),
    });
    ConversationRecord {
        kind: kind as u32,
        title: heads.title.clone(),
        head: heads.head,
        ordinal: heads.ordinal,
        chain: heads.chain.to_bytes(),
        first_seq: heads.first_seq,
        epochs: epochs.collect(),
        hlc: heads.hlc.0,
        commit,
        history_open: heads.history_open,
        first_chain: if heads.first_seq == 1 { Bytes::new() } else { heads.first_chain.to_bytes() },
    }
    .encode_to_vec()
}

/// Parses the value of a conversation.
///
/// # Errors
/// A kind this version does not know, a hash that is missing or of another length, an impossible head, or epochs that
/// do not ascend, do not cover `first_seq..=head` or go beyond it.
pub fn decode(key: &ConversationKey, value: Bytes) -> Result<ConversationRow, RecordError> {
    let bytes = key.encode();
    let at = At { family: Family::Conversations, key: &bytes };
    let record: ConversationRecord = at.parse(value)?;
    let kind = match record.kind {
        1 => ConversationKind::Direct,
        2 => ConversationKind::Group,
        other => return Err(at.bad(format!("kind {other} is not known"))),
    };
    at.ensure(record.head > 0, "no head")?;
    at.ensure(record.ordinal <= record.head, "more messages than entries")?;
    at.ensure(
        (1..=record.head.saturating_add(1)).contains(&record.first_seq),
        "first_seq is not in 1..=head+1",
    )?;
    at.ensure(record.commit > 0, "no commit number")?;
    let heads = Heads {
        kind,
        chain: Chain::new(at.fixed("chain", &record.chain)?),
        epochs: epochs(at, &record)?,
        first_chain: first_chain(at, &record)?,
        title: record.title,
        head: record.head,
        ordinal: record.ordinal,
        first_seq: record.first_seq,
        hlc: Hlc(record.hlc),
        history_open: record.history_open,
    };
    Ok(ConversationRow { heads, commit: record.commit })
}

fn first_chain(at: At<'_>, record: &ConversationRecord) -> Result<Chain, RecordError> {
    if record.first_seq == 1 {
        at.ensure(record.first_chain.is_empty(), "first_chain, though all entries are kept")?;
        return Ok(Chain::ZERO);
    }
    let nothing_kept = record.first_seq > record.head;
    at.ensure(
        !nothing_kept || record.first_chain == record.chain,
        "first_chain is not the head's, yet nothing is kept",
    )?;
    Ok(Chain::new(at.fixed("first_chain", &record.first_chain)?))
}

fn epochs(at: At<'_>, record: &ConversationRecord) -> Result<Vec<Epoch>, RecordError> {
    let parse = |epoch: &EpochRecord| {
        let chain_before = Chain::new(at.fixed("an epoch's chain_before", &epoch.chain_before)?);
        Ok(Epoch { epoch: epoch.epoch, first_seq: epoch.first_seq, chain_before })
    };
    let epochs: Vec<Epoch> = record.epochs.iter().map(parse).collect::<Result<_, _>>()?;
    at.ensure(
        epochs.first().is_some_and(|first| (1..=record.first_seq).contains(&first.first_seq)),
        "the first epoch begins after first_seq",
    )?;
    let ascending = |pair: &[Epoch]| pair[0].epoch < pair[1].epoch && pair[0].first_seq < pair[1].first_seq;
    at.ensure(epochs.windows(2).all(ascending), "epochs do not ascend")?;
    at.ensure(epochs.iter().all(|epoch| epoch.first_seq <= record.head), "an epoch begins beyond the head")?;
    Ok(epochs)
}
