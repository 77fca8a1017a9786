//! From an open file or directory of a pseudo file system to its record.

use crate::resource::descriptor::place::OpenPlace;
use crate::resource::descriptor::refused::Refusal;
use crate::resource::descriptor::reopen;
use crate::resource::descriptor::seen::{Seen, is_writable};
use image_format::Bytes;
use image_format::files::{OpenFlags, PseudoFile, PseudoFileSystem};
use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};

/// Files of a process that hold its address space from when they were opened, and tell of it when read (`proc_mem_open`,
/// fs/proc/base.c, v6.18).
const OF_AN_ADDRESS_SPACE: [&str; 6] = ["auxv", "environ", "maps", "numa_maps", "smaps", "smaps_rollup"];

/// Those of which reading does not tell whether the address space is still that of the process.
const OF_ANY_ADDRESS_SPACE: [&str; 3] = ["clear_refs", "mem", "pagemap"];

/// The size that stat(2) shows of an attribute of sysfs that is text (`sysfs_add_file_mode_ns`, fs/sysfs/file.c, v6.18). Others lead to
/// devices, and reading them may do something.
const TEXT_OF_SYSFS: u64 = 4096;

/// Whether a path is that of a kernel parameter. Some parameters stand there once for each namespace, and who looks from another one
/// finds another inode in the same place (`proc_sys_compare`, fs/proc/proc_sysctl.c, v6.18).
pub(super) fn is_sysctl(path: &[u8]) -> bool {
    path.starts_with(b"/proc/sys/")
}

/// Captures a regular file or a directory of a pseudo file system. `at_rest`: its program is frozen.
pub(in crate::resource) fn capture(
    seen: &Seen,
    file_system: PseudoFileSystem,
    place: &OpenPlace,
    at_rest: bool,
) -> Result<PseudoFile, Refusal> {
    let path = match file_system {
        PseudoFileSystem::Proc => of_proc(seen, place, at_rest)?,
        _ if is_writable(seen.flags()) => return Err(refusal(seen, file_system, "it is open for writing")),
        _ => place.path(seen, "file")?,
    };
    let at_end = at_rest && is_at_end(seen, file_system).unwrap_or(false);
    Ok(PseudoFile { file_system, path, at_end })
}

fn refusal(seen: &Seen, file_system: PseudoFileSystem, why: &str) -> Refusal {
    let of = super::name(file_system);
    Refusal::new(
        format!("{} of the {of} file system cannot be carried: {why}", seen.name()),
        "Have the program close it before the freeze.",
    )
}

/// The path of a file or directory of /proc.
fn of_proc(seen: &Seen, place: &OpenPlace, at_rest: bool) -> Result<Bytes, Refusal> {
    const ANOTHER: &str = "it shows the address space that the process had when it was opened";
    let name = seen.name();
    let refuse = |why: &str| Err(refusal(seen, PseudoFileSystem::Proc, why));
    if is_writable(seen.flags()) {
        return refuse("it is open for writing");
    }
    let below = name.strip_prefix("/proc/").unwrap_or_default();
    let is_of_a_process = below.starts_with(|first: char| first.is_ascii_digit());
    let file = below.rsplit_once('/').map_or("", |(_, file)| file);
    if let Some(path) = place.written(seen).as_ref().and_then(|path| path.0.strip_suffix(b" (deleted)")) {
        // Whoever looks a file of a network namespace up finds it anew, and leaves the one before without a name
        // (`proc_net_d_revalidate`, fs/proc/generic.c, v6.18).
        let path = Bytes(path.to_vec());
        return match place.look(&path) {
            Ok(found) if seen.is_same(&found) => Ok(path),
            _ => place.path(seen, "file"),
        };
    }
    if is_of_a_process && OF_ANY_ADDRESS_SPACE.contains(&file) && !seen.is_path() {
        return refuse(ANOTHER);
    }
    if is_sysctl(name.as_bytes())
        && let Some(path) = place.written(seen)
        && place.device(&path.0) == Some(seen.metadata.dev())
    {
        return Ok(path);
    }
    let path = place.path(seen, "file")?;
    if is_of_a_process && OF_AN_ADDRESS_SPACE.contains(&file) && !seen.is_path() && at_rest {
        let is_current = shows_what_is_there(seen, place, &path);
        if !is_current.map_err(|error| refusal(seen, PseudoFileSystem::Proc, &format!("it cannot be read: {error}")))? {
            return refuse(ANOTHER);
        }
    }
    Ok(path)
}

/// Whether what is open shows the same address space as what stands under its path now: both begin with the same word. That is a range of
/// addresses, or all there is where the bytes are the program's own. Of an address space that is gone nothing is shown.
fn shows_what_is_there(seen: &Seen, place: &OpenPlace, path: &Bytes) -> io::Result<bool> {
    let begin = |file: &File| -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; 4096];
        let length = file.read_at(&mut bytes, 0)?;
        bytes.truncate(length);
        Ok(bytes.split(|&byte| byte == b' ').next().unwrap_or_default().to_vec())
    };
    let held = File::from(seen.duplicate()?);
    let now = reopen::read(place.root(), path)?;
    Ok(begin(&held)? == begin(&now)?)
}

/// Whether reading went as far as there is something. Where nothing was read yet it is not asked: that would change whether poll(2) tells of
/// a change. Elsewhere asking takes nothing away.
fn is_at_end(seen: &Seen, file_system: PseudoFileSystem) -> io::Result<bool> {
    let position = seen.info.position;
    let may_be_read = match file_system {
        PseudoFileSystem::Sysfs => seen.metadata.len() == TEXT_OF_SYSFS,
        _ => true,
    };
    if position == 0 || !may_be_read || seen.file_type() != libc::S_IFREG || seen.flags().contains(OpenFlags::O_PATH) {
        return Ok(false);
    }
    let held = File::from(seen.duplicate()?);
    Ok(held.read_at(&mut [0; 1], position)? == 0)
}
