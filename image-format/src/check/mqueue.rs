//! `posix.mq`: queues the kernel can make, and descriptions that name them.

use super::Findings;
use crate::files::{File, FileKind};
use crate::image::Image;
use crate::layout::{MANIFEST, NAMESPACES, POSIX_MQ, file_entry};
use crate::manifest::NamespaceKind;
use crate::mqueue::{PosixQueue, QueueNotify};
use crate::types::FileId;
use std::collections::{BTreeMap, BTreeSet};

/// HARD_MSGMAX and HARD_MSGSIZEMAX (include/linux/ipc_namespace.h, v6.18).
const MOST_MESSAGES: u32 = 65536;
const LONGEST_MESSAGE: u32 = 16 * 1024 * 1024;
/// MQ_PRIO_MAX.
const PRIORITIES: u32 = 32768;
/// NAME_MAX.
const NAME_MAX: usize = 255;

pub(super) fn check(image: &Image, findings: &mut Findings) {
    // They would become the host's.
    if image.queues.iter().any(|queue| queue.namespace == 0) && image.manifest.container.shares(NamespaceKind::Ipc) {
        findings.add(MANIFEST, "container.host_namespaces: ipc: POSIX message queues take a namespace of their own");
    }
    let mut open: BTreeMap<u32, BTreeSet<FileId>> = BTreeMap::new();
    for (&id, file) in &image.files {
        let Some(queue) = file.queue() else { continue };
        open.entry(queue).or_default().insert(id);
        if !image.queues.iter().any(|known| known.number == queue) {
            findings.add(&file_entry(id), format!("there is no queue {queue} in {POSIX_MQ}"));
        }
    }
    let mut names = BTreeSet::new();
    let namespaces: BTreeSet<u32> = image.ipc_namespaces().map(|(number, _)| number).collect();
    for (index, queue) in (0..).zip(&image.queues) {
        let descriptions = open.get(&queue.number);
        let problems = [
            (u64::from(queue.number) != index + 1)
                .then(|| format!("number {} stands where {} belongs", queue.number, index + 1)),
            queue
                .name
                .as_ref()
                .filter(|name| !names.insert((queue.namespace, &name.0)))
                .map(|name| format!("name {name}: another has it")),
            (!namespaces.contains(&queue.namespace))
                .then(|| format!("namespace {}: {NAMESPACES} has no such line of type ipc", queue.namespace)),
            image.keeps_queues_out(queue.namespace).then(|| {
                format!(
                    "namespace {}: it belongs to a user namespace in which the container's root is nobody",
                    queue.namespace
                )
            }),
            (queue.name.is_none() && descriptions.is_none())
                .then(|| "name: it has none, and nobody has it open".to_owned()),
            queue.notify.as_ref().and_then(|notify| self::notify(image, notify, descriptions)),
        ];
        for problem in problems.into_iter().flatten().chain(own(queue)) {
            findings.line(POSIX_MQ, index, problem);
        }
    }
}

/// What is wrong with a queue taken by itself.
fn own(queue: &PosixQueue) -> Vec<String> {
    let PosixQueue { name, mode, capacity, message_size, messages, .. } = queue;
    let name = name.as_ref().and_then(|name| {
        let bytes = &name.0;
        let bad = bytes.is_empty() || bytes.len() > NAME_MAX || bytes.iter().any(|byte| matches!(byte, 0 | b'/'));
        (bad || matches!(bytes.as_slice(), b"." | b"..")).then(|| format!("name: {name:?} is no name of a queue"))
    });
    let ordered = messages.is_sorted_by(|one, next| one.priority >= next.priority);
    let within = |value: u32, most: u32| (1..=most).contains(&value);
    [
        name,
        (mode.0 > 0o7777).then(|| format!("mode {mode}: permissions are twelve bits")),
        (!within(*capacity, MOST_MESSAGES)).then(|| format!("capacity {capacity}: a queue holds 1 to {MOST_MESSAGES}")),
        (!within(*message_size, LONGEST_MESSAGE))
            .then(|| format!("message_size {message_size}: messages have 1 to {LONGEST_MESSAGE} bytes")),
        (messages.len() as u64 > u64::from(*capacity))
            .then(|| format!("messages: {} are more than its capacity of {capacity}", messages.len())),
        messages
            .iter()
            .find(|message| message.size > *message_size)
            .map(|message| format!("messages: one of {} bytes, above the {message_size} of the queue", message.size)),
        messages
            .iter()
            .find(|message| message.priority >= PRIORITIES)
            .map(|message| format!("messages: priority {} is not below {PRIORITIES}", message.priority)),
        (!ordered).then(|| "messages: they do not stand by descending priority".to_owned()),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// NOTIFY_COOKIE_LEN (include/uapi/linux/mqueue.h, v6.18).
const COOKIE: usize = 32;

/// Whoever is told has to ask for it through a descriptor.
fn notify(image: &Image, notify: &QueueNotify, descriptions: Option<&BTreeSet<FileId>>) -> Option<String> {
    let process = notify.process;
    if image.descriptor(process, |file| descriptions.is_some_and(|open| open.contains(&file))).is_none() {
        return Some(format!("notify: process {process} is not there, or does not have it open"));
    }
    if notify.signal.is_none() && notify.value.0 != 0 {
        return Some("notify: value: it comes with a signal".to_owned());
    }
    let thread = notify.thread.as_ref()?;
    if notify.signal.is_some() {
        return Some("notify: thread: it stands in the place of a signal".to_owned());
    }
    let is_netlink = |file| matches!(image.files.get(&file), Some(File { kind: FileKind::NetlinkSocket(_), .. }));
    if !is_netlink(thread.socket) || image.descriptor(process, |file| file == thread.socket).is_none() {
        let socket = file_entry(thread.socket);
        return Some(format!("notify: thread: {socket} is no netlink socket that process {process} has open"));
    }
    (thread.cookie.0.len() != COOKIE).then(|| format!("notify: thread: cookie: it has {COOKIE} bytes"))
}
