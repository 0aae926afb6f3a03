//! The vectors under spec/vectors: what they hold, made from fixed values. Written by the `vectors` example, compared
//! by tests/vectors.rs. Numbers of 64 bits are decimal strings, bytes are hex.

#[path = "vectors_messages.rs"]
mod messages;
#[path = "proto.rs"]
pub(crate) mod proto;

use bytes::Bytes;
use prost::Message;
use proto::{Schema, hex};
use serde_json::{Value, json};
use talaria_protocol::{
    chain::{Chain, Commitment, Leaf, Salt},
    entry::{Entry, EntryForm, EntryHeader, EntryKind, Urgency},
    frame::encode_payload,
    hlc::Hlc,
    ids::{ClientMessageId, ConversationId, IdKey, UserId},
    limits,
    message::{
        MemberRole, Peer,
        content::{Body, Content, MemberAction, MemberChange, Membership},
    },
};

const MADE_BY: &str = "made by `cargo xtask vectors`; do not edit";

/// Every file, by name.
pub(crate) fn all() -> Vec<(&'static str, Value)> {
    vec![
        ("frames.json", frames()),
        ("messages.json", messages::messages()),
        ("entries.json", entries()),
        ("chains.json", chains()),
        ("ids.json", ids()),
    ]
}

// ---- frames ------------------------------------------------------------------------------------------------

fn frames() -> Value {
    let valid = |name: &str, stream: &[u8], payloads: &[&[u8]], rest: usize| {
        let payloads: Vec<_> = payloads.iter().map(|payload| hex(payload)).collect();
        json!({ "name": name, "stream": hex(stream), "payloads": payloads, "incomplete_bytes": rest })
    };
    let invalid = |name: &str, stream: &[u8], payloads: &[&[u8]], error: &str, frame_bytes_max: usize| {
        let payloads: Vec<_> = payloads.iter().map(|payload| hex(payload)).collect();
        json!({
            "name": name, "stream": hex(stream), "payloads": payloads, "error": error,
            "frame_bytes_max": frame_bytes_max,
        })
    };
    let (before, after) = (limits::FRAME_BYTES_MAX_BEFORE_WELCOME, limits::FRAME_BYTES_MAX);
    let long = vec![0x5a; 300];
    json!({
        "about": MADE_BY,
        "frame_bytes_max": after,
        "valid": [
            valid("one byte", &[1, 0xaa], &[&[0xaa]], 0),
            valid("two frames", &[2, 1, 2, 1, 3], &[&[1, 2], &[3]], 0),
            valid("the longest one-byte length", &encode_payload(&[7; 127]), &[&[7; 127]], 0),
            valid("the shortest two-byte length", &encode_payload(&[7; 128]), &[&[7; 128]], 0),
            valid("300 bytes", &encode_payload(&long), &[&long], 0),
            valid("no bytes yet", &[], &[], 0),
            valid("half a length", &[0x80], &[], 1),
            valid("half a payload", &[1, 9, 3, 1, 2], &[&[9]], 3),
            valid("the largest claim, no payload yet", &[0x80, 0x80, 0x40], &[], 3),
        ],
        "invalid": [
            invalid("an empty frame", &[0], &[], "EMPTY", after),
            invalid("an empty frame after a good one", &[1, 5, 0], &[&[5]], "EMPTY", after),
            invalid("0 in two bytes", &[0x80, 0], &[], "OVERLONG", after),
            invalid("1 in two bytes", &[0x81, 0, 0xaa], &[], "OVERLONG", after),
            invalid("1 in three bytes", &[0x81, 0x80, 0], &[], "OVERLONG", after),
            invalid("a length that goes on after four bytes", &[0x81, 0x80, 0x80, 0x80], &[], "OVERLONG", after),
            invalid("a byte more than 1 MiB", &[0x81, 0x80, 0x40], &[], "TOO_LARGE", after),
            invalid("the largest four-byte length", &[0xff, 0xff, 0xff, 0x7f], &[], "TOO_LARGE", after),
            invalid("a byte more than 16 KiB before Welcome", &[0x81, 0x80, 1], &[], "TOO_LARGE", before),
        ],
    })
}

