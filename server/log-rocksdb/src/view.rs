//! A snapshot of RocksDB as a [`View`]. Every block read is checked; what fails names its file.

use std::collections::HashMap;

use bytes::Bytes;
use rocksdb::{DB, ReadOptions, SnapshotWithThreadMode};
use talaria_log::{Family, Order, ReadError, Scan, View, commit_log::Visit};

use crate::{error::file_in, log::family_of};

pub(crate) struct RocksView<'a> {
    db: &'a DB,
    snapshot: SnapshotWithThreadMode<'a, DB>,
}

impl<'a> RocksView<'a> {
    pub(crate) fn new(db: &'a DB) -> Self {
        Self { db, snapshot: db.snapshot() }
    }

    fn error(&self, family: Family, keys: (Vec<u8>, Option<Vec<u8>>), error: &rocksdb::Error) -> ReadError {
        let message: &str = error.as_ref();
        let file = file_in(message).map(|name| describe_file(self.db, &name));
        ReadError::Store { family, keys, file, detail: message.to_owned() }
    }
}

/// The name of a table file, and the keys it holds.
fn describe_file(db: &DB, name: &str) -> String {
    let hex = |key: &Option<Vec<u8>>| -> String {
        key.iter().flatten().map(|byte| format!("{byte:02x}")).collect()
    };
    let tables: HashMap<String, _> = db
        .live_files()
        .unwrap_or_default()
        .into_iter()
        .map(|file| (file.name.trim_start_matches('/').to_owned(), file))
        .collect();
    tables.get(name).map_or_else(
        || name.to_owned(),
        |file| {
            let family = &file.column_family_name;
            format!("{name} ({family}, keys {}..={})", hex(&file.start_key), hex(&file.end_key))
        },
    )
}

impl View for RocksView<'_> {
    fn get(&self, family: Family, key: &[u8]) -> Result<Option<Bytes>, ReadError> {
        let mut options = ReadOptions::default();
        options.set_verify_checksums(true);
        match self.snapshot.get_pinned_cf_opt(family_of(self.db, family), key, options) {
            Ok(value) => Ok(value.map(|value| Bytes::copy_from_slice(&value))),
            Err(error) => Err(self.error(family, (key.to_vec(), None), &error)),
        }
    }

    fn scan(
        &self,
        family: Family,
        scan: &Scan,
        visit: &mut dyn FnMut(&[u8], &[u8]) -> Visit,
    ) -> Result<(), ReadError> {
        if scan.is_empty() {
            return Ok(());
        }
        let mut options = ReadOptions::default();
        options.set_verify_checksums(true);
        options.set_iterate_lower_bound(scan.start.clone());
        if let Some(end) = &scan.end {
            options.set_iterate_upper_bound(end.clone());
        }
        let mut rows = self.snapshot.raw_iterator_cf_opt(family_of(self.db, family), options);
        match scan.order {
            Order::Forward => rows.seek_to_first(),
            Order::Backward => rows.seek_to_last(),
        }
        while let Some((key, value)) = rows.item() {
            if visit(key, value).is_break() {
                return Ok(());
            }
            match scan.order {
                Order::Forward => rows.next(),
                Order::Backward => rows.prev(),
            }
        }
        let range = (scan.start.clone(), scan.end.clone());
        rows.status().map_err(|error| self.error(family, range, &error))
    }
}
