//! What a mapping maps: told from its name, and for files from the file itself.

use super::super::Findings;
use super::super::container::Place;
use super::super::descriptor::refused::Refusal;
use super::super::met::Met;
use super::super::subject::Process;
use super::super::unnamed::Found;
use super::objects::Objects;
use super::refuse::object;
use super::smaps::Mapping;
use crate::failure::{Doing, Failure};
use image_format::io_uring::MappedRing;
use image_format::memory::{Backing, HugeMapping, MappedFile, MappedUnnamed, SysvShm};
use image_format::types::Bytes;
use image_format::{Hex, Timespec};
use nix::sys::statfs::statfs;
use std::collections::HashMap;
use std::fs;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// What is known of a mapped file: a hundred processes map the same libraries.
#[derive(Clone, Debug)]
enum Known {
    File {
        path: Bytes,
        size: u64,
        modified: Timespec,
    },
    /// A System V segment, whose id is its inode number.
    Segment(u32),
    /// A file that no path leads to.
    Unnamed(u32),
    Refused {
        reason: String,
        remedy: String,
    },
    AioRing,
    /// A ring of io_uring, by its number.
    IoUring(u32),
}

/// The file system of rings of io_setup(2) (fs/aio.c, v6.18).
const AIO_RING_MAGIC: i64 = 0xa10a_10a1;

/// Device, inode and name as smaps has them: what two mappings of one file have in common.
type Key = ((u32, u32), u64, Vec<u8>);

/// Tells what mappings map, and remembers.
pub(super) struct Backings<'a> {
    place: &'a Place,
    met: &'a mut Met,
    files: HashMap<Key, Known>,
    objects: Objects,
}

impl<'a> Backings<'a> {
    pub(super) fn new(place: &'a Place, met: &'a mut Met) -> Self {
        Backings { place, met, files: HashMap::new(), objects: Objects::default() }
    }

    /// The shared anonymous objects that were met.
    pub(super) fn into_objects(self) -> Objects {
        self.objects
    }

    /// The backing; None, and an obstacle, for what cannot be carried.
    pub(super) fn find(
        &mut self,
        process: &Process,
        mapping: &Mapping,
        findings: &mut Findings,
    ) -> Result<Option<Backing>, Failure> {
        let name = mapping.name.as_slice();
        Ok(match name {
            b"" | b"[heap]" | b"[stack]" if mapping.inode == 0 => Some(Backing::Anonymous),
            b"[vdso]" => Some(Backing::Vdso),
            b"[vvar]" => Some(Backing::Vvar),
            b"[vvar_vclock]" => Some(Backing::VvarVclock),
            b"[vsyscall]" => Some(Backing::Vsyscall),
            // The name may hide what an anonymous shared mapping is: that one has an inode.
            _ if name.starts_with(b"[anon:") && mapping.inode == 0 => Some(Backing::Anonymous),
            _ if mapping.is_private_huge() => Some(Backing::HugePages(HugeMapping { page_size: mapping.page_size })),
            b"/dev/zero (deleted)" => self.shared(process, mapping)?,
            _ if name.starts_with(b"[anon_shmem:") => self.shared(process, mapping)?,
            // A System V segment of id 0 has inode 0 and yet a path.
            _ if mapping.inode == 0 && !name.starts_with(b"/") => {
                let shown = Bytes(mapping.name.clone());
                block(
                    process,
                    mapping,
                    &format!("is a mapping of the kind {shown}, which is not carried yet"),
                    "Unmap it before the checkpoint",
                    findings,
                );
                None
            }
            _ => self.file(process, mapping, findings)?,
        })
    }

    fn shared(&mut self, process: &Process, mapping: &Mapping) -> Result<Option<Backing>, Failure> {
        let path = map_file(process, mapping);
        self.objects
            .find(&path, mapping, &object(process.pid, mapping))
            .map(|found| Some(Backing::SharedAnonymous(found)))
    }

