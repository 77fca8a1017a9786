//! What the files of the registry say.

use crate::failure::Failure;
use crate::freezer::Cgroup;
use crate::resource::contents::{self, Elsewhere};
use image_format::manifest::NamespaceKind;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::path::PathBuf;

/// What a container is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// Files are being copied in.
    Incoming,
    /// The last file is there and the container is being built.
    Building,
    /// Building failed; what was staged is kept.
    Failed,
    /// Stopped, and its tree stands.
    Frozen,
    /// Running.
    Running,
    /// All its processes have ended.
    Exited,
}

impl std::fmt::Display for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            State::Incoming => "incoming",
            State::Building => "building",
            State::Failed => "failed",
            State::Frozen => "frozen",
            State::Running => "running",
            State::Exited => "exited",
        })
    }
}

/// `container.json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Record {
    /// The name.
    pub name: String,
    /// The state last written. What it is now also depends on the cgroup: [`crate::operation::state`].
    pub state: State,
    /// Counts freezes and incoming images: node ids of the mounted tree carry it. Never reused, also not after the
    /// container was removed: taken from [`Registry::next_generation`].
    pub generation: u64,
    /// The cgroup, absolute.
    pub cgroup: PathBuf,
    /// Seconds since the epoch.
    pub created: u64,
    /// What runs in it, for people.
    pub command: Vec<String>,
    /// `--root`, or where the root directory of one that was added lies on the host.
    pub root: Option<PathBuf>,
    /// Taken in by `crctl add`, and not restored since: its mounts were made by somebody else.
    #[serde(default)]
    pub added: bool,
    /// The kinds of namespaces that its image shares with the host: what it was started with, or lived in when it was added.
    pub host_namespaces: BTreeSet<NamespaceKind>,
    /// Pid 1 of a container whose image shares the host's pid namespace, where ids of it were taken when it was restored: a process
    /// of ours in a new pid namespace, not part of the image.
    pub stub_init: Option<Init>,
    /// Its first process, as the host numbers it, with its start time (field 22 of /proc/PID/stat), since pids are used
    /// again. None while nothing was ever built.
    pub init: Option<Init>,
    /// The wait(2) status of the first process once it is known.
    pub exit_status: Option<i32>,
    /// Frozen only to be looked at: the tree shows `blockers` in the place of `manifest`.
    pub inspect: bool,
    /// Built from an image and not thawed since: the first thaw goes through a worker.
    pub restored: bool,
}

impl Record {
    /// Whether it shares the host's namespace of this kind now. A stub init came with a pid namespace, and with a mount namespace for
    /// the /proc that shows it.
    #[must_use]
    pub fn shares(&self, kind: NamespaceKind) -> bool {
        let moved = self.stub_init.is_some() && matches!(kind, NamespaceKind::Pid | NamespaceKind::Mnt);
        self.host_namespaces.contains(&kind) && !moved
    }

    /// Whether its tree has one root, which is pid 1 of a pid namespace of its own.
    #[must_use]
    pub fn has_init(&self) -> bool {
        !self.host_namespaces.contains(&NamespaceKind::Pid)
    }

    /// Its processes as the host numbers them, sorted; without the stub init.
    ///
    /// # Errors
    /// When its cgroup cannot be read.
    pub fn processes(&self) -> Result<Vec<i32>, Failure> {
        let mut pids = Cgroup::at(&self.cgroup).procs()?;
        pids.retain(|&pid| self.stub_init.is_none_or(|stub| stub.pid != pid));
        Ok(pids)
    }
}

/// The first process of a container.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Init {
    /// Host pid.
    pub pid: i32,
    /// Clock ticks after boot.
    pub start_time: u64,
}

/// `status.json`: the last operation.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Status {
    /// `freeze`, `thaw`, `restore` and so on.
    pub operation: String,
    /// Seconds since the epoch when it ended.
    pub time: u64,
    /// None: it worked.
    pub failure: Option<Failure>,
    /// All obstacles, when it was refused because of them.
    pub blockers: Vec<image_format::Blocker>,
    /// What a user should know though it worked: a file that grew, a limit that could not be raised.
    pub notes: Vec<String>,
    /// How long its parts took, in the order they ran.
    pub timings: Vec<Timing>,
}

/// How long a part of an operation took.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Timing {
    /// The part.
    pub what: String,
    /// Microseconds.
    pub us: u64,
}

/// `live.json`: the tasks behind a frozen tree.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Live {
    /// Each process of the tree.
    pub processes: Vec<LiveProcess>,
    /// How long the cgroup had not been frozen by then, where the kernel tells.
    pub thawed: Option<Thawed>,
    /// Raw files of the tree that are read from what the tasks hold.
    pub contents: Vec<Elsewhere>,
}

impl Live {
    /// Notes where the raw files of an image are that its tasks hold.
    ///
    /// # Errors
    /// When a task is gone.
    pub fn note_contents(&mut self, image: &image_format::Image) -> Result<(), Failure> {
        let host = |pid| self.processes.iter().find(|process| process.pid == pid).map(|process| process.host_pid);
        self.contents = contents::elsewhere(image, host)?;
        Ok(())
    }
}

/// How long a cgroup has not been frozen since boot, microseconds of CLOCK_MONOTONIC: between these two, since reading it takes
/// a moment. It stands still while the cgroup is frozen, whatever wakes a task inside the freezer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Thawed {
    /// At least.
    pub from_us: i64,
    /// At most.
    pub to_us: i64,
}

/// A process behind a frozen tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LiveProcess {
    /// As the container numbers it: the directory in the tree.
    pub pid: image_format::Pid,
    /// As the host numbers it.
    pub host_pid: i32,
    /// Its CPU clock (all threads, nanoseconds) after it was captured. It stands still while the process is frozen, unless a
    /// signal wakes it inside the freezer; [`Live::thawed`] tells that from a thaw behind our back.
    pub cpu_ns: u64,
}

/// `server.json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Server {
    /// Host pid of the server.
    pub pid: i32,
    /// Where it is mounted.
    pub mountpoint: PathBuf,
}
