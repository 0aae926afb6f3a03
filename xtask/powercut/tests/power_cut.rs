//! A program under the shim, killed with SIGKILL: what it synced stays, what it did not is gone.
//!
//! The program is `powercut-victim`; each test tells it line by line what to do, kills it, and
//! looks at the files from outside.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::OnceLock;

use talaria_powercut::{PowerCut, Stats, build_shim};
use tempfile::TempDir;

fn shim() -> PathBuf {
    static SHIM: OnceLock<PathBuf> = OnceLock::new();
    SHIM.get_or_init(|| build_shim().unwrap()).clone()
}

struct Victim {
    child: Child,
    stdin: Option<ChildStdin>,
    stdout: BufReader<ChildStdout>,
    folder: TempDir,
}

impl Victim {
    /// Runs the victim in a fresh folder `data`, under the power cut that `adjust` makes of it.
    fn start(adjust: impl FnOnce(&mut PowerCut)) -> Self {
        Self::start_in(tempfile::tempdir().unwrap(), adjust)
    }

    fn start_in(folder: TempDir, adjust: impl FnOnce(&mut PowerCut)) -> Self {
        let mut cut = PowerCut::new(folder.path().join("data"));
        cut.stats = Some(folder.path().join("stats"));
        cut.shim = Some(shim());
        adjust(&mut cut);
        Self::spawn(folder, |command| cut.apply(command).unwrap())
    }

    fn spawn(folder: TempDir, prepare: impl FnOnce(&mut Command)) -> Self {
        fs::create_dir_all(folder.path().join("data")).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_powercut-victim"));
        command.arg(folder.path().join("data"));
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        prepare(&mut command);
        let mut child = command.spawn().unwrap();
        Self {
            stdin: child.stdin.take(),
            stdout: BufReader::new(child.stdout.take().unwrap()),
            child,
            folder,
        }
    }

    fn send(&mut self, command: &str) {
        writeln!(self.stdin.as_mut().unwrap(), "{command}").unwrap();
    }

    fn ask(&mut self, command: &str) -> String {
        self.send(command);
        let mut answer = String::new();
        self.stdout.read_line(&mut answer).unwrap();
        assert!(answer.ends_with('\n'), "the victim died of {command:?}");
        answer.trim_end_matches('\n').to_owned()
    }

    /// Each line is `command` or `command => answer`.
    #[track_caller]
    fn play(&mut self, script: &str) -> &mut Self {
        for line in script.lines().map(str::trim).filter(|line| !line.is_empty()) {
            match line.split_once(" =>").map(|(command, answer)| (command, answer.trim_start())) {
                Some((command, expected)) => assert_eq!(self.ask(command), expected, "{command}"),
                None => {
                    let answer = self.ask(line);
                    assert!(!answer.starts_with("errno"), "{line}: {answer}");
                }
            }
        }
        self
    }

    fn kill(&mut self) -> &mut Self {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        self
    }

    fn end(&mut self, command: &str) -> &mut Self {
        self.send(command);
        self.child.wait().unwrap();
        self
    }

    /// What another process sees, and after the kill what the power cut left.
    fn file(&self, name: &str) -> Vec<u8> {
        fs::read(self.folder.path().join("data").join(name)).unwrap()
    }

    fn stats(&self) -> Stats {
        Stats::read(self.folder.path().join("stats")).unwrap()
    }
}

