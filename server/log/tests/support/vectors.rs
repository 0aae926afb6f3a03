//! spec/vectors/records.json: keys and values of the log, made from fixed values. Written by the `vectors` example,
//! compared by tests/vectors.rs. Numbers of 64 bits are decimal strings, bytes are hex.

use bytes::Bytes;
use serde_json::{Value, json};
use talaria_core::log::{
    Accepted, Boot, DeviceRow, Epoch, Heads, LogOp, MemberRow, Span, StoredBody, StoredEntry, UserRow,
};
use talaria_log::{
    Family,
    keys::{
        ClientIdKey, ConversationKey, CursorKey, DeviceKey, EntryKey, MemberByUserKey, MemberKey, MetaKey,
        UserKey,
    },
    record,
    testing::Scenario,
};
use talaria_protocol::{
    chain::{Chain, Commitment},
    hlc::Hlc,
    ids::{BootId, ClientMessageId, ConversationId, DeviceId, IdKey, UserId},
    message::{ConversationKind, MemberRole},
};

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A row, and what it says.
struct Row {
    name: &'static str,
    family: Family,
    key: Vec<u8>,
    value: Vec<u8>,
    record: Value,
}

const CONVERSATION: ConversationId = ConversationId::new([1; 16]);
const USER: UserId = UserId::new([0xaa; 16]);
const CHAIN: Chain = Chain::new([0xcc; 32]);

fn device() -> DeviceId {
    DeviceId::from_parts(1_700_000_000_000, [0xdd; 10])
}

fn message_id() -> ClientMessageId {
    ClientMessageId::from_parts(1_800_000_000_123, [0xee; 10])
}

/// The file.
pub(crate) fn records() -> Value {
    let valid: Vec<_> = rows()
        .into_iter()
        .map(|row| {
            json!({
                "name": row.name, "family": row.family.name(), "key": hex(&row.key), "value": hex(&row.value),
                "record": row.record,
            })
        })
        .collect();
    let invalid: Vec<_> = invalid()
        .into_iter()
        .map(|(name, family, key, value)| {
            let error = record::check(family, &key, &value).expect_err(name).what;
            json!({
                "name": name, "family": family.name(), "key": hex(&key), "value": hex(&value), "error": error,
            })
        })
        .collect();
    json!({ "about": "made by `cargo xtask vectors`; do not edit", "valid": valid, "invalid": invalid })
}

fn rows() -> Vec<Row> {
    let mut rows = entry_rows();
    rows.extend(conversation_rows());
    rows.extend(member_rows());
    rows.extend(small_rows());
    rows.extend(meta_rows());
    rows
}

fn first_entry() -> StoredEntry {
    match Scenario::new(1).create() {
        LogOp::Append(append) => append.entries[0].clone(),
        other => panic!("a creation appends: {other:?}"),
    }
}

fn entry_rows() -> Vec<Row> {
    let kept = first_entry();
    let StoredBody::Kept { content, salt } = kept.body.clone() else { panic!("it is kept") };
    let commitment = Commitment::of(&salt, &content);
    let erased = StoredEntry { body: StoredBody::Erased { commitment }, ..kept.clone() };
    let row = |name, entry: &StoredEntry, body: Value| {
        let mut record = json!({
            "conversation": CONVERSATION.to_string(), "seq": entry.seq.to_string(), "header": hex(&entry.header),
            "chain": hex(entry.chain.as_bytes()),
        });
        record.as_object_mut().expect("an object").extend(body.as_object().expect("an object").clone());
        let key = EntryKey { conversation: CONVERSATION, seq: entry.seq }.encode().to_vec();
        Row { name, family: Family::Entries, key, value: record::entry::encode(entry), record }
    };
    vec![
        row("an entry", &kept, json!({ "content": hex(&content), "salt": hex(&salt) })),
        row("an erased entry", &erased, json!({ "commitment": hex(commitment.as_bytes()) })),
    ]
}

