//! What every [`Store`] must do, as a suite to run on it: `contract::check(|| MyStore::open(fresh_path()))`.
//! It panics with what was broken.

use bytes::Bytes;
use talaria_protocol::{
    chain::{Chain, Leaf},
    entry::{Entry, EntryForm, Urgency},
    ids::{BootId, ClientMessageId, ConversationId},
    message::{Cursor, SyncToken},
};

use super::{ConversationWrite, Loaded, LocalId, OutboxItem, Store, StoreBatch, StoreError, StoredEntry};

/// Runs the suite on stores that `make` opens, each empty.
///
/// # Panics
/// When the store breaks the contract.
pub fn check<S: Store>(make: impl Fn() -> S) {
    starts_empty(&make());
    keeps_entries_in_order(&make());
    drops_a_fork(&make());
    keeps_the_outbox(&make());
    keeps_tokens_until_replaced(&make());
}

fn must<T>(result: Result<T, StoreError>) -> T {
    match result {
        Ok(value) => value,
        Err(error) => panic!("{error}"),
    }
}

fn conversation(n: u8) -> ConversationId {
    ConversationId::new([n; 16])
}

fn entry(seq: u64) -> StoredEntry {
    let form = match seq % 2 {
        0 => EntryForm::Hidden { leaf: Leaf::new([u8::try_from(seq).unwrap_or(0); 32]) },
        _ => EntryForm::Full {
            header: Bytes::from(format!("header {seq}")),
            content: Some(Bytes::from(format!("content {seq}"))),
            salt: [7; 16],
        },
    };
    StoredEntry { entry: Entry { seq, form }, chain: Chain::new([u8::try_from(seq).unwrap_or(0); 32]) }
}

fn cursor(seq: u64) -> Cursor {
    Cursor { epoch: 9, seq, chain: entry(seq).chain }
}

fn item(local_id: u64, order: u64) -> OutboxItem {
    OutboxItem {
        local_id: LocalId(local_id),
        order,
        conversation: conversation(1),
        content: Bytes::from_static(b"said"),
        urgency: Urgency::Silent,
        expires_ms: 77,
        seen: 3,
        id: None,
        unproven: false,
    }
}

fn entries_batch(id: u8, seqs: std::ops::RangeInclusive<u64>) -> StoreBatch {
    let write = ConversationWrite {
        conversation: conversation(id),
        drop_from: None,
        cursor: cursor(*seqs.end()),
        entries: seqs.map(entry).collect(),
    };
    StoreBatch { conversations: vec![write], ..StoreBatch::default() }
}

fn starts_empty(store: &impl Store) {
    assert_eq!(must(store.load()), Loaded::default(), "a new store holds nothing");
    assert!(must(store.entries(conversation(1), 1, 10)).is_empty());
    must(store.commit(&StoreBatch::default()));
    assert_eq!(must(store.load()), Loaded::default(), "an empty batch changes nothing");
}

fn keeps_entries_in_order(store: &impl Store) {
    must(store.commit(&entries_batch(1, 1..=3)));
    must(store.commit(&entries_batch(2, 5..=6)));
    must(store.commit(&entries_batch(1, 4..=12)));
    let mut cursors = must(store.load()).cursors;
    cursors.sort_by_key(|(id, _)| *id);
    assert_eq!(cursors, [(conversation(1), cursor(12)), (conversation(2), cursor(6))]);
    let held = must(store.entries(conversation(1), 2, 100));
    assert_eq!(held, (2..=12).map(entry).collect::<Vec<_>>(), "all from `from` on, ascending, byte for byte");
    assert_eq!(must(store.entries(conversation(1), 2, 3)).len(), 3, "at most entries_max");
    assert_eq!(must(store.entries(conversation(2), 1, 9)), [entry(5), entry(6)], "a gap stays a gap");
    assert!(must(store.entries(conversation(3), 1, 9)).is_empty());
}

fn drops_a_fork(store: &impl Store) {
    must(store.commit(&entries_batch(1, 1..=9)));
    must(store.commit(&entries_batch(2, 1..=9)));
    let write = ConversationWrite {
        conversation: conversation(1),
        drop_from: Some(6),
        entries: vec![entry(6)],
        cursor: cursor(6),
    };
    must(store.commit(&StoreBatch { conversations: vec![write], ..StoreBatch::default() }));
    assert_eq!(must(store.entries(conversation(1), 1, 99)).len(), 6, "dropped first, then added");
    assert_eq!(must(store.entries(conversation(2), 1, 99)).len(), 9, "another conversation keeps its own");
    assert!(must(store.load()).cursors.contains(&(conversation(1), cursor(6))), "the cursor went back");
}

fn keeps_the_outbox(store: &impl Store) {
    let id = ClientMessageId::from_parts(1_000, [1; 10]);
    let put = vec![item(1, 20), item(2, 10), item(3, 30)];
    must(store.commit(&StoreBatch { outbox_put: put, ..StoreBatch::default() }));
    let orders: Vec<_> = must(store.load()).outbox.iter().map(|item| item.local_id.0).collect();
    assert_eq!(orders, [2, 1, 3], "ascending in order, whatever the ids");

    let replaced = OutboxItem { id: Some(id), unproven: true, ..item(2, 10) };
    let batch = StoreBatch {
        outbox_put: vec![replaced.clone(), item(4, 40)],
        outbox_remove: vec![LocalId(1), LocalId(4), LocalId(99)],
        ..StoreBatch::default()
    };
    must(store.commit(&batch));
    assert_eq!(
        must(store.load()).outbox,
        [replaced, item(3, 30)],
        "replaced by local id; removals come last"
    );
}

fn keeps_tokens_until_replaced(store: &impl Store) {
    let token = |commit| SyncToken { boot_id: BootId::new([3; 16]), commit };
    let id = |ms| ClientMessageId::from_parts(ms, [0; 10]);
    let batch = StoreBatch {
        sync_token: Some(token(1)),
        last_minted: Some(id(5)),
        next_local_id: Some(8),
        ..StoreBatch::default()
    };
    must(store.commit(&batch));
    must(store.commit(&StoreBatch { sync_token: Some(token(2)), ..StoreBatch::default() }));
    let loaded = must(store.load());
    assert_eq!(loaded.sync_token, Some(token(2)));
    assert_eq!((loaded.last_minted, loaded.next_local_id), (Some(id(5)), Some(8)), "absent means unchanged");
}