// ---- entries -----------------------------------------------------------------------------------------------

fn user(n: u8) -> UserId {
    IdKey::new([n; 32]).user("", "someone")
}

fn header(seq: u64) -> EntryHeader {
    EntryHeader {
        seq,
        ordinal: seq,
        epoch: 1_790_000_000,
        hlc: Hlc((1_790_000_000_123 << 16) | seq),
        sender: user(1),
        device: 1,
        kind: EntryKind::Message,
        target_seq: 0,
        client_message_id: ClientMessageId::from_parts(1_790_000_000_000 + seq, [seq as u8; 10]),
        urgency: Urgency::Normal,
        expires_ms: 0,
    }
}

fn membership() -> Content {
    let change = |n: u8, subject: &str, role| MemberChange {
        peer: Peer { user: user(n), subject: subject.into() },
        action: MemberAction::Added,
        role,
    };
    Content::membership(Membership {
        created: true,
        title: "Crew".into(),
        changes: vec![change(1, "alice", MemberRole::Owner), change(2, "bob", MemberRole::Member)],
    })
}

fn full(header: &Bytes, content: &Bytes, salt: Salt) -> EntryForm {
    EntryForm::Full { header: header.clone(), content: Some(content.clone()), salt }
}

fn encoded(entry: &Entry) -> Vec<u8> {
    entry.to_wire().encode_to_vec()
}

fn entry_vector(schema: &Schema, name: &str, seq: u64, header: &Bytes, content: &Bytes) -> Value {
    let salt = [0xa0 | (seq as u8 & 0xf); 16];
    let commitment = Commitment::of(&salt, content);
    let leaf = Leaf::of(header, &commitment);
    let form = |form| {
        let bytes = encoded(&Entry { seq, form });
        json!({ "entry": hex(&bytes), "bytes": bytes.len() })
    };
    json!({
        "name": name,
        "header": schema.describe("EntryHeader", header),
        "header_bytes": hex(header),
        "content": schema.describe("Content", content),
        "content_bytes": hex(content),
        "salt": hex(&salt),
        "commitment": hex(commitment.as_bytes()),
        "leaf": hex(leaf.as_bytes()),
        "forms": {
            "full": form(full(header, content, salt)),
            "content_omitted": form(EntryForm::Full { header: header.clone(), content: None, salt }),
            "erased": form(EntryForm::Erased { header: header.clone(), commitment }),
            "hidden": form(EntryForm::Hidden { leaf }),
        },
    })
}

fn entries() -> Value {
    let schema = Schema::wire();
    let text = Content::text("Grüße, 世界").encode();
    let blob = Content {
        body: Body::Blob { content_type: "image/png".into(), data: Bytes::from_static(&[0x89, 0x50]) },
        metadata: vec![("k".into(), Bytes::from_static(&[1, 2]))],
    };
    let began = EntryHeader { kind: EntryKind::Membership, ordinal: 0, ..header(1) };
    let high = EntryHeader { seq: u64::MAX, ordinal: u64::MAX, ..header(6) };
    let urgent = EntryHeader { urgency: Urgency::Urgent, expires_ms: 1_790_000_060_000, ..header(3) };
    // Field 99, a varint, that no one knows today: kept and hashed as it is.
    let with_unknown = |bytes: Bytes| Bytes::from([&bytes[..], &[0x98, 0x06, 5]].concat());
    json!({
        "about": MADE_BY,
        "valid": [
            entry_vector(&schema, "the beginning of a group", 1, &began.encode(), &membership().encode()),
            entry_vector(&schema, "a text", 2, &header(2).encode(), &text),
            entry_vector(&schema, "an urgent blob that expires", 3, &urgent.encode(), &blob.encode()),
            entry_vector(&schema, "an empty text", 4, &header(4).encode(), &Content::text("").encode()),
            entry_vector(&schema, "a high seq", u64::MAX, &high.encode(), &text),
            entry_vector(
                &schema, "unknown fields", 5, &with_unknown(header(5).encode()), &with_unknown(text.clone()),
            ),
        ],
        "invalid": invalid_entries(&text),
    })
}

