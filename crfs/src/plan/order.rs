//! The order of steps: which action must come before which, as data, sorted.

use super::birth::{Birth, BornInto, Role, Terminal};
use crate::failure::{Failure, Kind};
use image_format::Pid;
use image_format::process::Shares;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

/// One action on one process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Step {
    /// What is done.
    pub action: Action,
    /// To which process.
    pub process: Pid,
}

/// What is done to a process. Where nothing orders two steps they run in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Action {
    /// clone3 with its pid; the first process starts from the stub.
    Spawn,
    /// A process joins a mount namespace other than that of its maker.
    Mounts,
    /// setsid.
    Session,
    /// A session leader takes its controlling terminal.
    Terminal,
    /// setpgid.
    Group,
    /// munmap what was inherited and is not its own, mmap what is missing, PR_SET_MM_MAP.
    Memory,
    /// Page contents.
    Fill,
    /// What of all processes is opened when they are there: sockets, files of /proc. A step of the first that lives.
    OpenLate,
    /// Descriptors, pulled from the worker.
    Descriptors,
    /// Root, working directory, umask.
    Directories,
    /// The terminal's foreground group is set; who gave its terminal up does so again.
    Foreground,
    /// Who is to have several threads in a user namespace takes its ids and joins all its namespaces: the threads are born there.
    Enter,
    /// The other threads, and the system call filters of all.
    Threads,
    /// Threads join namespaces other than the container's own.
    Namespaces,
    /// Descriptors that threads have for themselves.
    ThreadDescriptors,
    /// Adjustments of System V semaphores.
    Adjustments,
    /// What keeps children from inheriting a mapping, locked memory, policies for all memory, segments.
    Advice,
    /// A zombie dies again.
    Die,
    /// A helper exits and is waited for; so does a stub that does not stay.
    Dismiss,
    /// Stopped by job control, or continued.
    JobControl,
    /// Resource limits, oom_score_adj, core dump filter.
    Limits,
    /// Signal actions, queued signals, interval timers.
    Signals,
    /// Extended registers, controls and login uid of each thread.
    ThreadState,
    /// Rings of io_uring that belong to threads, whom descriptions signal, of all processes; a step of the first that lives.
    Owners,
    /// Rseq, robust list, alternate stack, name of each thread; user and group ids, capabilities, and what setting them clears:
    /// dumpable, parent-death signal.
    Credentials,
    /// Interrupted calls entered again, the scratch unmapped, masks, registers, scheduling.
    Resume,
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The variant's own name is the word.
        write!(f, "{self:?}")
    }
}

/// Of whom the earlier step must have been done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Of {
    /// The same process.
    Itself,
    /// Its creator.
    Creator,
    /// Its creator, if not the first thread of that cloned it.
    CreatorOfThread,
    /// Every process it cloned.
    Created,
    /// Every process that its first thread cloned.
    CreatedByLeader,
    /// Its group's leader.
    GroupLeader,
    /// Every member of the group it leads.
    GroupMembers,
    /// Every member of its session.
    SessionMembers,
    /// Every process that has something of its own from it.
    Sharers,
    /// Every process that those cloned.
    CreatedBySharers,
    /// Every zombie and helper, and the stub.
    Dead,
    /// Every process that job control has stopped or continued.
    JobControlled,
    /// Every process.
    All,
    /// Every process that does not join a user namespace before it has its threads.
    Others,
    /// The first process that lives.
    First,
}

