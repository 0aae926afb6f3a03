//! Writing a few hot messages by hand, without an allocation per field. Proto3's rule holds: a field of its
//! default value is left out. Tests compare every use with the generated code.

use bytes::{BufMut, BytesMut};
use prost::encoding::{WireType, encode_key, encode_varint, encoded_len_varint};

/// A varint field.
pub(crate) fn uint(tag: u32, value: u64, out: &mut BytesMut) {
    if value != 0 {
        encode_key(tag, WireType::Varint, out);
        encode_varint(value, out);
    }
}

/// Its length; tags here are below 16.
pub(crate) fn uint_len(value: u64) -> usize {
    if value == 0 { 0 } else { 1 + encoded_len_varint(value) }
}

/// A `fixed64` field.
pub(crate) fn fixed64(tag: u32, value: u64, out: &mut BytesMut) {
    if value != 0 {
        encode_key(tag, WireType::SixtyFourBit, out);
        out.put_u64_le(value);
    }
}

/// A `bytes` field.
pub(crate) fn bytes(tag: u32, value: &[u8], out: &mut BytesMut) {
    if !value.is_empty() {
        nested(tag, value.len(), out);
        out.put_slice(value);
    }
}

/// Its length.
pub(crate) fn bytes_len(len: usize) -> usize {
    if len == 0 { 0 } else { nested_len(len) }
}

/// The key and length of a message field; its `len` bytes follow.
pub(crate) fn nested(tag: u32, len: usize, out: &mut BytesMut) {
    encode_key(tag, WireType::LengthDelimited, out);
    encode_varint(len as u64, out);
}

/// The length of a message field of `len` bytes, key and length included.
pub(crate) fn nested_len(len: usize) -> usize {
    1 + encoded_len_varint(len as u64) + len
}
