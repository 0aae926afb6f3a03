//! Frames: a LEB128 length, then that many bytes of an encoded `Frame` message. spec/frame.md.
//!
//! Bytes of a connection flow into [`FrameDecoder`], which owns the partial ones; payloads flow out as slices of
//! the receive buffer. Nothing here may allocate by what a peer claims: memory grows with what has arrived.
//! A payload keeps the receive buffer it is a slice of alive, so what is kept for long must be copied.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use prost::Message;

use crate::{
    error_code::ErrorCode,
    limits::{FRAME_BYTES_MAX, FRAME_PREFIX_BYTES_MAX},
    wire,
};

/// Room that a read finds at least, in bytes.
const READ_BYTES_MIN: usize = 4 * 1024;
/// An empty buffer larger than this is given back.
const IDLE_BYTES_MAX: usize = 16 * 1024;

/// Why a stream of bytes is no stream of frames. The connection ends; nothing after it can be trusted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// A length prefix that is longer than it need be, or than 4 bytes ([FRM-2]).
    #[error("a length prefix is overlong")]
    Overlong,
    /// Length 0 ([FRM-5]).
    #[error("a frame is empty")]
    Empty,
    /// More than the connection allows now ([FRM-3], [FRM-4]).
    #[error("a frame of {bytes} bytes where {bytes_max} are allowed")]
    TooLarge {
        /// Claimed.
        bytes: usize,
        /// Allowed.
        bytes_max: usize,
    },
}

impl FrameError {
    /// What to tell the peer.
    pub const fn code(self) -> ErrorCode {
        ErrorCode::ProtocolViolation
    }
}

/// Finds frames in a stream of bytes.
#[derive(Debug)]
pub struct FrameDecoder {
    received: BytesMut,
    frame_bytes_max: usize,
    failed: Option<FrameError>,
}

impl FrameDecoder {
    /// A decoder at the start of a stream that refuses payloads longer than `frame_bytes_max`
    /// ([`FRAME_BYTES_MAX_BEFORE_WELCOME`](crate::limits::FRAME_BYTES_MAX_BEFORE_WELCOME) at first).
    pub fn new(frame_bytes_max: usize) -> Self {
        Self { received: BytesMut::new(), frame_bytes_max, failed: None }
    }

    /// Changes the bound, from the next [`poll_frame`](Self::poll_frame) on.
    pub fn set_frame_bytes_max(&mut self, frame_bytes_max: usize) {
        self.frame_bytes_max = frame_bytes_max;
    }

    /// The buffer to read into, with some room: for `AsyncReadExt::read_buf`. Append only. Call it when
    /// [`poll_frame`](Self::poll_frame) gave `None`: a buffer of unpolled frames would grow without bound.
    pub fn read_buf(&mut self) -> &mut BytesMut {
        let held = self.received.len();
        let wanted = match prefix(&self.received, self.frame_bytes_max) {
            Ok(Some((prefix_bytes, payload_bytes))) => (prefix_bytes + payload_bytes).saturating_sub(held),
            _ => 0,
        };
        // At most doubles what has arrived, whatever length is claimed.
        self.received.reserve(wanted.min(held).max(READ_BYTES_MIN));
        &mut self.received
    }

    /// Appends a copy of `bytes`; for transports that own their buffers.
    pub fn extend(&mut self, bytes: &[u8]) {
        self.received.extend_from_slice(bytes);
    }

    /// Bytes held of frames that are not complete or not polled.
    pub fn buffered_bytes(&self) -> usize {
        self.received.len()
    }

    /// The next payload, a slice of the receive buffer; `None` until more bytes arrive.
    ///
    /// # Errors
    /// The stream is broken; every later call says the same.
    pub fn poll_frame(&mut self) -> Result<Option<Bytes>, FrameError> {
        if let Some(error) = self.failed {
            return Err(error);
        }
        match prefix(&self.received, self.frame_bytes_max) {
            Err(error) => {
                self.failed = Some(error);
                self.received = BytesMut::new();
                Err(error)
            }
            Ok(Some((prefix_bytes, payload_bytes)))
                if self.received.len() >= prefix_bytes + payload_bytes =>
            {
                self.received.advance(prefix_bytes);
                Ok(Some(self.received.split_to(payload_bytes).freeze()))
            }
            Ok(_) => {
                if self.received.is_empty() && self.received.capacity() > IDLE_BYTES_MAX {
                    self.received = BytesMut::new();
                }
                Ok(None)
            }
        }
    }
}

/// Lengths of the prefix and of the payload that it announces; `None` while the prefix is not complete.
fn prefix(received: &[u8], frame_bytes_max: usize) -> Result<Option<(usize, usize)>, FrameError> {
    let mut payload_bytes = 0;
    for (index, &byte) in received.iter().take(FRAME_PREFIX_BYTES_MAX).enumerate() {
        payload_bytes |= usize::from(byte & 0x7f) << (7 * index);
        if byte & 0x80 != 0 {
            continue;
        }
        return match payload_bytes {
            _ if byte == 0 && index > 0 => Err(FrameError::Overlong),
            0 => Err(FrameError::Empty),
            bytes if bytes > frame_bytes_max => {
                Err(FrameError::TooLarge { bytes, bytes_max: frame_bytes_max })
            }
            bytes => Ok(Some((index + 1, bytes))),
        };
    }
    if received.len() < FRAME_PREFIX_BYTES_MAX { Ok(None) } else { Err(FrameError::Overlong) }
}