fn heads() -> Heads {
    Heads {
        kind: ConversationKind::Group,
        title: "Δelta".to_owned(),
        head: 300,
        ordinal: 290,
        chain: CHAIN,
        first_seq: 1,
        first_chain: Chain::ZERO,
        epochs: vec![
            Epoch { epoch: 1_800_000_000, first_seq: 1, chain_before: Chain::ZERO },
            Epoch { epoch: 1_800_000_500, first_seq: 200, chain_before: Chain::new([0xbb; 32]) },
        ],
        hlc: Hlc::from_ms(1_800_000_600_000),
        history_open: false,
    }
}

fn truncated() -> Heads {
    Heads { first_seq: 101, first_chain: Chain::new([0xab; 32]), ..heads() }
}

fn conversation_rows() -> Vec<Row> {
    let key = ConversationKey { conversation: CONVERSATION }.encode().to_vec();
    let row = |name, heads: &Heads, commit: u64| {
        let epochs: Vec<_> = heads
            .epochs
            .iter()
            .map(|epoch| {
                json!({
                    "epoch": epoch.epoch.to_string(), "first_seq": epoch.first_seq.to_string(),
                    "chain_before": hex(epoch.chain_before.as_bytes()),
                })
            })
            .collect();
        let record = json!({
            "conversation": CONVERSATION.to_string(),
            "kind": if heads.kind == ConversationKind::Group { "group" } else { "direct" },
            "title": heads.title, "head": heads.head.to_string(), "ordinal": heads.ordinal.to_string(),
            "chain": hex(heads.chain.as_bytes()), "first_seq": heads.first_seq.to_string(), "epochs": epochs,
            "hlc": heads.hlc.0.to_string(), "commit": commit.to_string(), "history_open": heads.history_open,
            "first_chain": hex(heads.first_chain.as_bytes()),
        });
        let value = record::conversation::encode(heads, commit);
        Row { name, family: Family::Conversations, key: key.clone(), value, record }
    };
    let direct = Heads {
        kind: ConversationKind::Direct,
        title: String::new(),
        head: 1,
        ordinal: 0,
        epochs: vec![Epoch { epoch: 1, first_seq: 1, chain_before: Chain::ZERO }],
        ..heads()
    };
    let later = Epoch { epoch: 1_800_000_500, first_seq: 200, chain_before: Chain::new([0xbb; 32]) };
    let only_head =
        Heads { first_seq: 300, first_chain: Chain::new([0xab; 32]), epochs: vec![later], ..heads() };
    vec![
        row("a group in its second epoch", &heads(), 4_711),
        row("a group of which the first 100 entries were cut", &truncated(), 4_711),
        row("a group of which only the last entry is kept, and its epoch", &only_head, 4_711),
        row("a direct conversation that has just begun", &direct, 1),
        row("an open history", &Heads { history_open: true, ..direct.clone() }, u64::MAX),
    ]
}

fn member(role: MemberRole, spans: &[(u64, Option<u64>)]) -> MemberRow {
    let spans = spans.iter().map(|&(from, to)| Span { from, to }).collect();
    MemberRow { role, subject: "alice".to_owned(), spans }
}

fn member_rows() -> Vec<Row> {
    let key = MemberKey { conversation: CONVERSATION, user: USER }.encode().to_vec();
    let row = |name, role: &str, row: MemberRow| {
        let spans: Vec<_> = row
            .spans
            .iter()
            .map(|span| json!({ "from": span.from.to_string(), "to": span.to.unwrap_or(0).to_string() }))
            .collect();
        let record = json!({
            "conversation": CONVERSATION.to_string(), "user": USER.to_string(), "role": role,
            "subject": row.subject, "spans": spans,
        });
        Row { name, family: Family::Members, key: key.clone(), value: record::member::encode(&row), record }
    };
    let derived = Row {
        name: "the derived row of a member",
        family: Family::MembersByUser,
        key: MemberByUserKey { user: USER, conversation: CONVERSATION }.encode().to_vec(),
        value: Vec::new(),
        record: json!({ "user": USER.to_string(), "conversation": CONVERSATION.to_string() }),
    };
    vec![
        row("an owner since the beginning", "owner", member(MemberRole::Owner, &[(1, None)])),
        row("a member who left", "member", member(MemberRole::Member, &[(5, Some(9))])),
        row(
            "an admin who came back",
            "admin",
            member(MemberRole::Admin, &[(5, Some(9)), (12, Some(12)), (40, None)]),
        ),
        derived,
    ]
}

