//! Paths as the container sees them, and whether they still lead to what they led to.

use super::super::Findings;
use super::super::directory;
use super::super::ended_task;
use super::super::proc::Proc;
use crate::failure::{Doing, Failure};
use crate::registry::Record;
use image_format::Bytes;
use image_format::files::DeletedDirectory;
use image_format::manifest::NamespaceKind;
use std::ffi::OsStr;
use std::fs::{self, Metadata};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{DirEntryExt, MetadataExt};
use std::path::{Path, PathBuf};

/// The container's root directory.
#[derive(Clone, Debug)]
pub struct Place {
    /// A link of /proc that leads there.
    root: PathBuf,
    /// How the kernel writes it: `/`, unless the first process was given its root by chroot(2).
    prefix: Vec<u8>,
}

/// Why a path inside the container does not lead to an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lost {
    /// It was deleted.
    Deleted,
    /// It lies outside of the container's root.
    Outside,
    /// Something else stands at its path, or nothing.
    Replaced,
}

impl Lost {
    /// In words, for an obstacle.
    #[must_use]
    pub fn words(self) -> &'static str {
        match self {
            Lost::Deleted => "was deleted while it is in use",
            Lost::Outside => "lies outside of the container's root directory",
            Lost::Replaced => "is no longer what stands under that path",
        }
    }
}

fn is_same(one: &Metadata, other: &Metadata) -> bool {
    (one.dev(), one.ino()) == (other.dev(), other.ino())
}

/// The first name that a file has in the directory of this path, which was one of its own. `reach`: where to look into that directory.
pub(in crate::resource) fn other_name(
    path: &Bytes,
    object: &Metadata,
    reach: impl FnOnce(&Bytes) -> Option<PathBuf>,
) -> Option<Bytes> {
    let directory = Bytes(path.0.get(..=path.0.iter().rposition(|&byte| byte == b'/')?)?.to_vec());
    if !object.is_file() || object.nlink() == 0 {
        return None;
    }
    let alike = fs::read_dir(reach(&directory)?).ok()?.flatten().filter(|entry| entry.ino() == object.ino());
    let same = alike.filter(|entry| entry.metadata().is_ok_and(|there| is_same(&there, object)));
    let name = same.map(|entry| entry.file_name()).min()?;
    Some(Bytes([directory.0.as_slice(), name.as_bytes()].concat()))
}

impl Place {
    /// The root of a container: the host's where it shares its mounts, so that a process that was given another by chroot(2) has that
    /// recorded; else that of its first process.
    ///
    /// # Errors
    /// When the first process is gone.
    pub fn of(record: &Record, init: i32, proc: &mut Proc) -> Result<Self, Failure> {
        let task = if record.shares(NamespaceKind::Mnt) { "self".to_owned() } else { init.to_string() };
        let prefix = proc.link(format_args!("{task}/root"))?;
        Ok(Place { root: PathBuf::from(format!("/proc/{task}/root")), prefix })
    }

    /// The root that a link of /proc leads to.
    ///
    /// # Errors
    /// As readlink(2).
    pub fn through(link: &Path) -> std::io::Result<Self> {
        let prefix = fs::read_link(link)?.into_os_string().into_vec();
        Ok(Place { root: link.to_owned(), prefix })
    }

    /// The root directory of a process (host pid), which is that of its mount namespace.
    #[must_use]
    pub fn at_root_of(host: i32) -> Self {
        Place { root: PathBuf::from(format!("/proc/{host}/root")), prefix: b"/".to_vec() }
    }

    /// A link of /proc that leads to the root.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// A path of the kernel's as the container writes it; None when it is outside of its root.
    #[must_use]
    pub fn inside(&self, path: &[u8]) -> Option<Bytes> {
        if self.prefix == b"/" {
            return path.starts_with(b"/").then(|| Bytes(path.to_vec()));
        }
        match path.strip_prefix(self.prefix.as_slice())? {
            b"" => Some(Bytes::from("/")),
            rest if rest.starts_with(b"/") => Some(Bytes(rest.to_vec())),
            _ => None,
        }
    }

    /// Where a path inside the container is reached from here. The kernel writes paths without symbolic links, so nothing
    /// in between leads elsewhere unless it was replaced, and then the inode differs.
    #[must_use]
    pub fn reach(&self, inside: &Bytes) -> PathBuf {
        let relative = inside.0.strip_prefix(b"/").unwrap_or(&inside.0);
        self.root.join(Path::new(OsStr::from_bytes(relative)))
    }

