//! Round trips, and bytes that are no records.

#![allow(clippy::unwrap_used)]

use proptest::prelude::*;
use talaria_core::log::{LogOp, StoredBody};
use talaria_protocol::chain::Commitment;

use super::*;
use crate::{
    batch::{Batch, Write, encode_op, seal},
    keys::EntryKey,
    testing::{Scenario, conversation_id},
};

/// Every row that some operations write.
fn rows() -> Vec<(Family, Vec<u8>, Vec<u8>)> {
    let mut group = Scenario::group(1, 3);
    let mut batch = Batch::default();
    for op in
        [group.create(), group.message(0, "hello"), group.remove(2), LogOp::Cursors(vec![group.cursor(0)])]
    {
        encode_op(&op, 7, &mut batch);
    }
    seal(7, &mut batch);
    let row = |write: &Write| match write {
        Write::Put { family, key, value } => (*family, key.clone(), value.clone()),
        other => panic!("{other:?}"),
    };
    batch.writes().iter().map(row).collect()
}

#[test]
fn what_operations_write_is_accepted() {
    for (family, key, value) in rows() {
        check(family, &key, &value).unwrap();
    }
}

#[test]
fn an_erased_entry_keeps_its_leaf() {
    let LogOp::Append(append) = Scenario::new(1).create() else { panic!() };
    let mut stored = append.entries[0].clone();
    let (key, leaf) = (EntryKey { conversation: conversation_id(1), seq: 1 }, stored.leaf());
    let StoredBody::Kept { content, salt } = &stored.body else { panic!() };
    stored.body = StoredBody::Erased { commitment: Commitment::of(salt, content) };
    let decoded = entry::decode(&key, entry::encode(&stored).into()).unwrap();
    assert_eq!((decoded.leaf(), &decoded), (leaf, &stored));
}

#[test]
fn header_and_content_share_the_value() {
    let LogOp::Append(append) = Scenario::new(1).create() else { panic!() };
    let key = EntryKey { conversation: conversation_id(1), seq: 1 };
    let value = Bytes::from(entry::encode(&append.entries[0]));
    let range = value.as_ptr_range();
    let decoded = entry::decode(&key, value).unwrap();
    assert!(range.contains(&decoded.header.as_ptr()));
}

proptest! {
    #[test]
    fn no_bytes_make_a_decoder_panic(value in proptest::collection::vec(any::<u8>(), 0..200)) {
        for (family, key, _) in rows() {
            let _ = check(family, &key, &value);
            let _ = check(family, &value, &value);
        }
    }

    #[test]
    fn a_changed_row_is_parsed_or_refused(at in any::<prop::sample::Index>(), bit in 0..8u8, cut in any::<bool>()) {
        for (family, key, mut value) in rows() {
            if value.is_empty() {
                continue;
            }
            let at = at.index(value.len());
            if cut { value.truncate(at) } else { value[at] ^= 1 << bit }
            if let Err(error) = check(family, &key, &value) {
                prop_assert_eq!(error.family, family);
                prop_assert_eq!(error.key, key);
            }
        }
    }
}
