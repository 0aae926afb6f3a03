//! spec/vectors: the committed files are what this crate makes, and what they say holds, read as any implementation
//! would read them.

#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "support/vectors.rs"]
mod vectors;

use std::{fs, path::PathBuf};

use bytes::Bytes;
use prost::Message;
use serde_json::Value;
use talaria_protocol::{
    chain::{Chain, Commitment, Leaf},
    entry::Entry,
    frame::{FrameDecoder, FrameError},
    ids::{ClientMessageId, ConversationId, IdKey, UserId},
    limits,
    message::{RequestId, client::ClientFrame, server::ServerFrame},
    wire,
};
use vectors::proto::{Schema, hex, unhex};

fn committed(name: &str) -> Value {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../spec/vectors").join(name);
    let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    serde_json::from_str(&text).unwrap()
}

/// The objects of a list, each with its name (for messages) and itself.
fn each(list: &Value) -> impl Iterator<Item = (&str, &Value)> {
    list.as_array().expect("a list").iter().map(|item| (item["name"].as_str().unwrap_or("unnamed"), item))
}

fn bytes(value: &Value) -> Bytes {
    unhex(value.as_str().expect("hex")).into()
}

fn array<const N: usize>(value: &Value) -> [u8; N] {
    bytes(value)[..].try_into().expect("a fixed length")
}

#[test]
fn committed_vectors_are_fresh() {
    for (name, value) in vectors::all() {
        assert!(committed(name) == value, "spec/vectors/{name} is stale; run `cargo xtask vectors`");
    }
}

/// The payloads of a stream and how it goes on.
fn decode(stream: &[u8], frame_bytes_max: usize) -> (Vec<String>, Result<usize, FrameError>) {
    let mut decoder = FrameDecoder::new(frame_bytes_max);
    decoder.extend(stream);
    let mut payloads = Vec::new();
    loop {
        match decoder.poll_frame() {
            Ok(Some(payload)) => payloads.push(hex(&payload)),
            Ok(None) => return (payloads, Ok(decoder.buffered_bytes())),
            Err(error) => return (payloads, Err(error)),
        }
    }
}

fn strings(list: &Value) -> Vec<String> {
    list.as_array().unwrap().iter().map(|item| item.as_str().unwrap().to_owned()).collect()
}

#[test]
fn frames_hold() {
    let file = committed("frames.json");
    for (name, vector) in each(&file["valid"]) {
        let (payloads, rest) = decode(&bytes(&vector["stream"]), limits::FRAME_BYTES_MAX);
        assert_eq!(payloads, strings(&vector["payloads"]), "{name}");
        assert_eq!(rest.map(|rest| rest as u64).ok(), vector["incomplete_bytes"].as_u64(), "{name}");
    }
    for (name, vector) in each(&file["invalid"]) {
        let bytes_max = vector["frame_bytes_max"].as_u64().unwrap() as usize;
        let (payloads, rest) = decode(&bytes(&vector["stream"]), bytes_max);
        let error = match rest.expect_err(name) {
            FrameError::Overlong => "OVERLONG",
            FrameError::Empty => "EMPTY",
            FrameError::TooLarge { .. } => "TOO_LARGE",
        };
        assert_eq!(
            (payloads, error),
            (strings(&vector["payloads"]), vector["error"].as_str().unwrap()),
            "{name}"
        );
    }
}

fn payload(vector: &Value) -> Bytes {
    let mut decoder = FrameDecoder::new(limits::FRAME_BYTES_MAX);
    decoder.extend(&bytes(&vector["frame"]));
    let payload = decoder.poll_frame().unwrap().expect("a whole frame");
    assert_eq!(decoder.buffered_bytes(), 0, "one frame");
    payload
}

#[test]
fn messages_hold() {
    let (file, schema) = (committed("messages.json"), Schema::wire());
    let mut bodies = Vec::new();
    for (side, is_client) in [("client", true), ("server", false)] {
        for (name, vector) in each(&file[side]) {
            let payload = payload(vector);
            let encoded = if is_client {
                ClientFrame::parse(payload.clone()).expect(name).encode()
            } else {
                ServerFrame::parse(payload.clone()).expect(name).encode()
            };
            if vector["message"].is_null() {
                assert!(encoded.is_empty(), "{name} is ignored");
                continue;
            }
            assert_eq!(schema.describe("Frame", &payload), vector["message"], "{name}");
            assert_eq!(encoded, bytes(&vector["frame"]), "{name} is encoded the same again");
            bodies.extend(vector["message"].as_object().unwrap().keys().cloned());
        }
    }
    bodies.sort();
    bodies.dedup();
    let missing: Vec<_> =
        schema.field_names("Frame").filter(|name| !bodies.iter().any(|b| b == name)).collect();
    assert_eq!(missing, ["critical"], "every body of wire.proto has a vector");
}