    /// The path inside the container of an object that the kernel calls `path`, if that path still leads to it; of a file whose name is
    /// gone, another one in the same directory. `sem_open(3)` leaves each semaphore so: linked to its name, and then unlinked from the first one.
    ///
    /// # Errors
    /// Why it does not.
    pub fn find(&self, path: &[u8], object: &Metadata) -> Result<Bytes, Lost> {
        if object.nlink() == 0 {
            return Err(Lost::Deleted);
        }
        let inside = self.inside(path).ok_or(Lost::Outside)?;
        if fs::symlink_metadata(self.reach(&inside)).is_ok_and(|there| is_same(&there, object)) {
            return Ok(inside);
        }
        let lost = if path.ends_with(b" (deleted)") { Lost::Deleted } else { Lost::Replaced };
        other_name(&inside, object, |directory| Some(self.reach(directory))).ok_or(lost)
    }

    /// The working directory of a task (`PID`, or `PID/task/TID`), and that it was deleted; an obstacle when its path does not lead
    /// there any more.
    ///
    /// # Errors
    /// When the process is gone.
    pub fn working_directory(
        &self,
        proc: &mut Proc,
        task: &str,
        object: &str,
        findings: &mut Findings,
    ) -> Result<(Bytes, Option<DeletedDirectory>), Failure> {
        let link = format!("{task}/cwd");
        let metadata = fs::metadata(format!("/proc/{link}"));
        let metadata = metadata.doing(|| format!("{object}: looking at the working directory"))?;
        if let Some(deleted) = directory::deleted(&metadata)
            && let Some(path) = self.inside(&proc.link(format_args!("{link}"))?)
        {
            return Ok((directory::former(path), Some(deleted)));
        }
        Ok((self.path(proc, &link, object, "the working directory", findings)?, None))
    }

    /// Where a link of /proc leads inside the container; an obstacle when that path does not lead there any more.
    ///
    /// # Errors
    /// When the process is gone.
    pub fn path(
        &self,
        proc: &mut Proc,
        link: &str,
        object: &str,
        what: &str,
        findings: &mut Findings,
    ) -> Result<Bytes, Failure> {
        let path = proc.link(format_args!("{link}"))?;
        let metadata = fs::metadata(format!("/proc/{link}")).doing(|| format!("{object}: looking at {what}"))?;
        self.find(&path, &metadata).or_else(|lost| {
            let link = Path::new("/proc").join(link);
            if let Some(ended) = self.inside(&path).and_then(|inside| ended_task::directory(&link, &inside)) {
                return Ok(ended);
            }
            let shown = Bytes(path);
            findings.block(
                object,
                format!("{what} {shown} {}", lost.words()),
                "Put the original back under its path, or start the program again",
            );
            Ok(shown)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(prefix: &str) -> Place {
        Place { root: PathBuf::from("/proc/self/root"), prefix: prefix.into() }
    }

    #[test]
    fn a_root_by_chroot_is_taken_off() {
        assert_eq!(place("/").inside(b"/usr/bin/x"), Some("/usr/bin/x".into()));
        assert_eq!(place("/srv/c").inside(b"/srv/c/bin"), Some("/bin".into()));
        assert_eq!(place("/srv/c").inside(b"/srv/c"), Some("/".into()));
        assert_eq!(place("/srv/c").inside(b"/srv/cc/bin"), None);
        assert_eq!(place("/").inside(b"anon_inode:[eventpoll]"), None);
    }

    #[test]
    fn deleted_and_replaced_files_are_told_apart() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("file");
        fs::write(&path, "one").expect("written");
        let file = fs::File::open(&path).expect("opened");
        let name = path.as_os_str().as_bytes();
        let find = || place("/").find(name, &file.metadata().expect("open file"));
        assert_eq!(find(), Ok(Bytes(name.to_vec())));
        let (elsewhere, beside) = (dir.path().join("elsewhere"), dir.path().join("beside"));
        fs::create_dir(&elsewhere).expect("made");
        let elsewhere = elsewhere.join("other");
        fs::hard_link(&path, &elsewhere).expect("linked");
        fs::remove_file(&path).expect("removed");
        assert_eq!(find(), Err(Lost::Replaced), "its other name is in another directory");
        fs::write(&path, "two").expect("written");
        assert_eq!(find(), Err(Lost::Replaced));
        fs::hard_link(&elsewhere, &beside).expect("linked");
        assert_eq!(find(), Ok(Bytes(beside.as_os_str().as_bytes().to_vec())));
        fs::remove_file(&beside).expect("removed");
        fs::remove_file(&elsewhere).expect("removed");
        assert_eq!(find(), Err(Lost::Deleted));
    }
}
