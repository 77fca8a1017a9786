//! Reading /proc, fast: one open directory, one buffer, no parsing of what is not asked for.
//!
//! A capture reads a handful of small files of each of a thousand threads while all of them stand still; what it spends
//! here is how long they stand. Source: proc(5); `fs/proc/array.c` and `fs/proc/base.c`, v6.18.

mod stat;
mod status;

pub use stat::Stat;
pub use status::Status;

use crate::failure::{Doing, Failure};
use std::fmt::{self, Write};
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;

use nix::errno::Errno;
use nix::fcntl::{OFlag, openat, readlinkat};
use nix::sys::stat::Mode;

/// An open /proc with the buffer that files are read into.
#[derive(Debug)]
pub struct Proc {
    root: OwnedFd,
    /// `PID/task/` of the process whose threads were read last. From there the kernel has half as far to walk.
    tasks: Option<(String, OwnedFd)>,
    path: String,
    /// As long as the longest file yet, so that it is filled with zeros only when it grows.
    buffer: Vec<u8>,
}

impl Proc {
    /// Opens /proc.
    ///
    /// # Errors
    /// When it is not mounted.
    pub fn open() -> Result<Self, Failure> {
        let root = File::open("/proc").doing(|| "/proc: opening")?;
        Ok(Proc { root: root.into(), tasks: None, path: String::new(), buffer: vec![0; 1 << 14] })
    }

    fn set_path(&mut self, path: fmt::Arguments<'_>) {
        self.path.clear();
        // Writing into a String cannot fail.
        let _ = self.path.write_fmt(path);
    }

    /// Opens a file below /proc for reading.
    ///
    /// # Errors
    /// As open(2); `ESRCH` and `ENOENT` for a task that is gone.
    pub fn file(&mut self, path: fmt::Arguments<'_>) -> io::Result<File> {
        self.set_path(path);
        self.descriptor(OFlag::O_RDONLY).map(File::from)
    }

    fn descriptor(&mut self, how: OFlag) -> io::Result<OwnedFd> {
        let how = how | OFlag::O_CLOEXEC;
        let below = |directory: BorrowedFd<'_>, path: &str| openat(directory, path, how, Mode::empty());
        let Some((tasks, file)) = split(&self.path) else { return Ok(below(self.root.as_fd(), &self.path)?) };
        if self.tasks.as_ref().is_none_or(|(cached, _)| cached != tasks) {
            let directory = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
            self.tasks = Some((tasks.to_owned(), openat(self.root.as_fd(), tasks, directory, Mode::empty())?));
        }
        match &self.tasks {
            // A process that is gone may have left its id to another.
            Some((_, directory)) => {
                Ok(below(directory.as_fd(), file).or_else(|_| below(self.root.as_fd(), &self.path))?)
            }
            None => Ok(below(self.root.as_fd(), &self.path)?),
        }
    }

    /// The content of a file below /proc, as `{pid}/stat`. Valid until the next call.
    ///
    /// # Errors
    /// As open(2) and read(2); `ESRCH` and `ENOENT` for a task that is gone.
    pub fn read(&mut self, path: fmt::Arguments<'_>) -> io::Result<&[u8]> {
        let length = self.fill(path)?;
        Ok(&self.buffer[..length])
    }

    fn fill(&mut self, path: fmt::Arguments<'_>) -> io::Result<usize> {
        let mut file = self.file(path)?;
        let mut length = 0;
        loop {
            if length == self.buffer.len() {
                self.buffer.resize(length * 2, 0);
            }
            match file.read(&mut self.buffer[length..])? {
                0 => return Ok(length),
                count => length += count,
            }
        }
    }