/// (later action, whose, earlier action): the earlier one must be done before the later.
pub const AFTER: &[(Action, Of, Action)] = &[
    // Children inherit filled memory.
    (Action::Spawn, Of::Creator, Action::Fill),
    (Action::Spawn, Of::Creator, Action::Spawn),
    // Children are born into the mount namespace of their maker. Who joins another must not share directories, as threads and some children do.
    (Action::Mounts, Of::Itself, Action::Spawn),
    (Action::Spawn, Of::Creator, Action::Mounts),
    (Action::Threads, Of::Itself, Action::Mounts),
    (Action::OpenLate, Of::All, Action::Mounts),
    // It begins in the root directory of the namespace.
    (Action::Directories, Of::Itself, Action::Mounts),
    (Action::Session, Of::Itself, Action::Spawn),
    (Action::Group, Of::Itself, Action::Session),
    (Action::Group, Of::Itself, Action::Spawn),
    (Action::Group, Of::GroupLeader, Action::Spawn),
    (Action::Group, Of::GroupLeader, Action::Session),
    (Action::Group, Of::GroupLeader, Action::Group),
    // Members of a session inherit its terminal: that a creator must have taken it before it clones them is said in `sort`.
    (Action::Terminal, Of::Itself, Action::Spawn),
    (Action::Terminal, Of::Itself, Action::Session),
    (Action::Foreground, Of::Itself, Action::Terminal),
    (Action::Foreground, Of::SessionMembers, Action::Spawn),
    (Action::Foreground, Of::SessionMembers, Action::Group),
    (Action::Foreground, Of::Created, Action::Spawn),
    (Action::Memory, Of::Itself, Action::Spawn),
    (Action::Fill, Of::Itself, Action::Memory),
    (Action::Descriptors, Of::Itself, Action::Memory),
    // Calls that leave a process's credentials in a socket are made in it, and messages name who sent them.
    (Action::OpenLate, Of::All, Action::Spawn),
    (Action::OpenLate, Of::All, Action::Memory),
    // Threads have files of their own in /proc.
    (Action::OpenLate, Of::Others, Action::Threads),
    // What takes the container's root, ids of children among it; and whoever is in a user namespace reaches the worker no more.
    (Action::Enter, Of::Itself, Action::Group),
    (Action::Enter, Of::Itself, Action::Fill),
    (Action::Enter, Of::Itself, Action::Descriptors),
    (Action::Enter, Of::Itself, Action::Directories),
    (Action::Enter, Of::Itself, Action::Foreground),
    (Action::Enter, Of::Itself, Action::Adjustments),
    (Action::Enter, Of::Itself, Action::Advice),
    (Action::Enter, Of::First, Action::OpenLate),
    (Action::Enter, Of::Created, Action::Spawn),
    (Action::Enter, Of::Created, Action::Group),
    (Action::Threads, Of::Itself, Action::Enter),
    // In the container's own, segments are attached and sockets made; its threads join others.
    (Action::Namespaces, Of::First, Action::OpenLate),
    (Action::Namespaces, Of::Itself, Action::Threads),
    (Action::Credentials, Of::Itself, Action::Namespaces),
    (Action::Descriptors, Of::First, Action::OpenLate),
    (Action::ThreadDescriptors, Of::First, Action::OpenLate),
    (Action::ThreadDescriptors, Of::Itself, Action::Threads),
    (Action::Directories, Of::Itself, Action::Spawn),
    // What a process opens for all it opens below the container's root.
    (Action::Directories, Of::First, Action::OpenLate),
    // A process clones its children while it has one thread, but for those that the others clone.
    (Action::Threads, Of::Itself, Action::Fill),
    (Action::Threads, Of::CreatedByLeader, Action::Spawn),
    (Action::Spawn, Of::CreatorOfThread, Action::Threads),
    // A list of adjustments is born with its first one, or with the first thread that shares it.
    (Action::Adjustments, Of::Itself, Action::Memory),
    (Action::Credentials, Of::Itself, Action::Adjustments),
    (Action::Advice, Of::Itself, Action::Fill),
    (Action::Advice, Of::Created, Action::Spawn),
    (Action::Advice, Of::CreatedBySharers, Action::Spawn),
    // Whoever joins its group must have done so; whoever it cloned must be there.
    // A pidfd of a zombie is opened while it can be found.
    (Action::Die, Of::First, Action::OpenLate),
    (Action::Die, Of::Itself, Action::Group),
    (Action::Die, Of::Itself, Action::Spawn),
    (Action::Die, Of::Created, Action::Spawn),
    (Action::Die, Of::GroupMembers, Action::Group),
    (Action::Dismiss, Of::Itself, Action::Group),
    (Action::Dismiss, Of::Itself, Action::Spawn),
    (Action::Dismiss, Of::Created, Action::Spawn),
    (Action::Dismiss, Of::GroupMembers, Action::Group),
    // A death sends SIGCHLD, which is cleared before signals are restored; a zombie's creator may be a zombie itself.
    (Action::Die, Of::Created, Action::Die),
    (Action::Die, Of::Created, Action::Dismiss),
    (Action::Dismiss, Of::Created, Action::Dismiss),
    // The end of a group's last parent would continue it, and only SIGSTOP stops a member of a group that is orphaned.
    (Action::JobControl, Of::All, Action::Group),
    (Action::JobControl, Of::All, Action::Session),
    (Action::JobControl, Of::Dead, Action::Die),
    (Action::JobControl, Of::Dead, Action::Dismiss),
    (Action::JobControl, Of::Itself, Action::Foreground),
    // A thread more would have to stop too.
    (Action::JobControl, Of::Itself, Action::Threads),
    // It sends the parent SIGCHLD, and stop signals must have their default action.
    (Action::Signals, Of::JobControlled, Action::JobControl),
    (Action::Signals, Of::Dead, Action::Die),
    (Action::Signals, Of::Dead, Action::Dismiss),
    (Action::Signals, Of::Itself, Action::Threads),
    (Action::Signals, Of::Itself, Action::Fill),
    // A low limit must not get in the way of building.
    (Action::Limits, Of::Itself, Action::Descriptors),
    (Action::Limits, Of::Itself, Action::Threads),
    (Action::Limits, Of::Itself, Action::ThreadDescriptors),
    (Action::Limits, Of::Itself, Action::Advice),
    (Action::Limits, Of::Itself, Action::Signals),
    (Action::ThreadState, Of::Itself, Action::Signals),
    (Action::ThreadState, Of::Itself, Action::Directories),
    (Action::Credentials, Of::Itself, Action::Limits),
    (Action::Credentials, Of::Itself, Action::ThreadState),
    (Action::Credentials, Of::Itself, Action::Descriptors),
    (Action::Credentials, Of::Itself, Action::Foreground),
    // Whose descriptors and memory they are closes the way back to the worker, and unmaps the scratch.
    (Action::Credentials, Of::Sharers, Action::Credentials),
    (Action::Resume, Of::Sharers, Action::Resume),
    // Everybody who is to be signalled must be there, and nothing may signal them that happens while they are built. What says so
    // becomes the user who once did.
    (Action::Owners, Of::All, Action::Group),
    (Action::Owners, Of::All, Action::Threads),
    (Action::Owners, Of::All, Action::Descriptors),
    (Action::Owners, Of::All, Action::ThreadDescriptors),
    (Action::Owners, Of::All, Action::Signals),
    (Action::Credentials, Of::First, Action::Owners),
    // Nothing sends a signal to, or reaps in, a process that has its final registers.
    (Action::Resume, Of::Itself, Action::Credentials),
    (Action::Resume, Of::Created, Action::Spawn),
    (Action::Resume, Of::Dead, Action::Die),
    (Action::Resume, Of::Dead, Action::Dismiss),
];