    fn file(
        &mut self,
        process: &Process,
        mapping: &Mapping,
        findings: &mut Findings,
    ) -> Result<Option<Backing>, Failure> {
        let key = (mapping.device, mapping.inode, mapping.name.clone());
        let known = match self.files.get(&key) {
            Some(known) => known.clone(),
            None => {
                let known = self.look(process, mapping)?;
                self.files.insert(key, known.clone());
                known
            }
        };
        Ok(match known {
            Known::File { path, size, modified } => Some(Backing::File(MappedFile {
                path,
                offset: mapping.offset,
                size,
                modified,
                // A private mapping may always be made writable; a shared one only if its file was opened for writing.
                writable: mapping.shared && mapping.has(b"mw"),
            })),
            Known::AioRing => Some(Backing::AioRing),
            Known::IoUring(ring) => Some(Backing::IoUring(MappedRing { ring, offset: Hex(mapping.offset) })),
            Known::Segment(segment) => {
                Some(Backing::SysvShm(SysvShm { segment, offset: mapping.offset, writable: mapping.has(b"mw") }))
            }
            Known::Unnamed(file) => Some(Backing::Unnamed(MappedUnnamed {
                file,
                offset: mapping.offset,
                writable: mapping.shared && mapping.has(b"mw"),
            })),
            Known::Refused { reason, remedy } => {
                block(process, mapping, &reason, &remedy, findings);
                None
            }
        })
    }

    fn look(&mut self, process: &Process, mapping: &Mapping) -> Result<Known, Failure> {
        let link = map_file(process, mapping);
        let what = || object(process.pid, mapping);
        let path = fs::read_link(&link).doing(|| format!("{}: reading its path", what()))?.into_os_string().into_vec();
        let metadata = fs::metadata(&link).doing(|| format!("{}: looking at its file", what()))?;
        let shown = Bytes(path.clone());
        let refused = |reason: String, remedy: &str| Ok(Known::Refused { reason, remedy: remedy.to_owned() });
        let unmap = "Unmap it before the checkpoint";
        let file_system = || {
            let found = statfs(link.as_str()).doing(|| format!("{}: asking for its file system", what()))?;
            Ok::<_, Failure>(found.filesystem_type().0)
        };
        // The same mount holds memfds and shared anonymous memory, and no name there can be chosen to begin so.
        if path.starts_with(b"/SYSV")
            && metadata.nlink() == 0
            && self.met.unnamed.is_kernels(&metadata, file_system()?).doing(what)?
        {
            return Ok(Known::Segment(u32::try_from(metadata.ino()).doing(what)?));
        }
        if path == b"/[aio] (deleted)" && file_system()? == AIO_RING_MAGIC {
            return Ok(Known::AioRing);
        }
        if path == b"anon_inode:[io_uring]" {
            return Ok(Known::IoUring(self.met.rings.number(metadata.ino())));
        }
        for (prefix, kind) in [
            (&b"/secretmem"[..], "secret memory (memfd_secret)"),
            (b"anon_inode:[perf_event]", "a perf buffer"),
            (b"socket:", "a ring of a packet socket"),
        ] {
            if path.starts_with(prefix) && metadata.nlink() == 0
                || path.starts_with(b"anon_inode:") && path.starts_with(prefix)
            {
                return refused(format!("maps {kind} ({shown}), which is not carried yet"), unmap);
            }
        }
        if !metadata.is_file() {
            return refused(format!("maps {shown}, which is no regular file; not carried yet"), unmap);
        }
        if metadata.nlink() == 0 {
            let found = Found {
                link: Path::new(&link),
                text: &path,
                metadata: &metadata,
                magic: file_system()?,
                inside: self.place.inside(&path),
                tmpfile: false,
                held: true,
            };
            return Ok(match self.met.unnamed.find(&found) {
                Ok(number) => Known::Unnamed(number),
                Err(Refusal { reason, remedy }) => Known::Refused { reason, remedy },
            });
        }
        Ok(match self.place.find(&path, &metadata) {
            Ok(path) => Known::File {
                path,
                size: metadata.size(),
                modified: Timespec { sec: metadata.mtime(), nsec: u32::try_from(metadata.mtime_nsec()).unwrap_or(0) },
            },
            Err(lost) => Known::Refused {
                reason: format!("maps the file {shown}, which {}", lost.words()),
                remedy: "Put the file back under its path, or start the program again (an upgrade replaced a library?)"
                    .to_owned(),
            },
        })
    }
}

/// The link of /proc/PID/map_files that leads to what is mapped.
fn map_file(process: &Process, mapping: &Mapping) -> String {
    format!("/proc/{}/map_files/{:x}-{:x}", process.alive().host, mapping.start, mapping.end)
}

fn block(process: &Process, mapping: &Mapping, reason: &str, remedy: &str, findings: &mut Findings) {
    findings.block(object(process.pid, mapping), reason, remedy);
}
