//! How RocksDB is set up. Memory, threads and files are bounded; everything that checks what it reads is on.

use rocksdb::{BlockBasedOptions, Cache, DBCompressionType, DBRecoveryMode, LogLevel};
use talaria_log::Family;
use talaria_protocol::message::Durability;

/// What an operator may choose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// `Fsync`: a commit is on the disk. `Os`: it survives the process, not the machine; what a power cut leaves may
    /// be refused at the next opening.
    pub durability: Durability,
    /// Cache of blocks read, bytes.
    pub block_cache_bytes: usize,
    /// Rows in memory that are not in tables yet, all families together, bytes.
    pub memtable_bytes: usize,
    /// Open table files.
    pub open_files_max: u32,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            durability: Durability::Fsync,
            block_cache_bytes: 64 * 1024 * 1024,
            memtable_bytes: 64 * 1024 * 1024,
            open_files_max: 512,
        }
    }
}

/// Threads of RocksDB for flushes and compactions together.
const BACKGROUND_JOBS: i32 = 2;
/// Write-ahead logs together; beyond it the oldest families are flushed. Bounds the time that recovery takes.
const WAL_BYTES_MAX: u64 = 128 * 1024 * 1024;
/// RocksDB's own diary, `LOG`.
const DIARY_BYTES_MAX: usize = 1024 * 1024;
const DIARY_FILES: usize = 2;
/// Of a block of entries, which are read in pages; other rows are read one by one.
const ENTRY_BLOCK_BYTES: usize = 16 * 1024;
const ROW_BLOCK_BYTES: usize = 4 * 1024;
/// Tables of entries that are older are merged into the next level though nothing else asks for it: so long, a level, it
/// takes until the space of cut entries comes back.
const ENTRY_TABLE_AGE_SECS_MAX: u64 = 24 * 3600;
/// Costs 1 % of false positives.
const BLOOM_BITS_PER_KEY: f64 = 10.0;
/// Its blocks' checksums cover where a block lies, too.
const TABLE_FORMAT: i32 = 6;

impl Options {
    pub(crate) fn database(&self, create: bool) -> rocksdb::Options {
        let mut options = rocksdb::Options::default();
        options.create_if_missing(create);
        options.create_missing_column_families(true);
        options.set_paranoid_checks(true);
        options.set_wal_recovery_mode(DBRecoveryMode::TolerateCorruptedTailRecords);
        options.set_track_and_verify_wals_in_manifest(true);
        options.set_max_background_jobs(BACKGROUND_JOBS);
        options.set_max_open_files(i32::try_from(self.open_files_max).unwrap_or(i32::MAX));
        options.set_db_write_buffer_size(self.memtable_bytes);
        options.set_max_total_wal_size(WAL_BYTES_MAX);
        options.set_log_level(LogLevel::Warn);
        options.set_max_log_file_size(DIARY_BYTES_MAX);
        options.set_keep_log_file_num(DIARY_FILES);
        options.set_stats_dump_period_sec(0);
        options.set_avoid_unnecessary_blocking_io(true);
        options
    }

    pub(crate) fn family(&self, family: Family, cache: &Cache) -> rocksdb::Options {
        let mut table = BlockBasedOptions::default();
        table.set_format_version(TABLE_FORMAT);
        table.set_block_cache(cache);
        table.set_cache_index_and_filter_blocks(true);
        table.set_pin_l0_filter_and_index_blocks_in_cache(true);
        match family {
            Family::Entries => table.set_block_size(ENTRY_BLOCK_BYTES),
            _ => {
                table.set_block_size(ROW_BLOCK_BYTES);
                table.set_bloom_filter(BLOOM_BITS_PER_KEY, false);
            }
        }
        let mut options = rocksdb::Options::default();
        options.set_block_based_table_factory(&table);
        options.set_compression_type(DBCompressionType::Lz4);
        options.set_write_buffer_size(self.memtable_bytes / 2);
        options.set_level_compaction_dynamic_level_bytes(true);
        if family == Family::Entries {
            options.set_ttl(ENTRY_TABLE_AGE_SECS_MAX);
        }
        options
    }
}
