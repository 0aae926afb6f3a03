//! The program that the tests run under the shim and kill: one command a line on stdin, one
//! answer a line on stdout.
//!
//! It works in the folder that is its argument and knows nothing of the shim. An answer is what
//! the call returned or read, or `errno N`. Not part of the product.
// It makes the raw libc calls that the shim replaces.
#![allow(unsafe_code)]

use std::collections::HashMap;
use std::ffi::CString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead, Read, Seek, SeekFrom, Write};
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::PathBuf;
use std::{ptr, thread};

use libc::{c_int, c_void, iovec};

fn main() -> io::Result<()> {
    let folder = std::env::args_os().nth(1).map(PathBuf::from);
    let mut victim = Victim {
        folder: folder.ok_or_else(|| io::Error::other("usage: powercut-victim FOLDER"))?,
        files: HashMap::new(),
    };
    for line in io::stdin().lock().lines() {
        let line = line?;
        let words: Vec<&str> = line.split(' ').collect();
        let answer = match victim.obey(&words) {
            Ok(answer) => answer,
            Err(error) => format!("errno {}", error.raw_os_error().unwrap_or(-1)),
        };
        writeln!(io::stdout(), "{answer}")?;
    }
    Ok(())
}

struct Victim {
    folder: PathBuf,
    files: HashMap<String, File>,
}

impl Victim {
    fn obey(&mut self, words: &[&str]) -> io::Result<String> {
        match words {
            ["open", handle, name, flags] => {
                let file = options(flags).open(self.folder.join(name))?;
                self.files.insert((*handle).to_owned(), file);
                done()
            }
            ["dup", handle, of] => {
                let copy = self.file(of)?.try_clone()?;
                self.files.insert((*handle).to_owned(), copy);
                done()
            }
            ["close", handle] => Ok(self.files.remove(*handle).map_or("none", |_| "ok").into()),
            ["rename", from, to] => {
                fs::rename(self.folder.join(from), self.folder.join(to))?;
                done()
            }
            ["unlink", name] => fs::remove_file(self.folder.join(name)).and_then(|()| done()),
            ["copy", from, to] => {
                let count = fs::copy(self.folder.join(from), self.folder.join(to))?;
                Ok(count.to_string())
            }
            ["slurp", name] => fs::read_to_string(self.folder.join(name)),
            ["path-size", name] => {
                let size = fs::metadata(self.folder.join(name))?.len();
                Ok(size.to_string())
            }
            ["path-truncate", name, size] => {
                let path = CString::new(self.folder.join(name).as_os_str().as_bytes())?;
                // SAFETY: the path is a C string.
                returned(i64::from(unsafe { libc::truncate(path.as_ptr(), number(size) as i64) }))
            }
            ["storm", name, threads, records] => {
                storm(&self.folder.join(name), number(threads), number(records))
            }
            ["fork"] => fork_and_exit(),
            ["exit"] => std::process::exit(0),
            ["abort"] => std::process::abort(),
            // SAFETY: ends the process without any handler, which is the point.
            ["_exit"] => unsafe { libc::_exit(0) },
            [call, handle, rest @ ..] => on_file(call, self.file(handle)?, rest),
            _ => Err(io::ErrorKind::InvalidInput.into()),
        }
    }

    fn file(&self, handle: &str) -> io::Result<&File> {
        let found = self.files.get(handle);
        found.ok_or_else(|| io::ErrorKind::NotFound.into())
    }
}

