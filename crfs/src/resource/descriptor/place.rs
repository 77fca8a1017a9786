//! Paths as the container sees them, and whether they still lead to what is open.

use super::refused::Refusal;
use super::reopen;
use super::seen::Seen;
use crate::failure::{Doing, Failure};
use crate::resource::container::{Place, other_name};
use crate::resource::mount::{View, Views};
use image_format::{Bytes, Pid};
use std::fs::{self, File};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

/// The container's root directory, open, and its log.
#[derive(Debug)]
pub(crate) struct OpenPlace {
    place: Place,
    root: File,
    /// Device and inode.
    log: Option<(u64, u64)>,
}

impl OpenPlace {
    /// The root that a link of /proc leads to.
    pub(crate) fn open(link: &Path, log: &Path) -> Result<Self, Failure> {
        let root = File::options().read(true).custom_flags(libc::O_PATH).open(link);
        let root = root.doing(|| "the container's root directory: opening it")?;
        let place = Place::through(link).doing(|| "the container's root directory: reading its path")?;
        let log = fs::metadata(log).ok().map(|log| (log.dev(), log.ino()));
        Ok(OpenPlace { place, root, log })
    }

    /// An O_PATH descriptor of the root directory.
    pub(crate) fn root(&self) -> BorrowedFd<'_> {
        self.root.as_fd()
    }

    /// What stands at a path inside the container.
    pub(crate) fn look(&self, path: &Bytes) -> std::io::Result<fs::Metadata> {
        self.look_at(path)?.metadata()
    }

    /// The same, as an O_PATH descriptor.
    pub(crate) fn look_at(&self, path: &Bytes) -> std::io::Result<File> {
        reopen::look(self.root.as_fd(), path)
    }

    /// The device number of the file system at a path inside the container. None where there is no such path.
    pub(crate) fn device(&self, path: &[u8]) -> Option<u64> {
        self.look(&Bytes(path.to_vec())).ok().map(|found| found.dev())
    }

    /// Whether this is the container's log, open for reading or writing.
    pub(crate) fn is_log(&self, seen: &Seen) -> bool {
        self.log == Some(seen.inode()) && !seen.is_path()
    }

    /// The path inside the container of what is open, whether or not it leads there.
    pub(crate) fn written(&self, seen: &Seen) -> Option<Bytes> {
        self.inside(&seen.link)
    }

    /// The path inside the container that a link of /proc shows.
    pub(crate) fn inside(&self, link: &[u8]) -> Option<Bytes> {
        self.place.inside(link)
    }

    /// The path inside the container under which the same inode can be opened again.
    pub(crate) fn path(&self, seen: &Seen, what: &str) -> Result<Bytes, Refusal> {
        let Some(path) = self.written(seen) else {
            return Err(Refusal::new(
                format!("{what} {} lies outside the container's root directory", seen.name()),
                "Open it by a path inside the container.",
            ));
        };
        let there = reopen::look(self.root.as_fd(), &path).and_then(|found| found.metadata());
        if there.as_ref().is_ok_and(|found| seen.is_same(found)) {
            return Ok(path);
        }
        let mut directory = None;
        let reach = |path: &Bytes| {
            let held = &*directory.insert(self.look_at(path).ok()?);
            Some(format!("/proc/self/fd/{}", held.as_raw_fd()).into())
        };
        if let Some(other) = other_name(&path, &seen.metadata, reach) {
            return Ok(other);
        }
        let deleted = path.0.strip_suffix(b" (deleted)").map(|path| Bytes(path.to_vec()));
        Err(match (deleted, there) {
            (Some(path), _) => Refusal::new(
                format!("{what} {path} was deleted or replaced while it is open"),
                "Close it, or keep the file under its name until the checkpoint was restored.",
            ),
            (None, Ok(_)) => Refusal::new(
                format!("{what} {path} is open, and something else now stands under that path"),
                "Close it, or put the file back under its path (a mount may hide it).",
            ),
            (None, Err(error)) => Refusal::new(
                format!("{what} {path} is open, and that path does not lead to it: {error}"),
                "Close it, or put the file back under its path.",
            ),
        })
    }
}

/// The root directories of mount namespaces apart, in the order of their numbers.
#[derive(Debug)]
pub(crate) struct Apart<'a> {
    views: &'a Views,
    places: Vec<OpenPlace>,
}

impl<'a> Apart<'a> {
    /// Opens them.
    pub(crate) fn open(views: &'a Views, log: &Path) -> Result<Self, Failure> {
        let places = views.all().iter().map(|view| OpenPlace::open(view.place.root(), log));
        Ok(Apart { views, places: places.collect::<Result<_, _>>()? })
    }

    /// The number and the root of the namespace that the path of what is open is one of. What inotify instances and fanotify groups watch are paths
    /// of their holders. None: it is the container's own, or no path.
    pub(crate) fn of(&self, seen: &Seen) -> Option<(u32, &OpenPlace)> {
        if seen.link == b"anon_inode:inotify" || seen.link == b"anon_inode:[fanotify]" {
            return self.of_process(seen.holder.pid);
        }
        self.place(self.views.of_mount(seen.info.mount)?)
    }

    /// Those of the namespace that a process is in.
    pub(crate) fn of_process(&self, process: Pid) -> Option<(u32, &OpenPlace)> {
        self.place(self.views.of_process(process)?)
    }

    fn place(&self, (number, _): (u32, &View)) -> Option<(u32, &OpenPlace)> {
        let index = usize::try_from(number).ok()?.checked_sub(1)?;
        Some((number, self.places.get(index)?))
    }
}