impl Drop for Victim {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn without_the_shim_a_kill_loses_nothing() {
    let mut victim = Victim::spawn(tempfile::tempdir().unwrap(), |_| {});
    victim.play("open a log wc").play("write a hello => 5").kill();
    assert_eq!(victim.file("log"), b"hello");
}

#[test]
fn a_kill_loses_what_was_not_synced() {
    let mut victim = Victim::start(|_| {});
    victim.play(
        "open a log wc
         write a synced, => 7
         sync a => ok
         write a lost => 4
         writev a mo re => 4
         open b other wc
         pwrite b 3 x => 1
         pwritev b 4 y z => 2",
    );
    assert_eq!(victim.stats().held_bytes, 11);
    victim.kill();
    assert_eq!(victim.file("log"), b"synced,");
    assert_eq!(victim.file("other"), b"");
    let stats = victim.stats();
    assert_eq!((stats.held_bytes, stats.held_writes), (11, 5));
    assert_eq!((stats.syncs, stats.torn_writes, stats.files), (1, 0, 2));
}

#[test]
fn close_and_rename_keep_the_held_bytes_for_a_later_sync() {
    let mut victim = Victim::start(|_| {});
    victim.play(
        "open a log wc
         write a one => 3
         dup b a
         close a => ok
         write b two => 3
         close b => ok
         rename log moved => ok
         slurp moved => onetwo
         path-size moved => 6",
    );
    assert_eq!(victim.file("moved"), b"");
    victim.play("open c moved rw").play("datasync c => ok").kill();
    assert_eq!(victim.file("moved"), b"onetwo");
    assert_eq!(victim.stats().held_bytes, 0);
}

#[test]
fn the_program_sees_its_own_writes() {
    let mut victim = Victim::start(|_| {});
    victim.play(
        "open a log rwc
         write a 0123456789 => 10
         sync a
         pwrite a 8 abcdef => 6
         pwrite a 2 X => 1
         pwrite a 16 end => 3
         size a => 19
         fstat-size a => 19
         path-size log => 19
         tell a => 10
         read a 4 => cdef
         seek a 0 => 0
         read a 100 => 01X34567abcdef..end
         read a 1 =>
         end a => 19
         pread a 7 3 => 7ab
         pread a 13 4 => f..e
         seek a 6 => 6
         readv a 3 4 => 67abcde
         tell a => 13
         slurp log
         write a !!!!!!! => 7
         pread a 12 20 => e!!!!!!!",
    );
    assert_eq!(victim.kill().file("log"), b"0123456789");
}

#[test]
fn appends_go_to_the_end_that_the_program_sees() {
    let mut victim = Victim::start(|_| {});
    victim.play(
        "open a log rac
         open b log ra
         write a one => 3
         write b two => 3
         pwrite b 0 three => 5
         pread a 0 20 => onetwothree
         tell b => 6
         sync b",
    );
    assert_eq!(victim.kill().file("log"), b"onetwothree");
}

#[test]
fn truncate_cuts_what_is_held_and_growing_is_held() {
    let mut victim = Victim::start(|_| {});
    victim.play(
        "open a log rwc
         write a 0123456789 => 10
         sync a
         write a abcdef => 6
         truncate a 13 => ok
         size a => 13
         pread a 8 9 => 89abc
         truncate a 15 => ok
         pread a 8 9 => 89abc..
         truncate a 4 => ok
         pread a 0 9 => 0123
         pwrite a 6 x => 1
         path-truncate log 8 => 0
         pread a 0 9 => 0123..x.",
    );
    assert_eq!(victim.file("log"), b"0123");
    victim.play("sync a");
    assert_eq!(victim.file("log"), b"0123\0\0x\0");
    victim.play("path-truncate log 2 => 0").play("open b log wt").play("size a => 0");
    victim.play("seek a 0").play("write a lost => 4").play("open c log wt").play("size a => 0");
    assert_eq!(victim.kill().stats().held_bytes, 0);
}

#[test]
fn a_hole_before_a_dropped_write_still_counts() {
    let mut victim = Victim::start(|_| {});
    victim.play(
        "open a log rwc
         pwrite a 100 x => 1
         truncate a 3 => ok
         size a => 3
         pread a 0 9 => ...
         sync a",
    );
    assert_eq!(victim.kill().file("log"), b"\0\0\0");
}

#[test]
fn preallocation_changes_no_content() {
    let mut victim = Victim::start(|_| {});
    victim.play(
        "open a log rwc
         allocate a keep 0 65536 => 0
         size a => 0
         write a record => 6
         size a => 6
         truncate a 6 => ok
         sync a
         allocate a grow 0 8 => 0
         size a => 8
         allocate a posix 0 10 => 0
         pread a 0 20 => record....",
    );
    assert_eq!(victim.file("log"), b"record");
    victim.play("sync a");
    assert_eq!(victim.kill().file("log"), b"record\0\0\0\0");
}

#[test]
fn synchronous_writes_are_durable_at_once() {
    let mut victim = Victim::start(|_| {});
    victim.play("open a log wc").play("write a held, => 5");
    victim.play("open b log wad").play("write b direct => 6").kill();
    assert_eq!(victim.file("log"), b"held,direct");
}

#[test]
fn what_goes_past_read_is_written_out_first() {
    let mut victim = Victim::start(|_| {});
    victim.play(
        "open a streamed rwc
         write a one => 3
         stream a 10 => one
         write a two => 3
         open b mapped rwc
         write b three => 5
         mmap b 5 => three
         pwrite b 0 T => 1
         mmap b 5 => Three
         open c copied rwc
         write c four => 4
         copy copied copy => 4
         slurp copy => four",
    );
    victim.kill();
    assert_eq!(victim.file("streamed"), b"one");
    assert_eq!(victim.file("mapped"), b"Three");
    assert_eq!(victim.file("copied"), b"four");
}

#[test]
fn unlink_and_replace_drop_what_is_held() {
    let mut victim = Victim::start(|_| {});
    victim.play(
        "open a gone rwc
         write a one => 3
         unlink gone => ok
         pread a 0 9 => one
         write a two => 3
         pread a 0 9 => onetwo
         open b target rwc
         write b old => 3
         open c source rwc
         write c newer => 5
         rename source target => ok
         slurp target => newer
         pread b 0 9 => old",
    );
    assert_eq!(victim.kill().stats().held_bytes, 5);
    assert_eq!(victim.file("target"), b"");
}

#[test]
fn errors_are_those_of_the_kernel() {
    let mut victim = Victim::start(|_| {});
    victim.play(&format!(
        "open r log r => errno {}
         open w log wc
         write w held => 4
         read w 4 => errno {bad}
         open r log r
         read r 9 => held
         write r no => errno {bad}
         truncate r 1 => errno {invalid}
         unlink none => errno {}",
        libc::ENOENT,
        libc::ENOENT,
        bad = libc::EBADF,
        invalid = libc::EINVAL,
    ));
}

#[test]
fn a_clean_exit_keeps_everything() {
    let mut victim = Victim::start(|_| {});
    victim.play("open a log wc").play("write a all => 3").play("truncate a 5 => ok");
    assert_eq!(victim.end("exit").file("log"), b"all\0\0");
    assert_eq!(victim.stats().held_bytes, 0);
}

#[test]
fn an_unclean_end_is_a_power_cut() {
    for end in ["_exit", "abort"] {
        let mut victim = Victim::start(|_| {});
        victim.play("open a log wc").play("write a all => 3");
        assert_eq!(victim.end(end).file("log"), b"", "{end}");
    }
}

#[test]
fn a_forked_child_does_not_write_out_what_its_parent_holds() {
    let mut victim = Victim::start(|_| {});
    victim.play("open a log wc").play("write a held => 4").play("fork => 0");
    assert_eq!(victim.file("log"), b"");
    victim.play("sync a => ok");
    assert_eq!(victim.file("log"), b"held");
}

#[test]
fn a_lock_survives_a_sync() {
    let mut victim = Victim::start(|_| {});
    victim.play("open a log rwc").play("lock a => 0").play("write a x").play("sync a");
    let folder = tempfile::tempdir().unwrap();
    let mut other = Victim::spawn(folder, |_| {});
    let path = victim.folder.path().join("data/log");
    other.play(&format!("open b {} rw", path.display()));
    other.play(&format!("lock b => errno {}", libc::EAGAIN));
}

#[test]
fn files_elsewhere_and_the_info_log_pass_through() {
    let mut victim = Victim::start(|_| {});
    victim.play(
        "open a LOG wc
         write a info => 4
         open b LOG.old.17 wc
         write b older => 5
         open c ../data-not wc
         write c outside => 7
         open d LOGS wc
         write d held => 4",
    );
    victim.kill();
    assert_eq!(victim.file("LOG"), b"info");
    assert_eq!(victim.file("LOG.old.17"), b"older");
    assert_eq!(victim.file("../data-not"), b"outside");
    assert_eq!(victim.file("LOGS"), b"");
}

/// The length of the log after 20 records of 100 bytes and a kill, and the torn writes.
fn torn_length(seed: u64, tear: Option<u64>) -> (usize, u64) {
    let mut victim = Victim::start(|cut| {
        cut.seed = Some(seed);
        cut.tear = tear;
    });
    victim.play("open a log rwc").play("write a start").play("sync a");
    let mut seen = b"start".to_vec();
    for record in 0..20u8 {
        let text = char::from(b'a' + record).to_string().repeat(100);
        victim.play(&format!("write a {text} => 100"));
        seen.extend_from_slice(text.as_bytes());
    }
    let all = victim.ask("pread a 0 9999");
    assert_eq!(all.as_bytes(), seen, "torn bytes must not change what the program sees");
    victim.kill();
    let left = victim.file("log");
    assert_eq!(left, seen[..left.len()], "what is left is a prefix");
    let stats = victim.stats();
    assert_eq!(stats.held_bytes as usize, seen.len() - left.len());
    (left.len(), stats.torn_writes)
}

#[test]
fn seeds_tear_the_tail_at_any_byte() {
    let runs: Vec<_> = (0..12).map(|seed| torn_length(seed, None)).collect();
    let torn = runs.iter().filter(|(left, _)| *left > 5 && (left - 5) % 100 != 0);
    assert!(torn.count() >= 8, "{runs:?}");
    assert!(runs.iter().all(|(left, torn)| *torn > 0 || *left == 5), "{runs:?}");
    assert_eq!(torn_length(3, None), runs[3], "one thread, one seed, one run");
    assert_eq!(torn_length(3, Some(0)), (5, 0));
}

#[test]
fn scrambled_sectors_leave_holes_but_the_program_sees_none() {
    let mut holes = 0;
    for seed in 0..8 {
        let mut victim = Victim::start(|cut| {
            cut.seed = Some(seed);
            cut.tear = Some(0);
            cut.scramble = Some(2);
        });
        victim.play("open a log rwc").play("fill a 4096").play("fill a 4096").play("fill a 4096");
        let all = "x".repeat(12_288);
        victim.play(&format!("pread a 0 20000 => {all}"));
        let left = victim.kill().file("log");
        holes += usize::from(left.contains(&0));
    }
    assert!(holes > 0);
}

#[test]
fn threads_keep_their_order_and_nothing_hangs() {
    let mut victim = Victim::start(|cut| {
        cut.seed = Some(7);
        cut.scramble = Some(8);
    });
    victim.play("storm log 8 600 => 4800");
    victim.play("open a log r").play("sync a").kill();
    let left = victim.file("log");
    assert_eq!(left.len(), 4800 * 8);
}

#[test]
fn the_next_process_starts_its_counters_at_zero() {
    let mut victim = Victim::start(|_| {});
    victim.play("open a log wc").play("write a lost").kill();
    assert_eq!(victim.stats().held_bytes, 4);
    let folder = std::mem::replace(&mut victim.folder, tempfile::tempdir().unwrap());
    let mut next = Victim::start_in(folder, |_| {});
    next.play("open a log wc").play("write a xy").kill();
    assert_eq!((next.stats().held_bytes, next.stats().files), (2, 1));
}

#[test]
fn counters_that_nobody_claimed_are_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("stats");
    assert!(Stats::read(&file).is_err());
    fs::write(&file, [0; 48]).unwrap();
    assert!(Stats::read(&file).is_err());
}