    /// Hands on the whole lines of a file below /proc as they are read, many at a time: the listing of many mappings is longer than what a
    /// processor keeps at hand.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn lines(&mut self, path: fmt::Arguments<'_>, mut lines: impl FnMut(&[u8])) -> Result<(), Failure> {
        let mut read = || -> io::Result<()> {
            let mut file = self.file(path)?;
            // Of a line that is not whole yet.
            let mut kept = 0;
            loop {
                if kept == self.buffer.len() {
                    self.buffer.resize(kept * 2, 0);
                }
                let count = file.read(&mut self.buffer[kept..])?;
                let length = kept + count;
                let whole = match count {
                    0 => length,
                    _ => self.buffer[..length].iter().rposition(|&byte| byte == b'\n').map_or(0, |at| at + 1),
                };
                lines(&self.buffer[..whole]);
                self.buffer.copy_within(whole..length, 0);
                kept = length - whole;
                if count == 0 {
                    return Ok(());
                }
            }
        };
        read().doing(|| format!("/proc/{}: reading", self.path))
    }

    /// The content of a file that the kernel writes as one record (`single_open`) of less than 16 KiB: one read gives it all.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn record(&mut self, path: fmt::Arguments<'_>) -> Result<&[u8], Failure> {
        let read = self.file(path).and_then(|mut file| file.read(&mut self.buffer));
        let length = read.doing(|| format!("/proc/{}: reading", self.path))?;
        Ok(&self.buffer[..length])
    }

    /// [`Proc::read`], with a failure that names the file.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn text(&mut self, path: fmt::Arguments<'_>) -> Result<&str, Failure> {
        let length = self.fill(path).doing(|| format!("/proc/{}: reading", self.path))?;
        std::str::from_utf8(&self.buffer[..length]).doing(|| format!("/proc/{}: reading", self.path))
    }

    /// [`Proc::read`] of what need not be text, with a failure that names the file.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn bytes(&mut self, path: fmt::Arguments<'_>) -> Result<&[u8], Failure> {
        let length = self.fill(path).doing(|| format!("/proc/{}: reading", self.path))?;
        Ok(&self.buffer[..length])
    }

    /// A whole file as a number.
    ///
    /// # Errors
    /// When the file cannot be read or holds something else.
    pub fn number<T: std::str::FromStr>(&mut self, path: fmt::Arguments<'_>) -> Result<T, Failure>
    where
        T::Err: std::error::Error + 'static,
    {
        let parsed = self.text(path)?.trim().parse();
        parsed.doing(|| format!("/proc/{}: reading", self.path))
    }

    /// A whole file as a hexadecimal number.
    ///
    /// # Errors
    /// When the file cannot be read or holds something else.
    pub fn hex(&mut self, path: fmt::Arguments<'_>) -> Result<u64, Failure> {
        let parsed = u64::from_str_radix(self.text(path)?.trim(), 16);
        parsed.doing(|| format!("/proc/{}: reading", self.path))
    }

    /// What a symbolic link below /proc says.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn link(&mut self, path: fmt::Arguments<'_>) -> Result<Vec<u8>, Failure> {
        self.set_path(path);
        readlinkat(self.root.as_fd(), self.path.as_str())
            .map(OsStringExt::into_vec)
            .doing(|| format!("/proc/{}: reading the link", self.path))
    }

    /// What several symbolic links in a directory below /proc say. That to a namespace which does not exist yet, since nobody was born
    /// into it (`pid_for_children`), is empty.
    ///
    /// # Errors
    /// When one cannot be read.
    pub fn links(&mut self, directory: fmt::Arguments<'_>, names: &[&str]) -> Result<Vec<Vec<u8>>, Failure> {
        self.set_path(directory);
        let opened = self.descriptor(OFlag::O_PATH | OFlag::O_DIRECTORY);
        let opened = opened.doing(|| format!("/proc/{}: opening", self.path))?;
        let link = |name: &&str| {
            let read = match readlinkat(opened.as_fd(), *name) {
                Err(Errno::ENOENT) if *name == "pid_for_children" => Ok(Vec::new()),
                read => read.map(OsStringExt::into_vec),
            };
            read.doing(|| format!("/proc/{}/{name}: reading the link", self.path))
        };
        names.iter().map(link).collect()
    }

    /// The entries of a directory below /proc whose names are numbers, ascending.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn numbers(&mut self, path: fmt::Arguments<'_>) -> Result<Vec<i32>, Failure> {
        self.set_path(path);
        let entries =
            std::fs::read_dir(format!("/proc/{}", self.path)).doing(|| format!("/proc/{}: listing", self.path))?;
        let mut numbers: Vec<i32> =
            entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok()).collect();
        numbers.sort_unstable();
        Ok(numbers)
    }
}

/// The `PID/task/` that a path begins with, and the rest.
fn split(path: &str) -> Option<(&str, &str)> {
    let at = path.find("/task/")? + "/task/".len();
    Some((&path[..at], &path[at..])).filter(|(_, rest)| !rest.is_empty())
}

/// What is wrong with a file of /proc that is not as expected: one failure for all of them.
fn malformed(path: &str, what: &str) -> Failure {
    Failure::new(crate::failure::Kind::Unsupported, format!("/proc/{path}: {what} is missing or malformed"))
}