/// The calls on an open file, through std where it has them.
fn on_file(call: &str, mut file: &File, rest: &[&str]) -> io::Result<String> {
    let fd = file.as_raw_fd();
    match (call, rest) {
        ("write", [text]) => Ok(file.write(text.as_bytes())?.to_string()),
        ("fill", [count]) => Ok(file.write(&vec![b'x'; number(count)])?.to_string()),
        ("pwrite", [offset, text]) => {
            let count = file.write_at(text.as_bytes(), number(offset) as u64)?;
            Ok(count.to_string())
        }
        ("writev", [first, second]) => vectored(fd, None, first, second),
        ("pwritev", [offset, first, second]) => vectored(fd, Some(number(offset)), first, second),
        ("read", [count]) => {
            let mut bytes = vec![0; number(count)];
            let read = file.read(&mut bytes)?;
            Ok(text(&bytes[..read]))
        }
        ("pread", [offset, count]) => {
            let mut bytes = vec![0; number(count)];
            let read = file.read_at(&mut bytes, number(offset) as u64)?;
            Ok(text(&bytes[..read]))
        }
        ("readv", [first, second]) => read_vectored(fd, number(first), number(second)),
        ("mmap", [count]) => read_mapped(fd, number(count)),
        ("stream", [count]) => read_stream(fd, number(count)),
        ("seek", [offset]) => {
            let target = SeekFrom::Start(number(offset) as u64);
            Ok(file.seek(target)?.to_string())
        }
        ("tell", []) => Ok(file.stream_position()?.to_string()),
        ("end", []) => Ok(file.seek(SeekFrom::End(0))?.to_string()),
        ("size", []) => Ok(file.metadata()?.len().to_string()),
        ("fstat-size", []) => fstat_size(fd),
        ("truncate", [size]) => file.set_len(number(size) as u64).and_then(|()| done()),
        ("allocate", [mode, offset, length]) => allocate(fd, mode, number(offset), number(length)),
        ("lock", []) => lock(fd),
        ("sync", []) => file.sync_all().and_then(|()| done()),
        ("datasync", []) => file.sync_data().and_then(|()| done()),
        _ => Err(io::ErrorKind::InvalidInput.into()),
    }
}

fn options(flags: &str) -> OpenOptions {
    let mut options = OpenOptions::new();
    options.read(flags.contains('r'));
    options.write(flags.contains('w')).append(flags.contains('a'));
    options.create(flags.contains('c')).truncate(flags.contains('t'));
    if flags.contains('d') {
        options.custom_flags(libc::O_DSYNC);
    }
    options
}

fn done() -> io::Result<String> {
    Ok("ok".into())
}

fn number(word: &str) -> usize {
    word.parse().unwrap_or(0)
}

/// A byte that is no printable one becomes a dot, so that the answer is one line.
fn text(bytes: &[u8]) -> String {
    let printable = |byte: &u8| {
        if byte.is_ascii_graphic() { char::from(*byte) } else { '.' }
    };
    bytes.iter().map(printable).collect()
}

fn returned(result: i64) -> io::Result<String> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result.to_string()) }
}

fn slice(bytes: &[u8]) -> iovec {
    iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() }
}

fn vectored(fd: RawFd, offset: Option<usize>, first: &str, second: &str) -> io::Result<String> {
    let list = [slice(first.as_bytes()), slice(second.as_bytes())];
    // SAFETY: the list holds two buffers that outlive the call.
    returned(match offset {
        Some(offset) => unsafe { libc::pwritev(fd, list.as_ptr(), 2, offset as i64) },
        None => unsafe { libc::writev(fd, list.as_ptr(), 2) },
    } as i64)
}

fn read_vectored(fd: RawFd, first: usize, second: usize) -> io::Result<String> {
    let mut buffers = [vec![0u8; first], vec![0u8; second]];
    let list = buffers
        .each_mut()
        .map(|buffer| iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() });
    // SAFETY: the list holds two writable buffers that outlive the call.
    let count = unsafe { libc::readv(fd, list.as_ptr(), 2) };
    returned(count as i64)?;
    Ok(text(&buffers.concat()[..count as usize]))
}

fn read_mapped(fd: RawFd, count: usize) -> io::Result<String> {
    // SAFETY: a fresh mapping; the kernel chooses its place.
    let start = unsafe { libc::mmap(ptr::null_mut(), count, libc::PROT_READ, libc::MAP_SHARED, fd, 0) };
    if start == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the mapping has that many bytes, and the file is not shortened meanwhile.
    Ok(text(unsafe { std::slice::from_raw_parts(start.cast(), count) }))
}

