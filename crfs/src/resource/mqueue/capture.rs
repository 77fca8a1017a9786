//! From a queue to its record.

use crate::failure::{Doing, Failure};
use crate::resource::Findings;
use crate::resource::container::inside::{IPC, inside};
use crate::resource::descriptor::holders::Kernel;
use crate::resource::descriptor::refused::Refusal;
use crfs_kstate::QueueNotify;
use crfs_sys::mqueue::{self, Attributes};
use image_format::layout::POSIX_MQ;
use image_format::mqueue::{self as records, PosixMessage, PosixQueue};
use image_format::signal::Signal;
use image_format::{Bytes, FileId, Hex, Image, Octal, Pid};
use std::fs::{self, File};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::MetadataExt;

/// What a new namespace allows; whatever differs was changed inside.
const LIMITS: [(&str, &str); 5] = [
    ("msg_default", "10"),
    ("msg_max", "10"),
    ("msgsize_default", "8192"),
    ("msgsize_max", "8192"),
    ("queues_max", "256"),
];

const NAMELESS: &str = "without a name";

/// The message queues of a container's ipc namespace.
#[derive(Debug)]
pub(crate) struct Namespace {
    /// The device number that all its queues have.
    pub(crate) device: u64,
    /// The queues that have one, by name.
    pub(crate) named: Vec<(Bytes, File)>,
    /// The names of limits that were changed, with what they are and what they were.
    pub(crate) changed: Vec<(&'static str, String, &'static str)>,
}

impl Namespace {
    /// Looks into the namespace of a process (host pid). None when it has none of its own, or the kernel no message queues.
    ///
    /// The caller must have one thread.
    ///
    /// # Errors
    /// When it cannot be looked into.
    pub(crate) fn look(process: i32) -> Result<Option<Self>, Failure> {
        let doing = || format!("{POSIX_MQ}: listing");
        let identity =
            |task: &str| fs::metadata(format!("/proc/{task}/ns/ipc")).map(|found| (found.dev(), found.ino()));
        if identity("self").doing(doing)? == identity(&process.to_string()).doing(doing)? {
            return Ok(None);
        }
        inside(process, &[IPC], || {
            let Some(mount) = mqueue::mount().doing(doing)? else { return Ok(None) };
            let directory = format!("/proc/self/fd/{}", mount.as_raw_fd());
            let device = fs::metadata(&directory).doing(doing)?.dev();
            let mut named = Vec::new();
            for entry in fs::read_dir(&directory).doing(doing)? {
                let entry = entry.doing(doing)?;
                let queue = File::open(entry.path()).doing(doing)?;
                named.push((Bytes(entry.file_name().into_vec()), queue));
            }
            named.sort_by(|(one, _), (other, _)| one.0.cmp(&other.0));
            let value = |name: &str| fs::read_to_string(format!("/proc/sys/fs/mqueue/{name}"));
            let limits =
                LIMITS.iter().filter_map(|&(name, usual)| Some((name, value(name).ok()?.trim().to_owned(), usual)));
            let changed = limits.filter(|(_, value, usual)| value != usual).collect();
            Ok(Some(Namespace { device, named, changed }))
        })
    }
}

/// Which queue is captured, and who may have to be told.
pub(crate) struct Asked<'a> {
    /// Its number in the image.
    pub(crate) number: u32,
    /// The ipc namespace that it lies in, by its number.
    pub(crate) namespace: u32,
    /// Its name, if it still has one.
    pub(crate) name: Option<Bytes>,
    /// All processes, as the container and as the host numbers them.
    pub(crate) processes: &'a [(Pid, i32)],
    /// Finds the netlink socket of this identity.
    pub(crate) socket: &'a dyn Fn(u64) -> Option<FileId>,
}

