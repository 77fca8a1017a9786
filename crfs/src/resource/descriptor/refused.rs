//! Kinds that are not carried, by name, with what a user can do.

use super::seen::Seen;
use super::socket;
use std::os::unix::fs::MetadataExt;

/// Why a description cannot be carried.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Refusal {
    /// In words, naming the kind.
    pub(crate) reason: String,
    /// What the user can do.
    pub(crate) remedy: String,
}

impl Refusal {
    /// From its two parts.
    pub(crate) fn new(reason: impl Into<String>, remedy: impl Into<String>) -> Self {
        Refusal { reason: reason.into(), remedy: remedy.into() }
    }

    /// For a line of fdinfo that is not as this program knows it.
    pub(crate) fn unknown_fdinfo(kind: &str, line: &str) -> Self {
        Refusal::new(
            format!("{kind} of which this kernel does not tell `{line}` in fdinfo in a form known here"),
            "Close it before the freeze.",
        )
    }
}

pub(crate) const CLOSE: &str = "Have the program close it before the freeze.";
const RECEIVE: &str = "Try again when the program has received the message.";

/// Anonymous inodes by the kernel's name for them (without brackets), as people call them, with a remedy.
const ANONYMOUS: [(&str, &str, &str); 12] = [
    ("userfaultfd", "a userfaultfd", CLOSE),
    ("perf_event", "a perf event", "Run it without performance counters."),
    ("secretmem", "secret memory (memfd_secret)", CLOSE),
    ("bpf-map", "a BPF map", CLOSE),
    ("bpf-prog", "a BPF program", CLOSE),
    ("bpf_link", "a BPF link", CLOSE),
    ("btf", "a BTF object", CLOSE),
    ("seccomp notify", "a seccomp notification listener", CLOSE),
    ("landlock-ruleset", "a Landlock ruleset", CLOSE),
    ("fscontext", "a file system context (fsopen)", CLOSE),
    ("sync_file", "a sync file of a graphics driver", CLOSE),
    ("kvm-vm", "a virtual machine (KVM)", CLOSE),
];

/// An anonymous inode that has no module.
pub(crate) fn anonymous(name: &str) -> Refusal {
    let known = ANONYMOUS.iter().find(|(known, ..)| *known == name);
    match known {
        Some((_, people, remedy)) => Refusal::new(format!("{people} cannot be carried"), *remedy),
        None => Refusal::new(format!("an anonymous file of kind \"{name}\" cannot be carried"), CLOSE),
    }
}

/// PROC_SUPER_MAGIC (include/uapi/linux/magic.h, v6.18).
pub(crate) const PROC: i64 = 0x9fa0;

/// MQUEUE_MAGIC (ipc/mqueue.c, v6.18).
pub(crate) const MQUEUE: i64 = 0x1980_0202;

/// File systems whose files are windows into the kernel, by the magic number of statfs(2).
pub(crate) const PSEUDO: [(i64, &str); 8] = [
    (PROC, "proc"),
    (0x6265_6572, "sysfs"),
    (0x6367_7270, "cgroup2"),
    (0x0027_e0eb, "cgroup"),
    (0x6462_6720, "debugfs"),
    (0x7472_6163, "tracefs"),
    (0xcafe_4a11, "bpf"),
    (0x7363_6673, "securityfs"),
];

/// The name of the pseudo file system a description stands on.
pub(crate) fn pseudo_file_system(magic: i64) -> Option<&'static str> {
    PSEUDO.iter().find(|(known, _)| *known == magic).map(|&(_, name)| name)
}

/// A regular file of a kind that only looks like one: None for a real one.
pub(crate) fn special_regular(seen: &Seen) -> Option<Refusal> {
    let refuse = |reason: String, remedy: &str| Some(Refusal::new(reason, remedy));
    match seen.file_system {
        0x5345_434d => refuse("secret memory (memfd_secret) cannot be carried".to_owned(), CLOSE),
        MQUEUE => refuse(format!("a POSIX message queue ({}) cannot be carried", seen.name()), CLOSE),
        0x444d_4142 => refuse("a dma-buf of a device driver cannot be carried".to_owned(), CLOSE),
        _ if seen.metadata.nlink() == 0 && seen.link.starts_with(b"/SYSV") => {
            refuse(format!("System V shared memory ({}) cannot be carried", seen.name()), CLOSE)
        }
        _ => {
            let pseudo = pseudo_file_system(seen.file_system)?;
            let name = seen.name();
            refuse(
                format!("{name} of the {pseudo} file system cannot be carried: its content is made while it is read"),
                "Have the program close it after reading.",
            )
        }
    }
}

/// A deleted file of a hugetlbfs.
pub(crate) fn huge_file(name: &str) -> Refusal {
    Refusal::new(
        format!("a file of huge pages ({name}) cannot be carried"),
        "Have the program use pages of the usual size.",
    )
}

/// A file without a name of which something cannot be told.
pub(crate) fn unknown_unnamed(name: &str, why: &str) -> Refusal {
    Refusal::new(format!("file {name} has no name any more and cannot be carried: {why}"), CLOSE)
}

/// A lock of a description that is under way.
pub(crate) fn lock_in_message(name: &str) -> Refusal {
    Refusal::new(format!("{name} is locked by a descriptor that only a message holds"), RECEIVE)
}

/// A lock of a description that is opened only after locks were taken.
pub(crate) fn lock_opened_late(name: &str) -> Refusal {
    Refusal::new(
        format!("{name} is locked, and it is opened too late in a restore for a lock"),
        "Try again when the program has let go of the lock.",
    )
}

/// A file without a name whose description is under way, and which is large.
pub(crate) fn unnamed_in_message(name: &str, most: u64) -> Refusal {
    Refusal::new(
        format!("file {name} has no name any more, only a message holds it, and it has more than {most} bytes"),
        RECEIVE,
    )
}

/// A description whose file type has no module.
pub(crate) fn by_type(seen: &Seen) -> Refusal {
    let name = seen.name();
    match seen.file_type() {
        libc::S_IFSOCK => socket::refuse(seen),
        libc::S_IFCHR => character_device(seen),
        libc::S_IFBLK => Refusal::new(format!("block device {name} cannot be carried"), CLOSE),
        other => Refusal::new(format!("{name} of file type {other:#o} cannot be carried"), CLOSE),
    }
}

fn character_device(seen: &Seen) -> Refusal {
    let name = seen.name();
    let (major, minor) = device(seen);
    match (major, minor) {
        // include/uapi/linux/major.h: virtual consoles and serial lines, /dev/tty and /dev/console; with O_PATH also pseudo-terminals.
        (4 | 136..=143, _) | (5, 0..=2) => Refusal::new(
            format!("terminal {name} cannot be carried"),
            "Run the program with its input and output redirected to files or pipes.",
        ),
        _ => Refusal::new(format!("device {name} ({major}:{minor}) cannot be carried"), CLOSE),
    }
}

/// The device number of a device node, major and minor.
pub(crate) fn device(seen: &Seen) -> (u64, u64) {
    let number = seen.metadata.rdev();
    (nix::sys::stat::major(number), nix::sys::stat::minor(number))
}
