//! Frames on their way into TLS: whole frames come in, slices of several go out together, so that many small frames
//! become one record and one system call.

use std::{collections::VecDeque, io::IoSlice};

use bytes::{Buf, Bytes};

/// Frames given to TLS in one call.
const SLICES_MAX: usize = 32;

/// See the module. Bounded by its user, which stops filling it at a number of bytes.
#[derive(Debug, Default)]
pub(crate) struct TransmitBuffer {
    frames: VecDeque<Bytes>,
    bytes: usize,
}

impl TransmitBuffer {
    /// Adds a whole frame.
    pub(crate) fn push(&mut self, frame: Bytes) {
        self.bytes += frame.len();
        self.frames.push_back(frame);
    }

    /// Bytes that wait.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Nothing waits.
    pub(crate) fn is_empty(&self) -> bool {
        self.frames.is_empty()
    }

    /// Shows the first bytes that wait, in several slices.
    pub(crate) fn with_slices<T>(&self, write: impl FnOnce(&[IoSlice<'_>]) -> T) -> T {
        let mut slices = [IoSlice::new(&[]); SLICES_MAX];
        let mut count = 0;
        for (slice, frame) in slices.iter_mut().zip(&self.frames) {
            *slice = IoSlice::new(frame);
            count += 1;
        }
        write(&slices[..count])
    }

    /// The first `bytes` were taken.
    pub(crate) fn advance(&mut self, mut bytes: usize) {
        self.bytes -= bytes;
        while let Some(first) = self.frames.front_mut() {
            if first.len() > bytes {
                first.advance(bytes);
                return;
            }
            bytes -= first.len();
            self.frames.pop_front();
        }
        debug_assert!(bytes == 0, "more taken than given");
        if self.frames.capacity() > 4 * SLICES_MAX {
            self.frames = VecDeque::new();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn takes_parts_and_several_frames_at_once() {
        let mut buffer = TransmitBuffer::default();
        for text in ["abc", "de", "f"] {
            buffer.push(Bytes::from_static(text.as_bytes()));
        }
        let all = |buffer: &TransmitBuffer| {
            buffer.with_slices(|slices| slices.iter().flat_map(|slice| slice.to_vec()).collect::<Vec<u8>>())
        };
        assert_eq!(all(&buffer), b"abcdef");
        buffer.advance(4);
        assert_eq!((all(&buffer).as_slice(), buffer.bytes()), (b"ef".as_slice(), 2));
        buffer.advance(2);
        assert!(buffer.is_empty() && buffer.bytes() == 0);
    }
}
