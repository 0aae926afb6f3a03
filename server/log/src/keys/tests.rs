//! Golden tests: key bytes, family names.

#![allow(clippy::unwrap_used)]

use super::*;
use talaria_protocol::ids::{ClientMessageId, DeviceId};

fn conversation() -> ConversationId {
    ConversationId::new([0xc0; 16])
}
fn user() -> UserId {
    UserId::new([0xaa; 16])
}
fn device() -> DeviceId {
    DeviceId::new([0xdd; 16])
}
fn message_id() -> ClientMessageId {
    ClientMessageId::from_parts(0x0102_0304_0506, [0; 10])
}
fn hex(bytes: &[u8]) -> String {
    crate::error::Hex(bytes).to_string()
}

/// Slot of [0xc0; 16], BLAKE3's first 14 bits; computed apart from this code.
const C_SLOT: &str = "1f80";
/// Slot of [0xaa; 16].
const U_SLOT: &str = "3d05";

#[test]
fn key_bytes_are_pinned() {
    let (c, u, d) = ("c0".repeat(16), "aa".repeat(16), "dd".repeat(16));
    let id = "01020304050670008000000000000000";
    let seq = EntryKey { conversation: conversation(), seq: 0x0102 };
    assert_eq!(hex(&seq.encode()), format!("{C_SLOT}{c}0000000000000102"));
    assert_eq!(hex(&ConversationKey { conversation: conversation() }.encode()), format!("{C_SLOT}{c}"));
    let member = MemberKey { conversation: conversation(), user: user() };
    assert_eq!(hex(&member.encode()), format!("{C_SLOT}{c}{u}"));
    let cursor = CursorKey { conversation: conversation(), user: user(), device: device() };
    assert_eq!(hex(&cursor.encode()), format!("{C_SLOT}{c}{u}{d}"));
    let client_id = ClientIdKey { conversation: conversation(), user: user(), id: message_id() };
    assert_eq!(hex(&client_id.encode()), format!("{C_SLOT}{c}{u}{id}"));
    assert_eq!(hex(&UserKey { user: user() }.encode()), format!("{U_SLOT}{u}"));
    assert_eq!(hex(&DeviceKey { user: user(), device: device() }.encode()), format!("{U_SLOT}{u}{d}"));
    let by_user = MemberByUserKey { user: user(), conversation: conversation() };
    assert_eq!(hex(&by_user.encode()), format!("{u}{C_SLOT}{c}"));
    let names: Vec<_> = MetaKey::ALL.iter().map(|key| str::from_utf8(key.encode()).unwrap()).collect();
    assert_eq!(names, ["format", "deployment", "boots", "commit"]);
}

#[test]
fn family_names_are_pinned_and_never_reused() {
    let names: Vec<_> = Family::ALL.iter().map(|family| family.name()).collect();
    assert_eq!(
        names,
        [
            "entries",
            "conversations",
            "members",
            "cursors",
            "client_ids",
            "users",
            "devices",
            "members_by_user",
            "meta"
        ]
    );
    assert!(RETIRED_NAMES.iter().all(|retired| !names.contains(retired)));
    assert!(Family::ALL.iter().all(|&family| Family::by_name(family.name()) == Some(family)));
}

#[test]
fn keys_round_trip_and_bad_ones_are_refused() {
    let cursor = CursorKey { conversation: conversation(), user: user(), device: device() };
    assert_eq!(CursorKey::decode(&cursor.encode()).unwrap(), cursor);
    let entry = EntryKey { conversation: conversation(), seq: u64::MAX };
    assert_eq!(EntryKey::decode(&entry.encode()).unwrap(), entry);
    let member = MemberKey { conversation: conversation(), user: user() };
    assert_eq!(MemberKey::decode(&member.encode()).unwrap(), member);
    let by_user = MemberByUserKey { user: user(), conversation: conversation() };
    assert_eq!(MemberByUserKey::decode(&by_user.encode()).unwrap(), by_user);
    let client_id = ClientIdKey { conversation: conversation(), user: user(), id: message_id() };
    assert_eq!(ClientIdKey::decode(&client_id.encode()).unwrap(), client_id);
    let device_key = DeviceKey { user: user(), device: device() };
    assert_eq!(DeviceKey::decode(&device_key.encode()).unwrap(), device_key);
    assert_eq!(UserKey::decode(&UserKey { user: user() }.encode()).unwrap().user, user());
    let conversation_key = ConversationKey { conversation: conversation() };
    assert_eq!(ConversationKey::decode(&conversation_key.encode()).unwrap(), conversation_key);

    let mut bytes = entry.encode().to_vec();
    bytes[1] ^= 1;
    assert!(EntryKey::decode(&bytes).unwrap_err().to_string().contains("slot"));
    bytes.pop();
    assert!(EntryKey::decode(&bytes).unwrap_err().to_string().contains("26 bytes, this one 25"));
    let mut not_v7 = client_id.encode();
    not_v7[SLOT + 2 * ID + 6] = 0x40;
    assert!(ClientIdKey::decode(&not_v7).unwrap_err().to_string().contains("version 7"));
    assert!(MetaKey::decode(b"formaT").is_err());
}

#[test]
fn byte_order_is_seq_order() {
    let key = |seq| EntryKey { conversation: conversation(), seq }.encode();
    for seq in [0, 1, 255, 256, 65_535, u64::from(u32::MAX), u64::MAX - 1] {
        assert!(key(seq) < key(seq + 1));
    }
}

#[test]
fn prefix_ends() {
    assert_eq!(prefix_end(&[1, 2]), Some(vec![1, 3]));
    assert_eq!(prefix_end(&[1, 0xff]), Some(vec![2]));
    assert_eq!(prefix_end(&[0xff, 0xff]), None);
    assert_eq!(prefix_end(&[]), None);
}
