//! Files as RocksDB writes them, whole, cut and flipped.

use super::*;

/// Writes records as RocksDB does.
#[derive(Default)]
struct Writer {
    bytes: Vec<u8>,
}

impl Writer {
    fn push(&mut self, kind: u8, payload: &[u8]) {
        let checked = [&[kind], payload].concat();
        self.bytes.extend(crc32c::masked(&checked).to_le_bytes());
        self.bytes.extend((payload.len() as u16).to_le_bytes());
        self.bytes.extend(checked);
    }
    fn record(&mut self, mut payload: &[u8]) {
        let mut first = true;
        loop {
            let left = BLOCK - self.bytes.len() % BLOCK;
            if left < HEADER {
                self.bytes.extend(vec![0; left]);
                continue;
            }
            let (piece, rest) = payload.split_at(payload.len().min(left - HEADER));
            let kind = match (first, rest.is_empty()) {
                (true, true) => FULL,
                (true, false) => FIRST,
                (false, false) => MIDDLE,
                (false, true) => LAST,
            };
            self.push(kind, piece);
            (payload, first) = (rest, false);
            if payload.is_empty() {
                return;
            }
        }
    }
    fn batch(&mut self, sequence: u64, count: u32, data: &[u8]) {
        self.record(&[&sequence.to_le_bytes()[..], &count.to_le_bytes(), data].concat());
    }
}

const WAL: LogKind = LogKind::Wal { sequence: None };

/// Batches of many sizes; where each begins, and the file.
fn wal() -> (Vec<usize>, Vec<u8>) {
    let mut writer = Writer::default();
    let mut begins = Vec::new();
    for (n, len) in [10, 200, 32_700, 20, 70_000, 5, 90_000, 40, 300].into_iter().enumerate() {
        begins.push(writer.bytes.len());
        writer.batch(100 + 2 * n as u64, 2, &vec![n as u8; len]);
    }
    (begins, writer.bytes)
}

#[test]
fn a_whole_file_is_whole() {
    let (begins, bytes) = wal();
    let scanned = scan(&bytes, WAL);
    assert_eq!(scanned, LogScan { records: begins.len() as u64, next_sequence: Some(118), end: End::Whole });
    assert_eq!(scan(&[], WAL).end, End::Whole);
}

#[test]
fn a_cut_anywhere_is_a_torn_tail_or_whole() {
    let (begins, bytes) = wal();
    for cut in (0..bytes.len()).step_by(97).chain(begins.iter().copied()) {
        let scanned = scan(&bytes[..cut], WAL);
        let begin = begins.iter().copied().filter(|&begin| begin < cut).max().unwrap_or(0);
        match scanned.end {
            End::Whole => assert!(begins.contains(&cut) || cut == 0),
            // Before a record may be a trailer of zeros.
            End::Torn { at, is_garbled } => {
                assert!(!is_garbled && at >= begin && at < begin + HEADER, "cut at {cut}: torn at {at}");
            }
            End::Damaged { .. } => panic!("cut at {cut}"),
        }
    }
}

#[test]
fn a_flip_is_damage_unless_it_is_in_the_last_record() {
    let (begins, bytes) = wal();
    let last = begins[begins.len() - 1];
    let near = begins.iter().flat_map(|&begin| begin..begin + 24);
    for at in near.chain((0..bytes.len()).step_by(411)) {
        for bit in 0..8 {
            let mut flipped = bytes.clone();
            flipped[at] ^= 1 << bit;
            match scan(&flipped, WAL).end {
                End::Damaged { .. } => assert!(at < last, "flip at {at}"),
                End::Torn { at: torn, .. } => {
                    assert!(at >= last && torn == last, "flip at {at}: torn at {torn}");
                }
                End::Whole => {
                    // Only zeros that fill a block may change.
                    assert!(BLOCK - at % BLOCK < HEADER, "flip at {at} was not seen");
                }
            }
        }
    }
}

#[test]
fn a_batch_may_begin_at_any_distance_from_the_end_of_a_block() {
    for left in 0..40 {
        let mut writer = Writer::default();
        writer.batch(1, 1, &vec![1; BLOCK - left - HEADER - BATCH_HEADER]);
        assert_eq!(writer.bytes.len(), BLOCK - left);
        let begin = BLOCK - left;
        writer.batch(2, 3, b"first");
        let second = writer.bytes.len();
        writer.batch(5, 1, b"second");
        let bytes = writer.bytes;
        assert_eq!(
            scan(&bytes, WAL),
            LogScan { records: 3, next_sequence: Some(6), end: End::Whole },
            "{left} left"
        );
        // A batch that follows a damaged one is found wherever it begins.
        let mut flipped = bytes.clone();
        flipped[100] ^= 1;
        let end = scan(&flipped, LogKind::Wal { sequence: Some(1) }).end;
        assert!(matches!(end, End::Damaged { at: 0, .. }), "{left} left: {end:?}");
        for cut in begin + 1..second {
            let end = scan(&bytes[..cut], WAL).end;
            let trailer = left < HEADER && cut <= BLOCK;
            assert!(
                if trailer { end == End::Whole } else { matches!(end, End::Torn { .. }) },
                "{left}: {end:?}"
            );
        }
    }
}

#[test]
fn a_missing_batch_is_damage() {
    let mut writer = Writer::default();
    writer.batch(7, 3, b"x");
    writer.batch(11, 1, b"y");
    let End::Damaged { what, .. } = scan(&writer.bytes, WAL).end else { panic!("not seen") };
    assert_eq!(what, "writes 10..11 are missing");
    let end = scan(&writer.bytes, LogKind::Wal { sequence: Some(6) }).end;
    assert!(matches!(end, End::Damaged { at: 0, .. }));
}

#[test]
fn content_that_looks_like_a_record_does_not_make_a_torn_tail_damage() {
    let mut inner = Writer::default();
    inner.batch(1 << 40, 1, b"posing");
    let mut writer = Writer::default();
    writer.batch(7, 1, b"x");
    let torn = writer.bytes.len();
    writer.batch(8, 1, &[&inner.bytes[..], b"more"].concat());
    writer.bytes.pop();
    assert_eq!(scan(&writer.bytes, WAL).end, End::Torn { at: torn, is_garbled: false });
}

#[test]
fn zeros_at_the_end_are_a_torn_tail_and_in_the_middle_damage() {
    let (begins, mut bytes) = wal();
    let whole = bytes.len();
    bytes.extend([0; 5_000]);
    assert_eq!(scan(&bytes, WAL).end, End::Torn { at: whole, is_garbled: true });
    bytes[begins[1]..begins[2]].fill(0);
    assert!(matches!(scan(&bytes, WAL).end, End::Damaged { .. }));
}
