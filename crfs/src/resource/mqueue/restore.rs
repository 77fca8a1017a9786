//! From the records to the queues of a new ipc namespace, and to their descriptions.

use crate::failure::{Doing, Failure, Kind};
use crate::resource::container::inside::{IPC, inside};
use crate::resource::descriptor::reopen::check_flags;
use crfs_sys::mqueue::{self, Attributes};
use crfs_tracee::Batch;
use image_format::layout::{self, POSIX_MQ, file_entry};
use image_format::mqueue::PosixQueue;
use image_format::{FileId, Image, Pid};
use nix::sys::stat::{Mode, fchmod};
use nix::unistd::{Gid, Uid, fchown};
use std::collections::BTreeMap;
use std::ffi::CString;
use std::fs;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

/// Makes every queue in the ipc namespace of the first process (host pid), and opens each description of one. `staging` holds the
/// messages.
///
/// The caller must have one thread.
///
/// # Errors
/// [`Kind::Incompatible`] when the kernel refuses one as this host is set up.
pub fn make(init: i32, image: &Image, staging: &Path) -> Result<BTreeMap<FileId, OwnedFd>, Failure> {
    match image.queues.iter().any(|queue| queue.namespace == 0) {
        true => inside(init, &[IPC], || make_here(image, 0, staging)),
        false => Ok(BTreeMap::new()),
    }
}

/// The same for an ipc namespace by its number, which the caller is in.
///
/// # Errors
/// As [`make`].
pub fn make_here(image: &Image, namespace: u32, staging: &Path) -> Result<BTreeMap<FileId, OwnedFd>, Failure> {
    let queues = || image.queues.iter().filter(|queue| queue.namespace == namespace);
    let mut open = BTreeMap::new();
    let most = |value: fn(&PosixQueue) -> u32| queues().map(value).max().unwrap_or(0);
    let limits =
        [Limit::raise("msg_max", most(|q| q.capacity))?, Limit::raise("msgsize_max", most(|q| q.message_size))?];
    // Kept open until those without a name are open otherwise.
    let made: Vec<OwnedFd> = queues().map(|queue| self::queue(image, queue, staging)).collect::<Result<_, _>>()?;
    limits.into_iter().flatten().try_for_each(Limit::put_back)?;
    for (&id, file) in &image.files {
        let Some(number) = file.queue() else { continue };
        let object = file_entry(id);
        check_flags(file.flags, &object)?;
        let missing = || Failure::new(Kind::BadImage, format!("{object}: there is no queue {number} in {POSIX_MQ}"));
        let queue = image.queues.iter().find(|queue| queue.number == number).ok_or_else(missing)?;
        if queue.namespace != namespace {
            continue;
        }
        let flags = i32::try_from(file.flags.0).doing(|| object.clone())?;
        open.insert(
            id,
            mqueue::open(&name(image, queue)?, flags).doing(|| format!("{object}: opening a message queue"))?,
        );
    }
    for queue in queues().filter(|queue| queue.name.is_none()) {
        mqueue::unlink(&name(image, queue)?).doing(|| format!("{POSIX_MQ}: queue {}: unlinking it", queue.number))?;
    }
    drop(made);
    Ok(open)
}

/// The name of a queue, or one that no other has.
fn name(image: &Image, queue: &PosixQueue) -> Result<CString, Failure> {
    let borrowed = || {
        let taken = |name: &String| image.queues.iter().filter_map(|q| q.name.as_ref()).any(|n| n.0 == name.as_bytes());
        let mut name = format!("crfs-{}", queue.number);
        while taken(&name) {
            name.push('-');
        }
        name.into_bytes()
    };
    let bytes = queue.name.as_ref().map_or_else(borrowed, |name| name.0.clone());
    CString::new(bytes).doing(|| format!("{POSIX_MQ}: queue {}: name", queue.number))
}