fn actions(role: &Role) -> &'static [Action] {
    match role {
        Role::Live => &[
            Action::Spawn,
            Action::Mounts,
            Action::Session,
            Action::Group,
            Action::Memory,
            Action::Fill,
            Action::OpenLate,
            Action::Descriptors,
            Action::Directories,
            Action::Enter,
            Action::Threads,
            Action::Namespaces,
            Action::ThreadDescriptors,
            Action::Adjustments,
            Action::Advice,
            Action::JobControl,
            Action::Limits,
            Action::Signals,
            Action::ThreadState,
            Action::Owners,
            Action::Credentials,
            Action::Resume,
        ],
        Role::Zombie(_) => &[Action::Spawn, Action::Session, Action::Group, Action::Die],
        Role::Helper { .. } => &[Action::Spawn, Action::Session, Action::Group, Action::Dismiss],
        Role::Stub { stays: false } => &[Action::Spawn, Action::Dismiss],
        Role::Stub { stays: true } => &[Action::Spawn, Action::Resume],
    }
}

/// Whether a process of its role needs the step: what it has from another is that one's affair.
fn is_needed(birth: &Birth, action: Action) -> bool {
    match action {
        Action::JobControl => birth.job_control,
        Action::Memory | Action::Fill | Action::Advice => birth.shares.memory.is_none(),
        Action::Descriptors => birth.shares.descriptors.is_none(),
        Action::Directories => birth.shares.directories.is_none(),
        _ => true,
    }
}

fn terminal_actions(terminal: Terminal) -> &'static [Action] {
    match terminal {
        Terminal::Inherited => &[],
        Terminal::Taken(_) => &[Action::Terminal, Action::Foreground],
        Terminal::GivenUp(_) => &[Action::Foreground],
    }
}