/// Captures a queue that the calling process has open, and its messages one after the other. The tasks stand still.
///
/// # Errors
/// When its attributes cannot be asked for.
pub(crate) fn capture(
    queue: &File,
    asked: Asked<'_>,
    kernel: &Kernel<'_>,
) -> Result<Result<(PosixQueue, Vec<u8>), Refusal>, Failure> {
    let Asked { number, namespace, name, .. } = &asked;
    let what = name.as_ref().map_or_else(|| NAMELESS.to_owned(), |name| format!("/{name}"));
    let doing = || format!("{POSIX_MQ}: {what}: attributes");
    let Attributes { capacity, message_size } = mqueue::attributes(queue.as_fd()).doing(doing)?;
    let metadata = queue.metadata().doing(doing)?;
    let held = match kernel.message_queue(queue.as_raw_fd()) {
        Ok(held) => held,
        Err(why) => return Ok(Err(unknown(&what, &why))),
    };
    let notify = match held.notify.map(|notify| registration(&what, &notify, &asked, kernel)).transpose() {
        Ok(notify) => notify,
        Err(refusal) => return Ok(Err(refusal)),
    };
    let size = |data: &Vec<u8>| u32::try_from(data.len()).unwrap_or(u32::MAX);
    let messages = held.messages.iter();
    let record = PosixQueue {
        number: *number,
        namespace: *namespace,
        name: name.clone(),
        mode: Octal(metadata.mode() & 0o7777),
        uid: metadata.uid(),
        gid: metadata.gid(),
        capacity,
        message_size,
        messages: messages.map(|one| PosixMessage { priority: one.priority, size: size(&one.data) }).collect(),
        notify,
    };
    Ok(Ok((record, held.messages.into_iter().flat_map(|message| message.data).collect())))
}

/// The record of a registration.
fn registration(
    what: &str,
    notify: &QueueNotify,
    asked: &Asked<'_>,
    kernel: &Kernel<'_>,
) -> Result<records::QueueNotify, Refusal> {
    let Some(&(process, host)) = asked.processes.iter().find(|(_, host)| *host == notify.pid) else {
        return Err(not_open(what));
    };
    let exec_id = kernel.exec_id(host).map_err(|why| unknown(what, &why))?;
    let signal = u8::try_from(notify.signal).ok().filter(|signal| (1..=64).contains(signal)).map(Signal);
    let thread = match notify.cookie {
        Some(cookie) => {
            let socket = (asked.socket)(cookie.socket).ok_or_else(|| nobody_is_told(what))?;
            Some(records::QueueThread { socket, cookie: Bytes(cookie.bytes.to_vec()) })
        }
        None => None,
    };
    // A program that the process executed since is not told, and nobody else can register.
    let signal = signal.filter(|_| notify.kind == libc::SIGEV_SIGNAL && notify.exec_id == exec_id);
    let value = Hex(if signal.is_some() { notify.value } else { 0 });
    Ok(records::QueueNotify { process, signal, value, thread })
}

/// The obstacle of registrations by processes that have no descriptor to make them again, once all descriptors are known. What
/// [`image_format::check`] would refuse.
pub fn report(image: &Image, findings: &mut Findings) {
    for queue in &image.queues {
        let is_it = |id: FileId| image.files.get(&id).is_some_and(|file| file.queue() == Some(queue.number));
        let Some(notify) = &queue.notify else { continue };
        let what = queue.name.as_ref().map_or_else(|| NAMELESS.to_owned(), |name| format!("/{name}"));
        let is_told = |socket: FileId| image.descriptor(notify.process, |id| id == socket).is_some();
        let refusal = if image.descriptor(notify.process, is_it).is_none() {
            not_open(&what)
        } else if notify.thread.as_ref().is_some_and(|thread| !is_told(thread.socket)) {
            nobody_is_told(&what)
        } else {
            continue;
        };
        findings.block(POSIX_MQ, refusal.reason, refusal.remedy);
    }
}

fn not_open(what: &str) -> Refusal {
    Refusal::new(
        format!(
            "the POSIX message queue {what} tells of messages to a process that does not have it open, and cannot be carried"
        ),
        "Have the program take its notification back (mq_notify) before it closes the queue.",
    )
}

fn nobody_is_told(what: &str) -> Refusal {
    Refusal::new(
        format!(
            "the POSIX message queue {what} tells of messages by starting a thread (SIGEV_THREAD), over a socket that its process has closed, and cannot be carried"
        ),
        "Have the program take its notification back (mq_notify).",
    )
}

fn unknown(what: &str, why: &str) -> Refusal {
    Refusal::new(
        format!("the POSIX message queue {what}: what it holds cannot be told: {why}"),
        "Run the program without message queues, or on a kernel whose memory layout is known.",
    )
}

/// The refusal of a queue of nobody's namespace.
pub(crate) fn another_namespace(name: &str) -> Refusal {
    Refusal::new(
        format!(
            "a POSIX message queue ({name}) of an ipc namespace that no process of the container is in cannot be carried"
        ),
        "Have the program close it before the freeze.",
    )
}