/// Appends a frame's length prefix.
pub(crate) fn put_prefix(payload_bytes: usize, out: &mut BytesMut) {
    debug_assert!(payload_bytes > 0 && payload_bytes <= FRAME_BYTES_MAX, "a frame of {payload_bytes} bytes");
    prost::encoding::encode_varint(payload_bytes as u64, out);
}

/// A whole frame, prefix included.
pub fn encode_frame(frame: &wire::Frame) -> Bytes {
    let mut out = BytesMut::new();
    encode_frame_into(frame, &mut out);
    out.freeze()
}

/// Appends a whole frame, prefix included.
pub fn encode_frame_into(frame: &wire::Frame, out: &mut BytesMut) {
    let payload_bytes = frame.encoded_len();
    out.reserve(FRAME_PREFIX_BYTES_MAX + payload_bytes);
    put_prefix(payload_bytes, out);
    frame.encode_raw(out);
}

/// A whole frame around an encoded `Frame` message, for vectors and tests.
pub fn encode_payload(payload: &[u8]) -> Bytes {
    let mut out = BytesMut::with_capacity(FRAME_PREFIX_BYTES_MAX + payload.len());
    put_prefix(payload.len(), &mut out);
    out.put_slice(payload);
    out.freeze()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn decoder() -> FrameDecoder {
        FrameDecoder::new(FRAME_BYTES_MAX)
    }

    #[test]
    fn refuses_overlong_empty_and_too_large_before_the_payload_arrives() {
        let table: [(&[u8], FrameError); 6] = [
            (&[0], FrameError::Empty),
            (&[0x80, 0], FrameError::Overlong),
            (&[0x81, 0x80, 0], FrameError::Overlong),
            (&[0x80, 0x80, 0x80, 0x80], FrameError::Overlong),
            (&[0x81, 0x80, 0x40], FrameError::TooLarge { bytes: 0x10_0001, bytes_max: FRAME_BYTES_MAX }),
            (
                &[0xff, 0xff, 0xff, 0x7f],
                FrameError::TooLarge { bytes: 0xfff_ffff, bytes_max: FRAME_BYTES_MAX },
            ),
        ];
        for (bytes, error) in table {
            let mut decoder = decoder();
            decoder.extend(bytes);
            assert_eq!(decoder.poll_frame(), Err(error), "{bytes:02x?}");
            decoder.extend(&[1, 1]);
            assert_eq!(decoder.poll_frame(), Err(error), "broken for good");
        }
    }

    #[test]
    fn the_bound_can_be_raised_between_frames() {
        let mut decoder = FrameDecoder::new(1);
        decoder.extend(&[1, 7, 2, 8, 9]);
        assert_eq!(decoder.poll_frame(), Ok(Some(Bytes::from_static(&[7]))));
        decoder.set_frame_bytes_max(2);
        assert_eq!(decoder.poll_frame(), Ok(Some(Bytes::from_static(&[8, 9]))));
        assert_eq!(decoder.poll_frame(), Ok(None));
    }

    #[test]
    fn a_claim_of_a_mebibyte_reserves_no_mebibyte() {
        let mut decoder = decoder();
        decoder.extend(&[0x80, 0x80, 0x40]);
        assert_eq!(decoder.poll_frame(), Ok(None));
        assert!(decoder.read_buf().capacity() <= 2 * READ_BYTES_MIN);
        for arrived in [10_000usize, 100_000, 500_000] {
            decoder.extend(&vec![1; arrived - (decoder.buffered_bytes() - 3)]);
            assert_eq!(decoder.poll_frame(), Ok(None));
            let capacity = decoder.read_buf().capacity();
            assert!(capacity <= 4 * arrived, "{capacity} bytes for {arrived}");
        }
    }

    #[test]
    fn payloads_share_the_receive_buffer_and_an_idle_decoder_holds_little() {
        let mut decoder = decoder();
        let frame = encode_payload(&[5; 100_000]);
        decoder.read_buf().extend_from_slice(&frame);
        let held = decoder.received.as_ptr() as usize;
        let payload = decoder.poll_frame().unwrap().unwrap();
        assert_eq!(payload.as_ptr() as usize, held + 3, "no copy");
        drop(payload);
        decoder.received.reserve(100_000);
        assert_eq!(decoder.poll_frame(), Ok(None));
        assert!(decoder.received.capacity() <= IDLE_BYTES_MAX);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn any_split_of_the_stream_gives_the_same_frames(
            payloads in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..300), 0..8),
            cuts in prop::collection::vec(1usize..200, 1..20),
        ) {
            let stream: Vec<u8> = payloads.iter().flat_map(|p| encode_payload(p)).collect();
            let (mut decoder, mut frames, mut rest) = (decoder(), Vec::new(), stream.as_slice());
            for &cut in cuts.iter().cycle() {
                if rest.is_empty() {
                    break;
                }
                let (now, later) = rest.split_at(cut.min(rest.len()));
                decoder.read_buf().extend_from_slice(now);
                rest = later;
                while let Some(frame) = decoder.poll_frame().unwrap() {
                    frames.push(frame.to_vec());
                }
            }
            prop_assert_eq!(frames, payloads);
            prop_assert_eq!(decoder.buffered_bytes(), 0);
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
            let mut decoder = FrameDecoder::new(100);
            decoder.extend(&bytes);
            while let Ok(Some(frame)) = decoder.poll_frame() {
                prop_assert!(!frame.is_empty() && frame.len() <= 100);
            }
        }
    }
}