/// Who joins namespaces.
#[derive(Clone, Debug, Default)]
pub struct Joining {
    /// Those in namespaces other than the container's own.
    pub others: BTreeSet<Pid>,
    /// Those in another mount namespace than their maker.
    pub mounts: BTreeSet<Pid>,
    /// Those in user namespaces that have several threads.
    pub entering: BTreeSet<Pid>,
    /// Those in time namespaces that another process has for its children, and makes.
    pub clocks: BTreeMap<Pid, Pid>,
}

/// Every step, sorted so that [`AFTER`] holds.
///
/// # Errors
/// [`Kind::BadImage`] naming the steps of a circle: a tree that no order of calls can make.
pub fn sort(births: &BTreeMap<Pid, Birth>, joining: &Joining) -> Result<Vec<Step>, Failure> {
    let all: BTreeSet<Step> = births
        .values()
        .flat_map(|birth| {
            let actions = actions(&birth.role).iter().chain(terminal_actions(birth.terminal));
            actions.map(move |action| (birth, action))
        })
        .filter(|(birth, action)| {
            let joins = match action {
                Action::Enter => joining.entering.contains(&birth.pid),
                Action::Namespaces => joining.others.contains(&birth.pid) && !joining.entering.contains(&birth.pid),
                Action::Mounts => joining.mounts.contains(&birth.pid),
                _ => true,
            };
            is_needed(birth, **action) && joins
        })
        // One step for all of them.
        .filter(|(birth, action)| {
            Some(birth.pid) == first_live(births) || !matches!(action, Action::OpenLate | Action::Owners)
        })
        .map(|(birth, &action)| Step { action, process: birth.pid })
        .collect();
    let related = Relations::new(births, joining);
    let mut earlier: BTreeMap<Step, BTreeSet<Step>> = all.iter().map(|&step| (step, BTreeSet::new())).collect();
    for &step in &all {
        let mut after = |action, process| {
            let before = Step { action, process };
            if before != step && all.contains(&before) {
                earlier.entry(step).or_default().insert(before);
            }
        };
        for &(_, of, action) in AFTER.iter().filter(|(later, ..)| *later == step.action) {
            for process in related.of(step.process, of) {
                after(action, process);
            }
        }
        let Some(birth) = births.get(&step.process) else { continue };
        // Born into the creator's old session or its new one.
        if step.action == Action::Spawn
            && !birth.before_creators_session
            && let Some(creator) = birth.creator
        {
            after(Action::Session, creator);
            after(Action::Terminal, creator);
        }
        if let (Action::Spawn, Some(&maker)) = (step.action, joining.clocks.get(&step.process)) {
            after(Action::Spawn, maker);
        }
        if let (Action::Spawn, true, Some(creator)) = (step.action, birth.born_into_group, birth.creator) {
            after(Action::Group, creator);
        }
        if let (Action::Spawn, BornInto::Inner(space)) = (step.action, birth.born_into) {
            let first = births.values().find(|first| first.born_into == BornInto::New(space));
            first.into_iter().for_each(|first| after(Action::Spawn, first.pid));
        }
        if matches!(step.action, Action::Die | Action::Dismiss) {
            let put = births.values().filter(|child| child.group_by_creator && child.creator == Some(birth.pid));
            put.for_each(|child| after(Action::Group, child.pid));
        }
        if step.action == Action::Session {
            for child in
                births.values().filter(|child| child.creator == Some(birth.pid) && child.before_creators_session)
            {
                after(Action::Spawn, child.pid);
            }
        }
    }
    kahn(earlier)
}

fn kahn(mut earlier: BTreeMap<Step, BTreeSet<Step>>) -> Result<Vec<Step>, Failure> {
    let mut later: BTreeMap<Step, Vec<Step>> = BTreeMap::new();
    for (&step, before) in &earlier {
        for &other in before {
            later.entry(other).or_default().push(step);
        }
    }
    let mut ready: BTreeSet<Step> =
        earlier.iter().filter(|(_, before)| before.is_empty()).map(|(&step, _)| step).collect();
    let mut sorted = Vec::with_capacity(earlier.len());
    while let Some(step) = ready.pop_first() {
        earlier.remove(&step);
        sorted.push(step);
        for &next in later.get(&step).into_iter().flatten() {
            if let Some(before) = earlier.get_mut(&next) {
                before.remove(&step);
                if before.is_empty() {
                    ready.insert(next);
                }
            }
        }
    }
    match earlier.keys().next() {
        None => Ok(sorted),
        Some(_) => {
            let names: Vec<String> = earlier.keys().take(6).map(|s| format!("{} of {}", s.action, s.process)).collect();
            Err(Failure::new(
                Kind::BadImage,
                format!("process: no order of calls makes this tree: {}", names.join(", ")),
            ))
        }
    }
}

