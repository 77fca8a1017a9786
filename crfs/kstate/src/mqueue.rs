//! POSIX message queues: the messages, which can only be taken otherwise, and who is to be told of the next one.
//!
//! A queue keeps a tree of priorities, each with a list of its messages. A message begins right behind its head; what has no room left in
//! that page goes on in a chain of parts.
//!
//! Source: ipc/mqueue.c, ipc/msgutil.c, include/linux/msg.h, v6.18; mq_notify(3).

use crate::error::Error;
use crate::feature::Feature;
use crate::files;
use crate::paths::Path;
use crate::state::{KernelState, View};
use crate::tasks::{Task, word};

/// More messages than a queue may hold (HARD_MSGMAX): the tree is no tree.
const MAX_MESSAGES: usize = 65536;
/// More bytes than a message may have (HARD_MSGSIZEMAX).
const MAX_SIZE: u64 = 16 << 20;
/// The head of a message, or of a part, lies in one page with what follows it.
const PAGE: usize = 4096;

/// include/uapi/asm-generic/siginfo.h
const SIGEV_THREAD: i32 = 2;

/// What a POSIX message queue holds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MessageQueue {
    /// In the order in which they would be received.
    pub messages: Vec<QueuedMessage>,
    /// A registration of mq_notify(3).
    pub notify: Option<QueueNotify>,
}

/// A message that waits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QueuedMessage {
    /// `msg_prio`.
    pub priority: u32,
    /// Bytes.
    pub data: Vec<u8>,
}

/// Who is told of a message that comes into an empty queue, and how.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QueueNotify {
    /// The process, in the host's pid namespace.
    pub pid: i32,
    /// [`KernelState::exec_id`] of the process when it registered: once it has another, it is not told.
    pub exec_id: u32,
    /// `SIGEV_SIGNAL`, `SIGEV_NONE`, `SIGEV_THREAD`.
    pub kind: i32,
    /// The signal.
    pub signal: i32,
    /// `sigev_value`.
    pub value: u64,
    /// Of `SIGEV_THREAD`, how it is told.
    pub cookie: Option<NotifyCookie>,
}

/// What a socket gets when there is a message: the C library makes a thread then.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NotifyCookie {
    /// The identity of the netlink socket, as of [`KernelState::own_notify_socket`].
    pub socket: u64,
    /// What it gets; the last byte is the kernel's (NOTIFY_COOKIE_LEN, include/uapi/linux/mqueue.h).
    pub bytes: [u8; 32],
}

impl KernelState {
    /// What the queue behind a descriptor holds. The descriptor must be one of a POSIX message queue, which its file system tells.
    ///
    /// # Errors
    /// [`Error::NotOpen`], [`Error::FeatureOff`], [`Error::Gone`], [`Error::Read`]; [`Error::List`] when it changes meanwhile.
    pub fn message_queue(&self, task: &Task, fd: i32) -> Result<MessageQueue, Error> {
        let view = self.view(Feature::MessageQueues, task)?;
        let inode = view.u64_from(files::file(&view, fd)?, &[Path::FileInode])?;
        let queue = inode.wrapping_sub(view.offset(Path::QueueInode)?);
        Ok(MessageQueue { messages: messages(&view, queue)?, notify: notify(&view, queue)? })
    }

    /// The same for a descriptor of the calling thread.
    ///
    /// # Errors
    /// As [`KernelState::message_queue`].
    pub fn own_message_queue(&self, fd: i32) -> Result<MessageQueue, Error> {
        self.message_queue(&Task::caller(0), fd)
    }

    /// The identity of the socket behind a descriptor of the calling thread, as a [`NotifyCookie`] has it.
    ///
    /// # Errors
    /// As [`KernelState::message_queue`].
    pub fn own_notify_socket(&self, fd: i32) -> Result<u64, Error> {
        self.notify_socket(&Task::caller(0), fd)
    }

    /// The same for a descriptor of a task.
    pub(crate) fn notify_socket(&self, task: &Task, fd: i32) -> Result<u64, Error> {
        files::sock(&self.view(Feature::MessageQueues, task)?, fd)
    }

    /// How often the process has executed a program, as registrations of mq_notify(3) count.
    ///
    /// # Errors
    /// [`Error::FeatureOff`], [`Error::Read`].
    pub fn exec_id(&self, task: &Task) -> Result<u32, Error> {
        let id = self.view(Feature::MessageQueues, task)?.u64(&[Path::TaskExec])?;
        Ok((id & 0xffff_ffff) as u32)
    }
}

