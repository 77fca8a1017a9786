//! From what /proc leads to, to the records.

use crate::resource::descriptor::refused::{self, Refusal};
use image_format::memory::HugeMapping;
use image_format::types::PAGE_SIZE;
use image_format::unnamed::{Memfd, Origin, Place, Seals, UnnamedFile};
use image_format::{Bytes, Octal, Timespec};
use nix::fcntl::{FcntlArg, fcntl};
use nix::sys::memfd::memfd_create;
use nix::sys::statfs::HUGETLBFS_MAGIC;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{File, Metadata};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// How the kernel ends the path of a file that has none any more.
const DELETED: &[u8] = b" (deleted)";
/// The path of anonymous memory in huge pages (`HUGETLB_ANON_FILE` in `include/linux/hugetlb.h`, v6.18).
const SHARED_HUGE_PAGES: &[u8] = b"/anon_hugepage (deleted)";

/// The files without a name that were met, by device and inode.
#[derive(Debug, Default)]
pub struct Unnamed {
    /// The device of the kernel's own tmpfs, where memfds and shared memory lie.
    kernel_mount: Option<u64>,
    files: BTreeMap<(u64, u64), UnnamedFile>,
    /// The numbers of those that a process holds, through which the content is read.
    held: BTreeSet<u32>,
}

/// What a link of /proc leads to.
#[derive(Clone, Debug)]
pub(in crate::resource) struct Found<'a> {
    /// The link.
    pub(in crate::resource) link: &'a Path,
    /// Its text.
    pub(in crate::resource) text: &'a [u8],
    /// stat(2) of what it leads to.
    pub(in crate::resource) metadata: &'a Metadata,
    /// The magic number of its file system.
    pub(in crate::resource) magic: i64,
    /// The path inside the container that the text stands for.
    pub(in crate::resource) inside: Option<Bytes>,
    /// Opened with O_TMPFILE.
    pub(in crate::resource) tmpfile: bool,
    /// A process of the container has it, not only a message.
    pub(in crate::resource) held: bool,
}

impl Unnamed {
    /// None met yet.
    #[must_use]
    pub fn new() -> Self {
        let probe = crfs_sys::shared_memory::create(4096).and_then(|probe| probe.metadata());
        Unnamed { kernel_mount: probe.ok().map(|metadata| metadata.dev()), ..Unnamed::default() }
    }

    /// Whether something on a file system of this magic number is memory of the kernel's own tmpfs or hugetlbfs, whose names no program
    /// chooses freely.
    ///
    /// # Errors
    /// When the kernel makes nothing in its hugetlbfs to compare it with.
    pub(in crate::resource) fn is_kernels(&self, metadata: &Metadata, magic: i64) -> std::io::Result<bool> {
        if magic == HUGETLBFS_MAGIC.0 {
            return is_kernels_huge(metadata);
        }
        Ok(self.kernel_mount == Some(metadata.dev()))
    }

    /// The number of a regular file without a name.
    pub(in crate::resource) fn find(&mut self, found: &Found<'_>) -> Result<u32, Refusal> {
        let number = self.number(found)?;
        if found.held {
            self.held.insert(number);
        }
        Ok(number)
    }

    /// Whether a process holds a file of those that were found.
    pub(in crate::resource) fn is_held(&self, number: u32) -> bool {
        self.held.contains(&number)
    }

    fn number(&mut self, found: &Found<'_>) -> Result<u32, Refusal> {
        let key = (found.metadata.dev(), found.metadata.ino());
        let next = u32::try_from(self.files.len() + 1).unwrap_or(u32::MAX);
        if let Some(known) = self.files.get_mut(&key) {
            // One of its descriptions may tell what the others do not.
            if let (true, Origin::Deleted(place)) = (is_tmpfile(found), &known.origin) {
                known.origin = Origin::Tmpfile(place.clone());
            }
            return Ok(known.number);
        }
        let origin = self.origin(found)?;
        let metadata = found.metadata;
        let file = UnnamedFile {
            number: next,
            origin,
            size: metadata.size(),
            mode: Octal(metadata.mode() & 0o7777),
            uid: metadata.uid(),
            gid: metadata.gid(),
            modified: Timespec { sec: metadata.mtime(), nsec: u32::try_from(metadata.mtime_nsec()).unwrap_or(0) },
        };
        self.files.insert(key, file);
        Ok(next)
    }

    fn origin(&self, found: &Found<'_>) -> Result<Origin, Refusal> {
        let shown = Bytes(found.text.to_vec()).escaped();
        let unknown = |error: std::io::Error| refused::unknown_unnamed(&shown, &error.to_string());
        let huge = found.magic == HUGETLBFS_MAGIC.0;
        let kernels = self.is_kernels(found.metadata, found.magic).map_err(unknown)?;
        // Whoever mounts a hugetlbfs may call its files as he likes.
        if huge && !kernels {
            return Err(refused::huge_file(&shown));
        }
        if kernels {
            let page_size = if huge { found.metadata.blksize() } else { PAGE_SIZE };
            // As fallocate(2) leaves it. Whoever maps the last page to fill it makes the file longer.
            if huge && !found.metadata.size().is_multiple_of(page_size) {
                return Err(refused::unknown_unnamed(&shown, "its huge pages end beyond its size"));
            }
            if huge && found.text == SHARED_HUGE_PAGES {
                return Ok(Origin::SharedHugePages(HugeMapping { page_size }));
            }
            let name = found.text.strip_prefix(b"/memfd:").and_then(|text| text.strip_suffix(DELETED));
            let name = name.ok_or_else(|| refused::unknown_unnamed(&shown, "it is memory of an unknown kind"))?;
            let seals = seals(found.link).map_err(unknown)?;
            return Ok(Origin::Memfd(Memfd { name: Bytes(name.to_vec()), seals, page_size }));
        }
        let path = found.inside.as_ref().map(|path| path.0.strip_suffix(DELETED).unwrap_or(&path.0).to_vec());
        let outside = || refused::unknown_unnamed(&shown, "it lay outside the container's root directory");
        let place = Place { path: Bytes(path.ok_or_else(outside)?) };
        Ok(if is_tmpfile(found) { Origin::Tmpfile(place) } else { Origin::Deleted(place) })
    }

    /// The records, by number.
    #[must_use]
    pub fn into_records(self) -> Vec<UnnamedFile> {
        let mut files: Vec<UnnamedFile> = self.files.into_values().collect();
        files.sort_by_key(|file| file.number);
        files
    }
}

/// Whether it never had a name. The flag is gone when it was opened once more, as a restore does; the name `#INODE` that the kernel
/// shows in place of one (`d_mark_tmpfile` in `fs/dcache.c`, v6.18) stays.
fn is_tmpfile(found: &Found<'_>) -> bool {
    let text = found.text.strip_suffix(DELETED).unwrap_or(found.text);
    let name = text.rsplit(|&byte| byte == b'/').next().unwrap_or(text);
    found.tmpfile || name == format!("#{}", found.metadata.ino()).as_bytes()
}

/// Whether a file lies in the kernel's own hugetlbfs for its size of pages, whose blocks they are.
fn is_kernels_huge(metadata: &Metadata) -> std::io::Result<bool> {
    let probe = File::from(memfd_create(c"probe", super::memfd_flags(metadata.blksize()))?);
    Ok(probe.metadata()?.dev() == metadata.dev())
}

/// The seals of a memfd.
fn seals(link: &Path) -> std::io::Result<Seals> {
    let seals = fcntl(&File::open(link)?, FcntlArg::F_GET_SEALS)?;
    Ok(Seals(u64::try_from(seals).unwrap_or(0)))
}
