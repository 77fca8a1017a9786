//! What an address space is made of beside private memory: files, shared objects and rings, opened or made once for all processes.

use super::fill::PageFiles;
use crate::failure::{Doing, Failure, Kind};
use crate::plan::{MemoryPlan, Plan};
use crate::resource::io_uring;
use crate::resource::unnamed::Made;
use image_format::files::FileKind;
use image_format::io_uring::MappedRing;
use image_format::memory::{Backing, MappedFile, Segment};
use image_format::{Bytes, FileId, Image, ProcessImage, Timespec, layout};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt;

/// Whatever the image maps that is not private memory: opened or made once, by the worker, which every process pulls its
/// descriptors from.
#[derive(Debug, Default)]
pub struct Backings {
    files: BTreeMap<(Bytes, bool), OwnedFd>,
    objects: BTreeMap<u32, File>,
    unnamed: BTreeMap<(u32, bool), OwnedFd>,
    /// Rings of io_uring.
    rings: BTreeMap<u32, OwnedFd>,
    /// The numbers of files without a name that consist of huge pages.
    huge: BTreeSet<u32>,
}

impl Backings {
    /// Opens every mapped file and executable below the container's root, and makes every shared anonymous object.
    ///
    /// # Errors
    /// [`Kind::Incompatible`] with every file that is gone or is not what it was.
    pub fn open(image: &Image, plan: &Plan, root: BorrowedFd<'_>, unnamed: &Made) -> Result<Self, Failure> {
        let huge = image.unnamed.iter().filter(|file| file.origin.huge_page_size().is_some());
        let mut backings = Backings { huge: huge.map(|file| file.number).collect(), ..Backings::default() };
        let mut differences = BTreeSet::new();
        for (&pid, process) in &image.processes {
            backings.open_file(root, &process.process.exe, false).map(drop).unwrap_or_else(|reason| {
                differences.insert(format!("{}: {reason}", layout::process_file(pid, "process")));
            });
            for segment in &process.segments {
                if let Backing::Unnamed(file) = &segment.backing {
                    let access = if file.writable { libc::O_RDWR } else { libc::O_RDONLY };
                    let opened = unnamed.open(file.file, access)?;
                    backings.unnamed.entry((file.file, file.writable)).or_insert(opened);
                }
                if let Backing::File(file) = &segment.backing {
                    let checked =
                        backings.open_file(root, &file.path, file.writable).and_then(|fd| unchanged(fd, file));
                    checked.unwrap_or_else(|reason| {
                        differences.insert(format!(
                            "{}: {}: {reason}",
                            layout::process_file(pid, "mem.segments"),
                            segment.start
                        ));
                    });
                }
            }
        }
        if !differences.is_empty() {
            return Err(Failure { kind: Kind::Incompatible, chain: vec![Vec::from_iter(differences).join("; ")] });
        }
        for (&number, object) in &plan.objects {
            let made = crfs_sys::shared_memory::create(object.size);
            backings
                .objects
                .insert(number, made.doing(|| format!("shared memory {number}: making {} bytes", object.size))?);
        }
        Ok(backings)
    }

    fn open_file(&mut self, root: BorrowedFd<'_>, path: &Bytes, writable: bool) -> Result<&OwnedFd, String> {
        use nix::fcntl::{OFlag, OpenHow, ResolveFlag, openat2};
        use std::collections::btree_map::Entry;
        match self.files.entry((path.clone(), writable)) {
            Entry::Occupied(entry) => Ok(entry.into_mut()),
            Entry::Vacant(entry) => {
                let access = if writable { OFlag::O_RDWR } else { OFlag::O_RDONLY };
                // O_NONBLOCK: what stands there now may be a fifo.
                let how = OpenHow::new()
                    .flags(access | OFlag::O_CLOEXEC | OFlag::O_NONBLOCK)
                    .resolve(ResolveFlag::RESOLVE_IN_ROOT);
                let opened = openat2(root, path.0.as_slice(), how);
                opened
                    .map(|fd| &*entry.insert(fd))
                    .map_err(|errno| format!("{path}: cannot be opened: {}", errno.desc()))
            }
        }
    }

    pub(super) fn file(&self, path: &Bytes, writable: bool) -> Result<u64, Failure> {
        let fd = self.files.get(&(path.clone(), writable)).map(AsRawFd::as_raw_fd);
        fd.and_then(|fd| u64::try_from(fd).ok())
            .ok_or_else(|| Failure::new(Kind::System, format!("{path}: was not opened")))
    }

