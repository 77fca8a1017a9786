//! From the records to files without a name.

use crate::copy::{Content, Contents};
use crate::failure::{Doing, Failure, Kind};
use crate::resource::huge_pages;
use crate::resource::mount::Roots;
use image_format::layout::{UNNAMED, unnamed_data};
use image_format::memory::HugeMapping;
use image_format::unnamed::{Memfd, Origin, Place, UnnamedFile};
use image_format::{Image, Timespec};
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, OpenHow, ResolveFlag, SealFlag, fcntl, openat2};
use nix::sys::memfd::memfd_create;
use nix::sys::stat::{Mode, fchmod, futimens};
use nix::sys::time::TimeSpec;
use nix::unistd::{Gid, Uid, UnlinkatFlags, fchown, unlinkat};
use std::collections::BTreeMap;
use std::ffi::{CString, OsStr};
use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;

/// Bytes that are copied at a time.
const PART: usize = 64 << 10;
/// How many names beside a taken one are tried.
const NAMES: u32 = 1000;

/// The files of an image, made again.
#[derive(Debug, Default)]
pub struct Made {
    files: BTreeMap<u32, File>,
    seals: BTreeMap<u32, SealFlag>,
}

impl Made {
    /// Makes and fills those of an image, below their roots.
    ///
    /// # Errors
    /// [`Kind::Incompatible`] where the file system does not take one.
    pub fn make(image: &Image, roots: &Roots<'_>, contents: &Contents<'_>) -> Result<Self, Failure> {
        let mut made = Made::default();
        for record in &image.unnamed {
            let root = roots.of_unnamed(image, record.number);
            let object = || unnamed_data(record.number);
            let file = match &record.origin {
                Origin::Memfd(memfd) => {
                    made.seals.insert(record.number, seals(memfd));
                    let name = CString::new(memfd.name.0.clone()).doing(object)?;
                    let made = memfd_create(name.as_c_str(), super::memfd_flags(memfd.page_size));
                    made.doing(|| format!("{}: making it of pages of {} bytes", object(), memfd.page_size))?
                }
                Origin::SharedHugePages(HugeMapping { page_size }) => crfs_sys::shared_memory::create_huge(*page_size)
                    .doing(|| format!("{}: making it of pages of {page_size} bytes", object()))?
                    .into(),
                Origin::Deleted(place) => in_directory(root, place, false).map_err(|e| unfit(record, place, &e))?,
                Origin::Tmpfile(place) => in_directory(root, place, true).map_err(|e| unfit(record, place, &e))?,
            };
            let file = File::from(file);
            let pages = match record.origin.huge_page_size() {
                Some(_) => " with huge pages, of which nr_hugepages must leave enough",
                None => "",
            };
            fill(&file, record, contents.open(&object())?).doing(|| format!("{}: filling it{pages}", object()))?;
            made.files.insert(record.number, file);
        }
        Ok(made)
    }

    /// Opens a file once more, close-on-exec, with these flags of open(2).
    ///
    /// # Errors
    /// When it was not made, or the system refuses the flags.
    pub fn open(&self, number: u32, flags: i32) -> Result<OwnedFd, Failure> {
        let file = self.files.get(&number);
        let file = file.ok_or_else(|| Failure::new(Kind::BadImage, format!("{UNNAMED}: there is no file {number}")))?;
        let access = flags & libc::O_ACCMODE;
        let mut options = File::options();
        options.read(access != libc::O_WRONLY).write(access != libc::O_RDONLY).custom_flags(flags & !libc::O_ACCMODE);
        let opened = options.open(format!("/proc/self/fd/{}", file.as_raw_fd()));
        opened.map(OwnedFd::from).doing(|| format!("{}: opening it", unnamed_data(number)))
    }

    /// Seals the memfds: once everything is opened and mapped, since some seals forbid that.
    ///
    /// # Errors
    /// When a mapping of the image contradicts a seal.
    pub fn seal(&self) -> Result<(), Failure> {
        for (number, &seals) in &self.seals {
            if let Some(file) = self.files.get(number).filter(|_| !seals.is_empty()) {
                fcntl(file, FcntlArg::F_ADD_SEALS(seals)).doing(|| format!("{}: sealing it", unnamed_data(*number)))?;
            }
        }
        Ok(())
    }
}

fn seals(memfd: &Memfd) -> SealFlag {
    SealFlag::from_bits_retain(i32::try_from(memfd.seals.0).unwrap_or(0))
}

fn unfit(record: &UnnamedFile, place: &Place, error: &std::io::Error) -> Failure {
    let reason = format!("{}: it cannot be made at {}: {error}", unnamed_data(record.number), place.path);
    Failure::new(Kind::Incompatible, reason)
}

/// Makes a file in the directory of a path, or in the nearest one above that is there; without a name, or with one for a moment.
fn in_directory(root: BorrowedFd<'_>, place: &Place, tmpfile: bool) -> std::io::Result<OwnedFd> {
    let path = Path::new(OsStr::from_bytes(&place.path.0));
    let name = path.file_name().unwrap_or(OsStr::new("unnamed"));
    let open = |directory: &Path| {
        let how = OpenHow::new().flags(OFlag::O_DIRECTORY | OFlag::O_RDONLY | OFlag::O_CLOEXEC);
        openat2(root, directory, how.resolve(ResolveFlag::RESOLVE_IN_ROOT))
    };
    let mut above = path.parent();
    let directory = loop {
        let directory = above.unwrap_or(Path::new("/"));
        match open(directory) {
            Err(Errno::ENOENT | Errno::ENOTDIR) if directory.parent().is_some() => above = directory.parent(),
            other => break other?,
        }
    };
    if tmpfile {
        let flags = OFlag::O_TMPFILE | OFlag::O_RDWR | OFlag::O_CLOEXEC;
        return Ok(nix::fcntl::openat(&directory, ".", flags, Mode::S_IRUSR | Mode::S_IWUSR)?);
    }
    for number in 0..NAMES {
        let mut name = name.as_bytes().to_vec();
        if number > 0 {
            name.extend(format!(".{number}").bytes());
        }
        let name = CString::new(name)?;
        let flags = OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_RDWR | OFlag::O_CLOEXEC | OFlag::O_NOFOLLOW;
        match nix::fcntl::openat(&directory, name.as_c_str(), flags, Mode::S_IRUSR | Mode::S_IWUSR) {
            Err(Errno::EEXIST) => {}
            Err(errno) => return Err(errno.into()),
            Ok(file) => {
                unlinkat(&directory, name.as_c_str(), UnlinkatFlags::NoRemoveDir)?;
                return Ok(file);
            }
        }
    }
    Err(Errno::EEXIST.into())
}

/// Copies the content, and sets what else a file has.
fn fill(file: &File, record: &UnnamedFile, mut content: Content<'_>) -> std::io::Result<()> {
    file.set_len(record.size)?;
    content.each_part(PART, |at, part| match record.origin.huge_page_size() {
        Some(page_size) => huge_pages::write(file, page_size, part, at),
        None => file.write_all_at(part, at),
    })?;
    fchown(file.as_fd(), Some(Uid::from_raw(record.uid)), Some(Gid::from_raw(record.gid)))?;
    fchmod(file.as_fd(), Mode::from_bits_truncate(record.mode.0))?;
    let Timespec { sec, nsec } = record.modified;
    let modified = TimeSpec::new(sec, nsec.into());
    Ok(futimens(file.as_fd(), &TimeSpec::UTIME_OMIT, &modified)?)
}