fn invalid_entries(text: &Bytes) -> Value {
    let invalid = |name: &str, entry: &[u8]| json!({ "name": name, "entry": hex(entry) });
    let head = header(2).encode();
    let good = Entry { seq: 2, form: full(&head, text, [1; 16]) };
    let other_seq = Entry { seq: 3, ..good };
    let long = Bytes::from([&head[..], &[0x9a, 0x06, 100], &[0; 100]].concat());
    let long = Entry { seq: 2, form: full(&long, text, [1; 16]) };
    let no_seq = Entry { seq: 0, form: EntryForm::Hidden { leaf: Leaf::new([1; 32]) } };
    let raw = |number: u8, form: &[u8]| [&[0x08, 2, (number << 3) | 2, form.len() as u8], form].concat();
    let part = |number: u8, bytes: &[u8]| [&[(number << 3) | 2, bytes.len() as u8], bytes].concat();
    json!([
        invalid("another seq beside the header's", &encoded(&other_seq)),
        invalid("a header beyond its limit", &encoded(&long)),
        invalid("a hidden entry of seq 0", &encoded(&no_seq)),
        invalid("no form", &[0x08, 2]),
        invalid("a salt of 15 bytes", &raw(2, &[part(1, &head), part(2, text), part(3, &[1; 15])].concat())),
        invalid("a content that is said to be omitted", &{
            let omitted = vec![0x20, 1];
            raw(2, &[part(1, &head), part(2, text), part(3, &[1; 16]), omitted].concat())
        }),
        invalid("a commitment of 31 bytes", &raw(3, &[part(1, &head), part(2, &[1; 31])].concat())),
        invalid("a leaf of 33 bytes", &raw(4, &part(1, &[1; 33]))),
        invalid("no header", &raw(2, &part(3, &[1; 16]))),
        invalid("a header that is no message", &raw(3, &[part(1, &[0xff; 4]), part(2, &[1; 32])].concat())),
    ])
}

// ---- chains ------------------------------------------------------------------------------------------------

/// Six entries in every form, as one reader may get them, with the leaf of each.
fn sample_conversation() -> Vec<(Entry, Leaf)> {
    let form = |seq: u64| {
        let head = match seq {
            1 => EntryHeader { kind: EntryKind::Membership, ordinal: 0, ..header(1) },
            _ => EntryHeader { ordinal: seq - 1, ..header(seq) },
        };
        let content = if seq == 1 { membership() } else { Content::text(format!("message {seq}")) };
        let (head, content, salt) = (head.encode(), content.encode(), [seq as u8; 16]);
        let commitment = Commitment::of(&salt, &content);
        match seq {
            3 => EntryForm::Erased { header: head, commitment },
            4 => EntryForm::Hidden { leaf: Leaf::of(&head, &commitment) },
            _ => full(&head, &content, salt),
        }
    };
    let entries = (1..=6).map(|seq| Entry { seq, form: form(seq) });
    entries.map(|entry| (entry.clone(), entry.leaf().unwrap_or(Leaf::new([0; 32])))).collect()
}

fn chain_vector(name: &str, conversation: ConversationId, entries: &[(Entry, Leaf)]) -> Value {
    let mut chain = Chain::ZERO;
    let links = entries.iter().map(|(entry, leaf)| {
        chain = chain.next(conversation, entry.seq, leaf);
        json!({
            "seq": entry.seq, "entry": hex(&encoded(entry)),
            "leaf": hex(leaf.as_bytes()), "chain": hex(chain.as_bytes()),
        })
    });
    let links: Vec<_> = links.collect();
    json!({ "name": name, "conversation": hex(conversation.as_bytes()), "entries": links })
}