/// As RocksDB reads a file from front to back: through stdio.
fn read_stream(fd: RawFd, count: usize) -> io::Result<String> {
    let mut bytes = vec![0u8; count];
    // SAFETY: the copy of the descriptor belongs to the stream, which fclose ends.
    let read = unsafe {
        let stream = libc::fdopen(libc::dup(fd), c"r".as_ptr());
        if stream.is_null() {
            return Err(io::Error::last_os_error());
        }
        libc::rewind(stream);
        let read = libc::fread(bytes.as_mut_ptr().cast::<c_void>(), 1, count, stream);
        libc::fclose(stream);
        read
    };
    Ok(text(&bytes[..read]))
}

fn fstat_size(fd: RawFd) -> io::Result<String> {
    // SAFETY: a status is plain numbers.
    let mut status: libc::stat = unsafe { std::mem::zeroed() };
    // SAFETY: the status is writable.
    returned(i64::from(unsafe { libc::fstat(fd, &mut status) }))?;
    Ok(status.st_size.to_string())
}

fn allocate(fd: RawFd, mode: &str, offset: usize, length: usize) -> io::Result<String> {
    let (offset, length) = (offset as i64, length as i64);
    // SAFETY: no pointers.
    let result: c_int = match mode {
        "keep" => unsafe { libc::fallocate(fd, libc::FALLOC_FL_KEEP_SIZE, offset, length) },
        "grow" => unsafe { libc::fallocate(fd, 0, offset, length) },
        _ => return Ok(unsafe { libc::posix_fallocate(fd, offset, length) }.to_string()),
    };
    returned(i64::from(result))
}

/// A lock of fcntl on the whole file.
fn lock(fd: RawFd) -> io::Result<String> {
    // SAFETY: a lock is plain numbers.
    let mut lock: libc::flock = unsafe { std::mem::zeroed() };
    lock.l_type = libc::F_WRLCK as libc::c_short;
    // SAFETY: the lock is readable.
    returned(i64::from(unsafe { libc::fcntl(fd, libc::F_SETLK, &lock) }))
}

/// A forked child that exits normally must not write out what its parent holds.
fn fork_and_exit() -> io::Result<String> {
    // SAFETY: the child only exits; no other thread runs.
    let child = unsafe { libc::fork() };
    if child == 0 {
        // SAFETY: runs the handlers of the end of the process, the shim's too.
        unsafe { libc::exit(0) };
    }
    let mut status = 0;
    // SAFETY: the status is writable.
    returned(i64::from(unsafe { libc::waitpid(child, &mut status, 0) }))?;
    Ok(status.to_string())
}

/// Threads that append records of 8 bytes to one file, each syncing and reading now and then.
fn storm(path: &std::path::Path, threads: usize, records: usize) -> io::Result<String> {
    let workers: Vec<_> = (0..threads)
        .map(|number| {
            let file = options("rac").open(path)?;
            Ok(thread::spawn(move || storm_worker(file, number, records)))
        })
        .collect::<io::Result<_>>()?;
    for worker in workers {
        worker.join().map_err(|_| io::Error::other("a worker panicked"))??;
    }
    let mut counts = vec![0; threads];
    for record in fs::read_to_string(path)?.split_terminator('\n') {
        let (number, count) = record.split_once(':').unwrap_or(("99", ""));
        assert_eq!(count.parse(), Ok(counts[self::number(number)]), "a record is out of order");
        counts[self::number(number)] += 1;
    }
    Ok(counts.iter().sum::<usize>().to_string())
}

fn storm_worker(mut file: File, number: usize, records: usize) -> io::Result<()> {
    for record in 0..records {
        file.write_all(format!("{number:02}:{record:04}\n").as_bytes())?;
        if record % 37 == number {
            file.sync_data()?;
        }
        if record % 11 == 0 {
            let size = file.metadata()?.len();
            let mut last = [0; 8];
            file.read_exact_at(&mut last, size - 8)?;
            assert_eq!((last[2], last[7]), (b':', b'\n'), "a read is not whole");
        }
    }
    Ok(())
}
