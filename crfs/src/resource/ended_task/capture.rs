//! From what is open of a task that has ended to its record.

use crate::resource::Findings;
use crate::resource::descriptor::place::OpenPlace;
use crate::resource::descriptor::refused::{self, Refusal};
use crate::resource::descriptor::seen::{Seen, is_writable};
use crate::resource::subject::Subjects;
use image_format::ended::{EndedTask, Entry};
use image_format::layout::{process_file, thread_file};
use image_format::{Bytes, Image};
use nix::errno::Errno;
use nix::sys::statfs::{PROC_SUPER_MAGIC, statfs};
use std::fs;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// Captures a file or directory of /proc whose process or thread has ended. None for any other. `init` is the container's first process as
/// the host numbers it. `at_rest`: its program is frozen.
pub(in crate::resource) fn capture(
    seen: &Seen,
    place: &OpenPlace,
    init: i32,
    at_rest: bool,
) -> Option<Result<EndedTask, Refusal>> {
    if seen.file_system != refused::PROC || !matches!(seen.file_type(), libc::S_IFREG | libc::S_IFDIR) {
        return None;
    }
    let written = place.written(seen)?;
    // Its name stays until somebody looks.
    let path = written.0.strip_suffix(b" (deleted)").unwrap_or(&written.0);
    let is_of_a_task = path.strip_prefix(b"/proc/").and_then(<[u8]>::first).is_some_and(u8::is_ascii_digit);
    let path = Bytes(path.to_vec());
    if !is_of_a_task || place.look(&path).is_ok_and(|found| seen.is_same(&found)) {
        return None;
    }
    // Another mount may be that of another pid namespace, whose ids are others.
    let own = fs::metadata(format!("/proc/{init}/root/proc"));
    let is_own = own.is_ok_and(|own| own.dev() == seen.metadata.dev());
    Some(ended(seen, at_rest, Entry::of(&path.0).filter(|_| is_own)))
}

/// The path of a directory below /proc/PID which a link of /proc (a root or working directory) leads to, whose process or thread has ended;
/// `inside` is how the container sees what the kernel writes of it. None for any other.
pub(in crate::resource) fn directory(link: &Path, inside: &Bytes) -> Option<Bytes> {
    let path = inside.0.strip_suffix(b" (deleted)").unwrap_or(&inside.0);
    Entry::of(path).filter(Entry::is_directory)?;
    let is_proc = statfs(link).is_ok_and(|found| found.filesystem_type() == PROC_SUPER_MAGIC);
    // There is nothing to list in it, not even itself.
    let listed = || fs::read_dir(link).and_then(|mut listing| listing.next().transpose());
    let is_dead = || listed().is_err_and(|error| matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ESRCH)));
    (is_proc && is_dead()).then(|| Bytes(path.to_vec()))
}

/// Finds working and root directories below /proc/PID of which a restore would make something else. Those of processes that have ended
/// are told by their ids, which nobody has.
pub fn report_directories(image: &Image, subjects: &Subjects, findings: &mut Findings) {
    let own = fs::metadata(format!("/proc/{}/root/proc", subjects.init)).map(|own| own.dev());
    for process in &subjects.processes {
        let Some(record) = image.processes.get(&process.pid) else { continue };
        let host = process.alive().host;
        let of_process = (host.to_string(), process_file(process.pid, "process"));
        let mut directories =
            vec![(&of_process, "cwd", &record.process.cwd), (&of_process, "root", &record.process.root)];
        let of_threads = process.threads.iter().filter_map(|thread| {
            let own = record.threads.get(&thread.tid)?.attr.directories.as_ref()?;
            let task = format!("{host}/task/{}", thread.host);
            Some(((task, thread_file(process.pid, thread.tid, "attr")), own))
        });
        let of_threads: Vec<_> = of_threads.collect();
        for (task, own) in &of_threads {
            directories.extend([(task, "cwd", &own.cwd), (task, "root", &own.root)]);
        }
        for ((task, object), name, path) in directories {
            if Entry::of(&path.0).is_none() {
                continue;
            }
            let link = Path::new("/proc").join(task).join(name);
            let why = match (directory(&link, path).is_some(), image.ended_directory(path).is_some()) {
                (true, true) if fs::metadata(&link).map(|it| it.dev()).ok() != own.as_ref().ok().copied() => {
                    "is of a process that has ended, and in another /proc than the container's"
                }
                (true, true) | (false, false) => continue,
                (true, false) => "is of a process that has ended, and whose id another has now",
                (false, true) => "is of a process outside of the container",
            };
            let what = if name == "cwd" { "the working directory" } else { "the root directory" };
            findings.block(
                object,
                format!("{what} {path} {why}"),
                "Have its process leave it, or start the program again",
            );
        }
    }
}

fn ended(seen: &Seen, at_rest: bool, entry: Option<Entry<'_>>) -> Result<EndedTask, Refusal> {
    let refuse = |why: &str, remedy: &str| {
        let reason = format!("{} of the proc file system cannot be carried: {why}", seen.name());
        Err(Refusal::new(reason, remedy))
    };
    if is_writable(seen.flags()) {
        return refuse("it is open for writing", refused::CLOSE);
    }
    let Some(entry) = entry else {
        return refuse("its process or thread has ended, or what it tells of has", refused::CLOSE);
    };
    let mut at_end = false;
    if at_rest && !entry.is_directory() && !seen.is_path() {
        let position = i64::try_from(seen.info.position).unwrap_or(i64::MAX);
        let held = seen.duplicate();
        match held.and_then(|held| crfs_sys::fds::has_more(held.as_fd(), position)) {
            Ok(true) => {
                let why = "it holds the rest of what its process or thread said before it ended";
                return refuse(why, "Have the program read it to its end, or close it.");
            }
            Ok(false) => at_end = seen.info.position > 0 && entry.has_end(),
            Err(Errno::ESRCH) => {}
            Err(error) => return refuse(&format!("it cannot be read: {error}"), refused::CLOSE),
        }
    }
    Ok(EndedTask { path: entry.path(entry.id), at_end })
}