fn small_rows() -> Vec<Row> {
    let accepted = Accepted { seq: 300, epoch: 1_800_000_500, hlc: Hlc(7), digest: [0xdd; 32] };
    let user = UserRow { tenant: "acme".to_owned(), subject: "alice".to_owned(), last_device_number: 3 };
    let device_row = DeviceRow { number: 2, first_seen_ms: 1_700_000_000_000 };
    let ids = json!({ "conversation": CONVERSATION.to_string(), "user": USER.to_string() });
    let with = |more: Value| {
        let mut all = ids.clone();
        all.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
        all
    };
    vec![
        Row {
            name: "a delivered cursor",
            family: Family::Cursors,
            key: CursorKey { conversation: CONVERSATION, user: USER, device: device() }.encode().to_vec(),
            value: record::cursor::encode(1_800_000_500, 299),
            record: with(json!({ "device": device().to_string(), "epoch": "1800000500", "seq": "299" })),
        },
        Row {
            name: "an accepted id",
            family: Family::ClientIds,
            key: ClientIdKey { conversation: CONVERSATION, user: USER, id: message_id() }.encode().to_vec(),
            value: record::client_id::encode(&accepted),
            record: with(json!({
                "client_message_id": message_id().to_string(), "seq": "300", "epoch": "1800000500", "hlc": "7",
                "digest": hex(&accepted.digest),
            })),
        },
        Row {
            name: "a user",
            family: Family::Users,
            key: UserKey { user: USER }.encode().to_vec(),
            value: record::user::encode(&user),
            record: json!({
                "user": USER.to_string(), "tenant": "acme", "subject": "alice", "last_device_number": 3,
            }),
        },
        Row {
            name: "a device",
            family: Family::Devices,
            key: DeviceKey { user: USER, device: device() }.encode().to_vec(),
            value: record::user::encode_device(&device_row),
            record: json!({
                "user": USER.to_string(), "device": device().to_string(), "number": 2,
                "first_seen_ms": "1700000000000",
            }),
        },
    ]
}

fn meta_rows() -> Vec<Row> {
    let row = |name, key: MetaKey, value, record| {
        let key = key.encode().to_vec();
        Row { name, family: Family::Meta, key, value, record }
    };
    let boot = |number: u8, first_commit, opened_ms| Boot {
        boot_id: BootId::new([number; 16]),
        first_commit,
        opened_ms,
    };
    let boots = [boot(1, 1, 1_800_000_000_000), boot(2, 88, 1_800_000_500_000)];
    let listed: Vec<_> = boots
        .iter()
        .map(|boot| {
            json!({
                "boot_id": boot.boot_id.to_string(), "first_commit": boot.first_commit.to_string(),
                "opened_ms": boot.opened_ms.to_string(),
            })
        })
        .collect();
    let id_key = IdKey::new([0x42; 32]);
    vec![
        row("the format", MetaKey::Format, record::meta::encode_format(2), json!({ "version": 2 })),
        row(
            "the deployment",
            MetaKey::Deployment,
            record::meta::encode_deployment(&id_key),
            json!({ "id_key": hex(id_key.as_bytes()) }),
        ),
        row("two openings", MetaKey::Boots, record::meta::encode_boots(&boots), json!({ "boots": listed })),
        row(
            "the last commit",
            MetaKey::Commit,
            record::meta::encode_commit(4_711),
            json!({ "commit": "4711" }),
        ),
    ]
}