#[test]
fn invalid_messages_are_refused_as_said() {
    let file = committed("messages.json");
    for (name, vector) in each(&file["invalid"]["client"]) {
        let error = ClientFrame::parse(payload(vector)).expect_err(name);
        assert_eq!(error.code.name(), vector["code"].as_str().unwrap(), "{name}");
        let request_id = vector["request_id"].as_str().map(|id| id.parse::<u64>().unwrap());
        assert_eq!(error.request_id.map(RequestId::get), request_id, "{name}");
    }
    for (name, vector) in each(&file["invalid"]["server"]) {
        ServerFrame::parse(payload(vector)).expect_err(name);
    }
}

fn entry(hex: &Value) -> Option<Entry> {
    Entry::from_wire(wire::Entry::decode(bytes(hex)).ok()?).ok()
}

#[test]
fn entries_hold() {
    let (file, schema) = (committed("entries.json"), Schema::wire());
    for (name, vector) in each(&file["valid"]) {
        let (header, content) = (bytes(&vector["header_bytes"]), bytes(&vector["content_bytes"]));
        assert_eq!(schema.describe("EntryHeader", &header), vector["header"], "{name}");
        assert_eq!(schema.describe("Content", &content), vector["content"], "{name}");
        let commitment = Commitment::of(&array(&vector["salt"]), &content);
        assert_eq!(commitment, Commitment::new(array(&vector["commitment"])), "{name}");
        let leaf = Leaf::new(array(&vector["leaf"]));
        assert_eq!(leaf, Leaf::of(&header, &commitment), "{name}");
        for (form, described) in vector["forms"].as_object().unwrap() {
            let entry = entry(&described["entry"]).unwrap_or_else(|| panic!("{name}, {form}"));
            assert_eq!(entry.leaf_with(&content), Some(leaf), "{name}, {form}: every form has the same leaf");
            assert_eq!(Some(entry.encoded_len() as u64), described["bytes"].as_u64(), "{name}, {form}");
        }
    }
    for (name, vector) in each(&file["invalid"]) {
        assert_eq!(entry(&vector["entry"]), None, "{name}");
    }
}

/// The first seq whose chain is not what the entries give; `None` when all are.
fn first_wrong_seq(vector: &Value) -> Option<u64> {
    let conversation = ConversationId::new(array(&vector["conversation"]));
    let (mut chain, mut last) = (Chain::ZERO, 0);
    for (_, link) in each(&vector["entries"]) {
        let entry = entry(&link["entry"]).expect("a valid entry");
        if entry.seq != last + 1 {
            return Some(last + 1);
        }
        chain = chain.next(conversation, entry.seq, &entry.leaf().expect("nothing is omitted here"));
        if chain != Chain::new(array(&link["chain"])) {
            return Some(entry.seq);
        }
        last = entry.seq;
    }
    None
}

#[test]
fn chains_hold_and_tampering_shows_where() {
    let file = committed("chains.json");
    assert_eq!(Chain::new(array(&file["chain_0"])), Chain::ZERO);
    for (name, vector) in each(&file["valid"]) {
        assert_eq!(first_wrong_seq(vector), None, "{name}");
    }
    for (name, vector) in each(&file["invalid"]) {
        assert_eq!(first_wrong_seq(vector), vector["first_wrong_seq"].as_u64(), "{name}");
    }
}

#[test]
fn ids_hold() {
    let file = committed("ids.json");
    let key = IdKey::new(array(&file["key"]));
    let conversation = |vector: &Value, id: ConversationId| {
        assert_eq!(id, ConversationId::new(array(&vector["conversation"])));
        assert_eq!(Some(u64::from(id.slot().get())), vector["slot"].as_u64());
    };
    for (_, vector) in each(&file["users"]) {
        let user = key.user(vector["tenant"].as_str().unwrap(), vector["subject"].as_str().unwrap());
        assert_eq!(user, UserId::new(array(&vector["user"])));
        assert_eq!(Some(u64::from(user.slot().get())), vector["slot"].as_u64());
    }
    for (_, vector) in each(&file["direct"]) {
        conversation(vector, key.direct(UserId::new(array(&vector["a"])), UserId::new(array(&vector["b"]))));
    }
    for (_, vector) in each(&file["groups"]) {
        let request = ClientMessageId::parse(&bytes(&vector["client_message_id"])).unwrap();
        conversation(vector, key.group(UserId::new(array(&vector["creator"])), request));
    }
    for (_, vector) in each(&file["uuid7"]["valid"]) {
        let id = ClientMessageId::parse(&bytes(&vector["id"])).unwrap();
        assert_eq!(id.unix_ms().to_string(), vector["unix_ms"]);
    }
    for (name, vector) in each(&file["uuid7"]["invalid"]) {
        assert!(ClientMessageId::parse(&bytes(&vector["id"])).is_err(), "{name}");
    }
}