/// The process that has the steps of which one is made for all.
fn first_live(births: &BTreeMap<Pid, Birth>) -> Option<Pid> {
    births.values().find(|birth| birth.role == Role::Live).map(|birth| birth.pid)
}

/// Who is what to whom.
struct Relations<'a> {
    births: &'a BTreeMap<Pid, Birth>,
    created: BTreeMap<Pid, Vec<Pid>>,
    members: BTreeMap<Pid, Vec<Pid>>,
    sessions: BTreeMap<Pid, Vec<Pid>>,
    sharers: BTreeMap<Pid, Vec<Pid>>,
    dead: Vec<Pid>,
    job_controlled: Vec<Pid>,
    first: Option<Pid>,
    others: Vec<Pid>,
}

impl<'a> Relations<'a> {
    fn new(births: &'a BTreeMap<Pid, Birth>, joining: &Joining) -> Self {
        let mut created: BTreeMap<Pid, Vec<Pid>> = BTreeMap::new();
        let mut members: BTreeMap<Pid, Vec<Pid>> = BTreeMap::new();
        let mut sessions: BTreeMap<Pid, Vec<Pid>> = BTreeMap::new();
        let mut sharers: BTreeMap<Pid, Vec<Pid>> = BTreeMap::new();
        for birth in births.values() {
            if let Some(creator) = birth.creator {
                created.entry(creator).or_default().push(birth.pid);
            }
            let Shares { memory, descriptors, directories, signal_actions } = birth.shares;
            let owners: BTreeSet<Pid> =
                [memory, descriptors, directories, signal_actions].into_iter().flatten().collect();
            for owner in owners {
                sharers.entry(owner).or_default().push(birth.pid);
            }
            if let Some(group) = birth.group {
                members.entry(group).or_default().push(birth.pid);
            }
            sessions.entry(birth.session).or_default().push(birth.pid);
        }
        let all = |which: fn(&Birth) -> bool| births.values().filter(|&birth| which(birth)).map(|b| b.pid).collect();
        let dead = all(|birth| birth.role != Role::Live);
        let job_controlled = all(|birth| birth.job_control);
        let first = first_live(births);
        let others = births.keys().copied().filter(|pid| !joining.entering.contains(pid)).collect();
        Relations { births, created, members, sessions, sharers, dead, job_controlled, first, others }
    }

    fn of(&self, process: Pid, of: Of) -> Vec<Pid> {
        let list = |map: &BTreeMap<Pid, Vec<Pid>>| map.get(&process).cloned().unwrap_or_default();
        let birth = self.births.get(&process);
        match of {
            Of::Itself => vec![process],
            Of::Creator => birth.and_then(|birth| birth.creator).into_iter().collect(),
            Of::CreatorOfThread => birth
                .filter(|birth| birth.creator_thread.is_some())
                .and_then(|birth| birth.creator)
                .into_iter()
                .collect(),
            Of::Created => list(&self.created),
            Of::CreatedByLeader => {
                let by_leader = |pid: &Pid| self.births.get(pid).is_some_and(|birth| birth.creator_thread.is_none());
                list(&self.created).into_iter().filter(by_leader).collect()
            }
            Of::GroupLeader => {
                birth.and_then(|birth| birth.group).filter(|&group| group != process).into_iter().collect()
            }
            Of::GroupMembers => list(&self.members),
            Of::SessionMembers => birth
                .map(|birth| birth.session)
                .and_then(|session| self.sessions.get(&session))
                .cloned()
                .unwrap_or_default(),
            Of::Sharers => list(&self.sharers),
            Of::CreatedBySharers => {
                list(&self.sharers).iter().flat_map(|sharer| self.of(*sharer, Of::Created)).collect()
            }
            Of::Dead => self.dead.clone(),
            Of::JobControlled => self.job_controlled.clone(),
            Of::All => self.births.keys().copied().collect(),
            Of::Others => self.others.clone(),
            Of::First => self.first.into_iter().collect(),
        }
    }
}