type Bad = (&'static str, Family, Vec<u8>, Vec<u8>);

fn invalid() -> Vec<Bad> {
    let mut bad = bad_keys();
    bad.extend(bad_entries());
    bad.extend(bad_rows());
    bad
}

fn bad_keys() -> Vec<Bad> {
    let entry = record::entry::encode(&first_entry());
    let key = EntryKey { conversation: CONVERSATION, seq: 1 }.encode().to_vec();
    let short = key[..key.len() - 1].to_vec();
    let mut slot = key;
    slot[0] ^= 1;
    let other = EntryKey { conversation: CONVERSATION, seq: 2 }.encode().to_vec();
    vec![
        ("a key that is too short", Family::Entries, short, entry.clone()),
        ("a key in another slot", Family::Entries, slot, entry.clone()),
        ("an entry at another seq", Family::Entries, other, entry),
        ("an unknown name in meta", Family::Meta, b"formats".to_vec(), vec![8, 1]),
    ]
}

fn bad_entries() -> Vec<Bad> {
    let key = EntryKey { conversation: CONVERSATION, seq: 1 }.encode().to_vec();
    let entry = first_entry();
    let whole = record::entry::encode(&entry);
    let mut cut = whole.clone();
    cut.truncate(whole.len() - 1);
    let without_header = record::entry::encode(&StoredEntry { header: Bytes::new(), ..entry });
    // Field 4, 32 bytes: the commitment of an erased entry, after all that a kept one has.
    let both = [&whole[..], &[0x22, 32], &[9; 32]].concat();
    // Field 3, 15 bytes: the last of a field counts.
    let short_salt = [&whole[..], &[0x1a, 15], &[9; 15]].concat();
    vec![
        ("an entry cut short", Family::Entries, key.clone(), cut),
        ("an entry without a header", Family::Entries, key.clone(), without_header),
        ("an entry both kept and erased", Family::Entries, key.clone(), both),
        ("a short salt", Family::Entries, key, short_salt),
    ]
}

fn bad_rows() -> Vec<Bad> {
    let conversation = ConversationKey { conversation: CONVERSATION }.encode().to_vec();
    let heads_with = |change: fn(&mut Heads)| {
        let mut heads = heads();
        change(&mut heads);
        (Family::Conversations, conversation.clone(), record::conversation::encode(&heads, 1))
    };
    let member_key = MemberKey { conversation: CONVERSATION, user: USER }.encode().to_vec();
    let spans = |spans: &[(u64, Option<u64>)]| {
        let value = record::member::encode(&member(MemberRole::Member, spans));
        (Family::Members, member_key.clone(), value)
    };
    let named = |name, (family, key, value)| (name, family, key, value);
    let meta = |key: MetaKey, value: &[u8]| (Family::Meta, key.encode().to_vec(), value.to_vec());
    let device = DeviceKey { user: USER, device: device() }.encode().to_vec();
    // Field 11, 32 bytes; field 6, 101.
    let first_chain = [&record::conversation::encode(&heads(), 1)[..], &[0x5a, 32], &[9; 32]].concat();
    let no_chain = [&record::conversation::encode(&heads(), 1)[..], &[0x30, 101]].concat();
    let unknown_kind = [&record::conversation::encode(&heads(), 1)[..], &[8, 9]].concat();
    vec![
        named("a kind that is not known", (Family::Conversations, conversation.clone(), unknown_kind)),
        named("a conversation without epochs", heads_with(|heads| heads.epochs.clear())),
        named("epochs that do not ascend", heads_with(|heads| heads.epochs[1].epoch = 1)),
        named("epochs that begin after first_seq", heads_with(|heads| heads.epochs[0].first_seq = 2)),
        named(
            "a first_chain where nothing was cut",
            (Family::Conversations, conversation.clone(), first_chain),
        ),
        named(
            "no first_chain where something was cut",
            (Family::Conversations, conversation.clone(), no_chain),
        ),
        named("a first_seq that is beyond the head's next", heads_with(|heads| heads.first_seq = 302)),
        named("an epoch beyond the head", heads_with(|heads| heads.epochs[1].first_seq = 301)),
        named("more messages than entries", heads_with(|heads| heads.ordinal = 301)),
        named("no spans", spans(&[])),
        named("a span after an open one", spans(&[(1, None), (5, None)])),
        named("spans that overlap", spans(&[(1, Some(5)), (5, None)])),
        named("a span that ends before it begins", spans(&[(5, Some(4))])),
        named("a device without a number", (Family::Devices, device, vec![0x10, 1])),
        named("a key of 31 bytes", meta(MetaKey::Deployment, &[&[0x0a, 31][..], &[1; 31]].concat())),
        named("no boots", meta(MetaKey::Boots, &[])),
        named("format 0", meta(MetaKey::Format, &[])),
        named("a commit number of 7 bytes", meta(MetaKey::Commit, &[0; 7])),
    ]
}