    pub(super) fn unnamed(&self, number: u32, writable: bool) -> Result<u64, Failure> {
        let fd = self.unnamed.get(&(number, writable)).map(AsRawFd::as_raw_fd);
        fd.and_then(|fd| u64::try_from(fd).ok())
            .ok_or_else(|| Failure::new(Kind::System, format!("{}: was not opened", layout::unnamed_data(number))))
    }

    /// Takes the rings of io_uring, once they were made as descriptors.
    ///
    /// # Errors
    /// When the system refuses to duplicate one.
    pub fn add_rings(&mut self, image: &Image, open: &BTreeMap<FileId, OwnedFd>) -> Result<(), Failure> {
        for (id, file) in &image.files {
            if let (FileKind::IoUring(record), Some(fd)) = (&file.kind, open.get(id)) {
                let ring = fd.try_clone().doing(|| format!("{}: duplicating it", layout::file_entry(*id)))?;
                self.rings.insert(record.ring, ring);
            }
        }
        Ok(())
    }

    /// The mappings of rings that a process does not inherit.
    ///
    /// # Errors
    /// When a ring was not made, which is a mistake of the caller.
    pub fn rings<'a>(
        &self,
        process: &'a ProcessImage,
        plan: &MemoryPlan,
    ) -> Result<Vec<io_uring::map::Place<'a>>, Failure> {
        let segments = plan.map.iter().filter_map(|&index| process.segments.get(index));
        let rings = segments.filter_map(|segment| match &segment.backing {
            Backing::IoUring(mapped) => Some((segment, mapped)),
            _ => None,
        });
        let place = |(segment, mapped): (&'a Segment, &'a MappedRing)| {
            let fd = self.rings.get(&mapped.ring).map(AsRawFd::as_raw_fd).and_then(|fd| u64::try_from(fd).ok());
            let missing = || Failure::new(Kind::System, format!("ring {} of io_uring: was not made", mapped.ring));
            Ok(io_uring::map::Place { segment, mapped, worker_fd: fd.ok_or_else(missing)? })
        };
        rings.map(place).collect()
    }

    /// Whether a mapping takes pages from a pool of huge ones.
    pub(super) fn is_huge(&self, segment: &Segment) -> bool {
        match &segment.backing {
            Backing::HugePages(_) => true,
            Backing::Unnamed(file) => self.huge.contains(&file.file),
            _ => false,
        }
    }

    pub(super) fn object(&self, number: u32) -> Result<u64, Failure> {
        let fd = self.objects.get(&number).map(AsRawFd::as_raw_fd);
        fd.and_then(|fd| u64::try_from(fd).ok())
            .ok_or_else(|| Failure::new(Kind::System, format!("shared memory {number}: was not made")))
    }

    /// Writes the contents of the shared anonymous objects.
    ///
    /// # Errors
    /// Of writing, or when checksums do not fit.
    pub fn fill_objects(&self, plan: &Plan, pages: &mut PageFiles<'_>) -> Result<(), Failure> {
        for (number, object) in &plan.objects {
            let Some(file) = self.objects.get(number) else { continue };
            for fill in &object.fill {
                pages.each_part(fill, |at, bytes| {
                    let written = file.write_all_at(bytes, at);
                    written.doing(|| format!("shared memory {number}: writing its contents"))
                })?;
            }
        }
        Ok(())
    }
}

fn unchanged(fd: &OwnedFd, file: &MappedFile) -> Result<(), String> {
    let stat = nix::sys::stat::fstat(fd).map_err(|errno| format!("{}: fstat: {}", file.path, errno.desc()))?;
    let size = u64::try_from(stat.st_size).unwrap_or(0);
    let modified = Timespec { sec: stat.st_mtime, nsec: u32::try_from(stat.st_mtime_nsec).unwrap_or(0) };
    if file.writable {
        // Written through the mapping itself: its time moves with every write, and only a cut takes pages away.
        return (size >= file.size)
            .then_some(())
            .ok_or_else(|| format!("{}: had {} bytes, has {size}", file.path, file.size));
    }
    if size != file.size {
        return Err(format!("{}: had {} bytes, has {size}; put the same file back", file.path, file.size));
    }
    if modified != file.modified {
        let (was, is) = (file.modified, modified);
        return Err(format!(
            "{}: was modified at {}.{:09}, now {}.{:09}; put the same file back with its time",
            file.path, was.sec, was.nsec, is.sec, is.nsec
        ));
    }
    Ok(())
}