fn changed(view: &View<'_>) -> Error {
    Error::List { tid: view.tid(), list: "msg_tree" }
}

fn notify(view: &View<'_>, queue: u64) -> Result<Option<QueueNotify>, Error> {
    let owner = view.u64_from(queue, &[Path::QueueNotifyOwner])?;
    if owner == 0 {
        return Ok(None);
    }
    let number = |path| view.u32_from(queue, &[path]);
    let kind = number(Path::QueueNotifyKind)?.cast_signed();
    Ok(Some(QueueNotify {
        pid: view.u32_from(owner, &[Path::PidNumbers])?.cast_signed(),
        exec_id: number(Path::QueueNotifyExec)?,
        kind,
        signal: number(Path::QueueNotifySignal)?.cast_signed(),
        value: view.u64_from(queue, &[Path::QueueNotifyValue])?,
        cookie: (kind == SIGEV_THREAD).then(|| cookie(view, queue)).transpose()?,
    }))
}

fn cookie(view: &View<'_>, queue: u64) -> Result<NotifyCookie, Error> {
    let mut bytes = [0; 32];
    let data = view.u64_from(queue, &[Path::QueueNotifyCookie, Path::SkbData])?;
    view.bytes_at(data, Path::SkbData, &mut bytes)?;
    Ok(NotifyCookie { socket: view.u64_from(queue, &[Path::QueueNotifySock])?, bytes })
}

/// Goes through the tree from right to left: from the highest priority to the lowest.
fn messages(view: &View<'_>, queue: u64) -> Result<Vec<QueuedMessage>, Error> {
    let links = view.offset(Path::NodeLinks)?;
    let mut messages = Vec::new();
    let mut open = Vec::new();
    let mut next = view.u64_from(queue, &[Path::QueueTree])?;
    while next != 0 || !open.is_empty() {
        if next != 0 {
            if open.len() > MAX_MESSAGES {
                return Err(changed(view));
            }
            open.push(next);
            next = view.u64_from(next, &[Path::NodeRight])?;
        } else if let Some(node) = open.pop() {
            of_priority(view, node.wrapping_sub(links), &mut messages)?;
            next = view.u64_from(node, &[Path::NodeLeft])?;
        }
    }
    Ok(messages)
}

/// The messages of one node of the tree.
fn of_priority(view: &View<'_>, node: u64, messages: &mut Vec<QueuedMessage>) -> Result<(), Error> {
    let priority = view.u32_from(node, &[Path::NodePriority])?;
    let entry = view.offset(Path::MessageEntry)?;
    let mut pair = [0; 16];
    let head = view.bytes_from(node, &[Path::NodeMessages], &mut pair)?;
    let (mut previous, mut at) = (head, word(&pair, 0));
    while at != head {
        view.bytes_at(at, Path::MessageEntry, &mut pair)?;
        if word(&pair, 8) != previous || messages.len() >= MAX_MESSAGES {
            return Err(changed(view));
        }
        messages.push(QueuedMessage { priority, data: data(view, at.wrapping_sub(entry))? });
        (previous, at) = (at, word(&pair, 0));
    }
    Ok(())
}

/// The bytes of a message.
fn data(view: &View<'_>, message: u64) -> Result<Vec<u8>, Error> {
    let size = view.u64_from(message, &[Path::MessageSize])?;
    let size = usize::try_from(size).ok().filter(|&size| size as u64 <= MAX_SIZE).ok_or_else(|| changed(view))?;
    let mut data = vec![0; size];
    let mut rest = data.as_mut_slice();
    let head = |path| -> Result<usize, Error> { Ok(view.resolved(path)?.field.size as usize) };
    let (mut at, mut behind) = (message, head(Path::Message)?);
    let mut next = view.u64_from(message, &[Path::MessageNext])?;
    loop {
        let (part, after) = rest.split_at_mut(rest.len().min(PAGE.saturating_sub(behind)));
        view.bytes_at(at.wrapping_add(behind as u64), Path::Message, part)?;
        if after.is_empty() {
            return Ok(data);
        }
        if next == 0 {
            return Err(changed(view));
        }
        (rest, at, behind) = (after, next, head(Path::MessagePart)?);
        // Its head is a pointer to the next part.
        let mut pointer = [0; 8];
        view.bytes_at(at, Path::MessagePart, &mut pointer)?;
        next = word(&pointer, 0);
    }
}