/// Makes a queue with all it holds.
fn queue(image: &Image, record: &PosixQueue, staging: &Path) -> Result<OwnedFd, Failure> {
    let PosixQueue { number, mode, uid, gid, capacity, message_size, messages, .. } = record;
    let doing = || format!("{POSIX_MQ}: queue {number}");
    let attributes = Attributes { capacity: *capacity, message_size: *message_size };
    let made = mqueue::create(&name(image, record)?, attributes).map_err(|errno| {
        let reason = format!("{POSIX_MQ}: making queue {number}: {}", errno.desc());
        Failure::new(Kind::Incompatible, reason)
    })?;
    let data = fs::read(staging.join(layout::posix_queue_data(*number))).doing(doing)?;
    let mut rest = data.as_slice();
    for message in messages {
        let size = usize::try_from(message.size).unwrap_or(usize::MAX).min(rest.len());
        let (text, after) = rest.split_at(size);
        rest = after;
        mqueue::send(made.as_fd(), text, message.priority).doing(doing)?;
    }
    fchown(&made, Some(Uid::from_raw(*uid)), Some(Gid::from_raw(*gid))).doing(doing)?;
    fchmod(&made, Mode::from_bits_retain(mode.0)).doing(doing)?;
    Ok(made)
}

/// The call by which a process asks again to be told of the next message, for each queue that has such a process. It must have its
/// descriptors.
pub fn notify(image: &Image, mut inject: impl FnMut(Pid, &Batch) -> Result<(), Failure>) -> Result<(), Failure> {
    for queue in &image.queues {
        let Some(notify) = &queue.notify else { continue };
        let is_it = |id: FileId| image.files.get(&id).is_some_and(|file| file.queue() == Some(queue.number));
        let nobody = || Failure::new(Kind::System, format!("{POSIX_MQ}: queue {}: notify", queue.number));
        let fd = image.descriptor(notify.process, is_it).ok_or_else(nobody)?;
        // Of SIGEV_THREAD the socket stands in the place of the signal (mq_notify(3), ipc/mqueue.c).
        let (kind, signal) = match (&notify.thread, notify.signal) {
            (Some(thread), _) => {
                let socket = image.descriptor(notify.process, |id| id == thread.socket).ok_or_else(nobody)?;
                (libc::SIGEV_THREAD, socket.cast_signed())
            }
            (None, Some(signal)) => (libc::SIGEV_SIGNAL, i32::from(signal.0)),
            (None, None) => (libc::SIGEV_NONE, 0),
        };
        // struct sigevent
        let mut event = notify.value.0.to_ne_bytes().to_vec();
        event.extend(signal.to_ne_bytes());
        event.extend(kind.to_ne_bytes());
        event.resize(size_of::<libc::sigevent>(), 0);
        let mut batch = Batch::new();
        let event = batch.data(&event);
        if let Some(thread) = &notify.thread {
            let cookie = batch.data(&thread.cookie.0);
            batch.point(event, cookie);
        }
        batch.call(libc::SYS_mq_notify, &[fd.into(), event.into()], "mq_notify");
        inject(notify.process, &batch)?;
    }
    Ok(())
}

/// A limit of the namespace that was raised for a moment.
struct Limit {
    path: String,
    before: String,
}

impl Limit {
    /// Raises it to `least`; None when it is that high.
    fn raise(name: &str, least: u32) -> Result<Option<Self>, Failure> {
        let path = format!("/proc/sys/fs/mqueue/{name}");
        let before = fs::read_to_string(&path).doing(|| format!("{path}: reading"))?;
        if before.trim().parse::<u32>().is_ok_and(|now| now >= least) {
            return Ok(None);
        }
        fs::write(&path, least.to_string()).map_err(|error| {
            Failure::new(Kind::Incompatible, format!("{POSIX_MQ}: raising {path} to {least}: {error}"))
        })?;
        Ok(Some(Limit { path, before }))
    }

    fn put_back(self) -> Result<(), Failure> {
        fs::write(&self.path, self.before).doing(|| format!("{}: putting it back", self.path))
    }
}