fn chains() -> Value {
    let conversation = ConversationId::new([0xc0; 16]);
    let entries = sample_conversation();
    let good = chain_vector("full, erased and hidden", conversation, &entries);
    let tampered = |name: &str, first_wrong_seq: u64, change: &dyn Fn(&mut Vec<Value>)| {
        let mut vector = good.clone();
        if let Some(links) = vector["entries"].as_array_mut() {
            change(links);
        }
        vector["name"] = json!(name);
        vector["first_wrong_seq"] = json!(first_wrong_seq);
        vector
    };
    let other = Content::text("message 7").encode();
    let changed =
        Entry { seq: 2, form: full(&EntryHeader { ordinal: 1, ..header(2) }.encode(), &other, [2; 16]) };
    json!({
        "about": MADE_BY,
        "chain_0": hex(Chain::ZERO.as_bytes()),
        "valid": [
            good.clone(),
            chain_vector("the same entries in another conversation", ConversationId::new([0xc1; 16]), &entries),
        ],
        "invalid": [
            tampered("another content", 2, &|links| links[1]["entry"] = json!(hex(&encoded(&changed)))),
            tampered("two entries are exchanged", 5, &|links| {
                let fifth = links[4]["entry"].clone();
                links[4]["entry"] = links[5]["entry"].clone();
                links[5]["entry"] = fifth;
            }),
            tampered("an entry is left out", 3, &|links| drop(links.remove(2))),
            tampered("a chain value is another", 6, &|links| links[5]["chain"] = json!("00".repeat(32))),
        ],
    })
}

// ---- ids ---------------------------------------------------------------------------------------------------

fn ids() -> Value {
    let key_bytes: [u8; 32] = std::array::from_fn(|n| n as u8);
    let key = IdKey::new(key_bytes);
    let users = [("", "alice"), ("", "bob"), ("acme", "alice"), ("ab", "c"), ("a", "bc"), ("", "世界")];
    let users: Vec<_> = users.iter().map(|(tenant, subject)| {
        let user = key.user(tenant, subject);
        json!({ "tenant": tenant, "subject": subject, "user": hex(user.as_bytes()), "slot": user.slot().get() })
    }).collect();
    let (alice, bob) = (key.user("", "alice"), key.user("", "bob"));
    let direct = |a: UserId, b: UserId| {
        let id = key.direct(a, b);
        json!({
            "a": hex(a.as_bytes()), "b": hex(b.as_bytes()),
            "conversation": hex(id.as_bytes()), "slot": id.slot().get(),
        })
    };
    let request = ClientMessageId::from_parts(1_790_000_000_000, [0xab; 10]);
    let group = |creator: UserId| {
        let id = key.group(creator, request);
        json!({
            "creator": hex(creator.as_bytes()), "client_message_id": hex(request.as_bytes()),
            "conversation": hex(id.as_bytes()), "slot": id.slot().get(),
        })
    };
    let uuid7 = |unix_ms: u64, random: [u8; 10]| {
        let id = ClientMessageId::from_parts(unix_ms, random);
        json!({ "id": hex(id.as_bytes()), "unix_ms": unix_ms.to_string() })
    };
    let invalid = |name: &str, bytes: &[u8]| json!({ "name": name, "id": hex(bytes) });
    let mut version_4 = *request.as_bytes();
    version_4[6] = 0x4b;
    let mut other_variant = *request.as_bytes();
    other_variant[8] = 0xcb;
    json!({
        "about": MADE_BY,
        "key": hex(&key_bytes),
        "users": users,
        "direct": [direct(alice, bob), direct(bob, alice), direct(alice, alice)],
        "groups": [group(alice), group(bob)],
        "uuid7": {
            "valid": [uuid7(0, [0; 10]), uuid7(1_790_000_000_000, [0xff; 10]), uuid7((1 << 48) - 1, [1; 10])],
            "invalid": [
                invalid("version 4", &version_4), invalid("another variant", &other_variant),
                invalid("15 bytes", &request.as_bytes()[..15]), invalid("no bytes", &[]),
            ],
        },
    })
}
