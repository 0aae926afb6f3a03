//! The queue against a model that keeps the whole file in memory.

use super::*;

/// A file that lags, and the file as the program should see it.
#[derive(Default)]
struct Model {
    pending: Pending,
    file: Vec<u8>,
    seen: Vec<u8>,
}

impl Model {
    fn start(&mut self) {
        if self.pending.is_empty() {
            self.pending.start(self.file.len() as u64);
        }
    }

    fn write(&mut self, offset: usize, data: &[u8]) {
        self.start();
        self.pending.write(offset as u64, data);
        put(&mut self.seen, offset, data);
    }

    fn truncate(&mut self, size: usize) {
        self.start();
        if size > self.seen.len() {
            self.pending.grow(size as u64);
        } else {
            self.file.truncate(size);
            self.pending.clip(size as u64, self.file.len() as u64);
        }
        self.seen.resize(size, 0);
    }

    fn let_through(&mut self, mut bytes_max: u64) {
        while let Some(step) = self.pending.front(bytes_max) {
            let done = match step {
                Step::Write { offset, data } => {
                    put(&mut self.file, offset as usize, data);
                    data.len()
                }
                Step::Grow { size } => {
                    let size = self.file.len().max(size as usize);
                    self.file.resize(size, 0);
                    0
                }
            };
            bytes_max -= done as u64;
            self.pending.advance(done);
        }
    }

    fn scramble(&mut self, pick: u64) {
        if let Some((offset, data)) = self.pending.sector(pick) {
            put(&mut self.file, offset as usize, data);
        }
    }

    fn check(&self) {
        let mut read = self.file.clone();
        read.resize(self.seen.len(), 0);
        self.pending.overlay(0, &mut read);
        assert!(read == self.seen, "read {read:?}, seen {:?}", self.seen);
        if self.pending.is_empty() {
            assert_eq!(self.pending.bytes(), 0);
            assert_eq!(self.file, self.seen);
        } else {
            assert_eq!(self.pending.size(), self.seen.len() as u64);
        }
        let middle = self.seen.len() / 2;
        let mut half = self.file.clone();
        half.resize(self.seen.len(), 0);
        self.pending.overlay(middle as u64, &mut half[middle..]);
        assert_eq!(half[middle..], self.seen[middle..]);
    }
}

fn put(file: &mut Vec<u8>, offset: usize, data: &[u8]) {
    if !data.is_empty() {
        file.resize(file.len().max(offset + data.len()), 0);
        file[offset..offset + data.len()].copy_from_slice(data);
    }
}

/// A small generator (xorshift), so that a failure names its seed.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % limit
    }
}

#[test]
fn any_history_reads_as_if_nothing_were_pending() {
    for seed in 1..300 {
        let mut random = Random(seed);
        let mut model = Model::default();
        for turn in 0..120 {
            let data = vec![turn as u8 + 1; random.below(1500) as usize];
            match random.below(8) {
                0..=2 => model.write(model.seen.len(), &data),
                3 => model.write(random.below(4000) as usize, &data),
                4 => model.truncate(random.below(5000) as usize),
                5 => model.let_through(random.below(3000)),
                6 => model.scramble(random.below(u64::MAX)),
                _ if random.below(5) == 0 => model.let_through(u64::MAX),
                _ => {}
            }
            model.check();
        }
        model.let_through(u64::MAX);
        model.check();
    }
}

#[test]
fn what_is_let_through_of_a_log_is_a_prefix_of_it() {
    for seed in 1..100 {
        let mut random = Random(seed);
        let mut model = Model::default();
        for turn in 0..60 {
            model.write(model.seen.len(), &vec![turn; random.below(3000) as usize]);
            model.let_through(random.below(2000));
            assert_eq!(model.file, model.seen[..model.file.len()]);
        }
    }
}

#[test]
fn a_long_log_is_few_entries() {
    let mut pending = Pending::new();
    for record in 0..10_000 {
        pending.write(record * 100, &[7; 100]);
    }
    assert_eq!(pending.bytes(), 1_000_000);
    assert!(pending.entries.len() < 20);
}
