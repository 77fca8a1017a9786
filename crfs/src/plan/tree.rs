//! Who clones whom: parents, sessions and groups as they were, with helpers for leaders that are dead.
//!
//! A process cannot be put into a session from outside: it is born into its creator's, or starts its own. So a process
//! whose session is not its parent's was adopted after its real parent died, and a helper takes that dead parent's place:
//! it is born into the session, clones the process, and exits, whereupon the kernel gives the process to its reaper. Or it was
//! cloned by a sibling (CLONE_PARENT), and is again. So is one that has what it shares from somebody else than its parent
//! ([`image_format::sharing`]).
//!
//! A tree that lived in the host's pid namespace has its parents outside and may have several roots. A stub clones them. In place it
//! exits then, so that they go to the host's reaper; in a pid namespace made for them it stays as pid 1.

use super::birth::{Birth, BornInto, Home, OUTSIDE, Role, Terminal};
use crate::failure::{Failure, Kind};
use image_format::pid_namespaces::{PidSpace, PidSpaces};
use image_format::process::{JobControl, Shares};
use image_format::seccomp::Seccomp;
use image_format::sharing::{Family, Maker};
use image_format::signal::Signal;
use image_format::{Image, Pid, ThreadImage, layout};
use std::collections::{BTreeMap, BTreeSet};

impl Birth {
    /// Of the process that the worker makes itself.
    fn first(pid: Pid, node: &Node, terminal: Terminal) -> Self {
        Birth {
            pid,
            ids: vec![pid],
            born_into: BornInto::Creators,
            creator: None,
            creator_thread: None,
            clone_parent: false,
            parent: OUTSIDE,
            own_session: true,
            before_creators_session: false,
            group: None,
            born_into_group: false,
            group_by_creator: false,
            shares: node.shares,
            job_control: node.job_control,
            session: node.session,
            terminal,
            role: node.role.clone(),
        }
    }
}

/// What the image says of a process or zombie.
struct Node {
    parent: Pid,
    parent_thread: Option<Pid>,
    exit_signal: Option<Signal>,
    shares: Shares,
    group: Pid,
    session: Pid,
    job_control: bool,
    role: Role,
}

/// Computes every birth.
///
/// # Errors
/// [`Kind::BadImage`], naming the process that cannot be made.
pub fn births(image: &Image, home: &Home) -> Result<BTreeMap<Pid, Birth>, Failure> {
    let mut nodes = nodes(image);
    let threads = image.processes.values().flat_map(|process| process.threads.keys().copied());
    let mut planner = Planner {
        image,
        family: Family::of(&image.processes, |pid| PidSpaces::of(&image.namespaces).is_first(pid)),
        spaces: PidSpaces::of(&image.namespaces),
        entering: image.threaded_in_user_namespaces(),
        used: nodes.keys().copied().chain(threads).collect(),
        adopters: BTreeMap::new(),
        births: BTreeMap::new(),
    };
    planner.used.extend(nodes.values().flat_map(|node| [node.group, node.session]));
    let inner_ids = planner.spaces.all().flat_map(|(_, space)| space.ids.values().copied());
    planner.used.extend(inner_ids.collect::<Vec<Pid>>());
    if let Home::Host(taken) = home {
        planner.used.extend(taken);
    }
    if *home != Home::Own {
        let role = Role::Stub { stays: *home == Home::Stub };
        let node = Node {
            parent: OUTSIDE,
            parent_thread: None,
            exit_signal: None,
            shares: Shares::default(),
            group: OUTSIDE,
            session: OUTSIDE,
            job_control: false,
            role,
        };
        planner.births.insert(OUTSIDE, Birth::first(OUTSIDE, &node, Terminal::Inherited));
        nodes.insert(OUTSIDE, node);
    }
    let inside = || nodes.iter().filter(|(pid, _)| **pid != OUTSIDE);
    for (&pid, node) in inside() {
        planner.bear(&nodes, pid, node)?;
    }
    for (&pid, node) in inside() {
        planner.dead_group_leader(&nodes, pid, node)?;
    }
    planner.pid_namespaces()?;
    planner.groups(&nodes)?;
    Ok(planner.births)
}

fn nodes(image: &Image) -> BTreeMap<Pid, Node> {
    let mut nodes = BTreeMap::new();
    for (&pid, process) in &image.processes {
        let record = &process.process;
        let job_control = record.job_control != JobControl::Running;
        let node = Node {
            parent: record.parent,
            parent_thread: record.parent_thread,
            exit_signal: record.exit_signal,
            shares: record.shares,
            group: record.group,
            session: record.session,
            job_control,
            role: Role::Live,
        };
        nodes.insert(pid, node);
        let zombies = process.threads.iter().flat_map(|(&tid, thread)| thread.zombies.iter().map(move |z| (tid, z)));
        for (tid, zombie) in zombies {
            let node = Node {
                parent: pid,
                parent_thread: (tid != pid).then_some(tid),
                exit_signal: zombie.exit_signal,
                shares: Shares::default(),
                group: zombie.group,
                session: zombie.session,
                job_control: false,
                role: Role::Zombie(zombie.status),
            };
            nodes.insert(zombie.pid, node);
        }
    }
    nodes
}

/// A helper, cloned and reaped by `creator`.
fn helper(pid: Pid, creator: Pid, session: Pid) -> Birth {
    Birth {
        pid,
        ids: vec![pid],
        born_into: BornInto::Creators,
        creator: Some(creator),
        creator_thread: None,
        clone_parent: false,
        parent: creator,
        own_session: false,
        before_creators_session: false,
        group: None,
        born_into_group: false,
        group_by_creator: false,
        shares: Shares::default(),
        job_control: false,
        session,
        terminal: Terminal::Inherited,
        role: Role::Helper { reaper: creator },
    }
}

struct Planner<'a> {
    image: &'a Image,
    spaces: PidSpaces<'a>,
    /// Who has threads only in a user namespace.
    entering: BTreeSet<Pid>,
    family: Family,
    /// Every id of the image: helpers take others.
    used: BTreeSet<Pid>,
    /// Helpers that took such an id, which is the same in all of their pid namespaces, with who adopts what they leave.
    adopters: BTreeMap<Pid, Pid>,
    births: BTreeMap<Pid, Birth>,
}

impl Planner<'_> {
    fn bear(&mut self, nodes: &BTreeMap<Pid, Node>, pid: Pid, node: &Node) -> Result<(), Failure> {
        let Some(parent) = nodes.get(&node.parent) else {
            // The first process, which gets its session with its surroundings; image_format::check has seen that there is one only.
            let birth = Birth::first(pid, node, self.terminal(pid, node.session));
            self.births.insert(pid, birth);
            return Ok(());
        };
        let own_session = node.session == pid;
        let mut birth = Birth {
            pid,
            ids: vec![pid],
            born_into: BornInto::Creators,
            creator: Some(node.parent),
            creator_thread: self.cloning_thread(node),
            clone_parent: false,
            parent: node.parent,
            own_session,
            before_creators_session: false,
            group: (!own_session).then_some(node.group),
            born_into_group: false,
            group_by_creator: false,
            shares: node.shares,
            job_control: node.job_control,
            session: node.session,
            terminal: self.terminal(pid, node.session),
            role: node.role.clone(),
        };
        // Zombies share nothing, and are not in the family.
        let is_family = node.role == Role::Live && node.shares != Shares::default();
        let maker = if is_family { self.family.maker(pid) } else { Some(Maker::Parent) };
        if let Some(Maker::Sibling(maker)) = maker {
            (birth.creator, birth.creator_thread, birth.clone_parent) = (Some(maker), None, true);
        } else if let Some(Maker::Adopted(maker)) = maker {
            let helper = self.sharing_parent(nodes, node, maker);
            (birth.creator, birth.creator_thread) = (Some(helper), None);
        } else if !own_session && parent.session != node.session {
            let born_into = nodes.get(&parent.parent).map(|grandparent| grandparent.session);
            if parent.session == node.parent && born_into == Some(node.session) {
                birth.before_creators_session = true;
            } else {
                birth.creator_thread = None;
                birth.clone_parent = self.sibling_leads(nodes, node);
                let creator = if birth.clone_parent { node.session } else { self.dead_parent(nodes, pid, node)? };
                birth.creator = Some(creator);
            }
        }
        let has_shares = match maker {
            Some(Maker::Parent) => node.shares == Shares::default() || birth.creator == Some(node.parent),
            other => other.is_some(),
        };
        if !has_shares {
            let path = layout::process_file(pid, "process");
            let why = "shares: neither its parent, nor who has all of it, can have made the process";
            return Err(Failure::new(Kind::BadImage, format!("{path}: {why}")));
        }
        self.births.insert(pid, birth);
        Ok(())
    }

    /// Whether the session's leader is, or was, a child of the same parent and can make the process as its sibling. A dead one gets a
    /// helper, if its parent adopts no orphans and it can therefore not have been anything else.
    fn sibling_leads(&mut self, nodes: &BTreeMap<Pid, Node>, node: &Node) -> bool {
        if node.parent == OUTSIDE {
            return false;
        }
        if let Some(leader) = nodes.get(&node.session) {
            // A sibling has its maker's exit signal, and the first process of a pid namespace has none (kernel/fork.c, copy_process,
            // v6.18).
            let may = !self.spaces.is_first(node.session);
            return may && leader.parent == node.parent && leader.exit_signal == node.exit_signal;
        }
        if self.is_reaper(node.parent) || node.exit_signal != Some(Signal::SIGCHLD) {
            return false;
        }
        let helper = self
            .births
            .entry(node.session)
            .or_insert(Birth { own_session: true, ..helper(node.session, node.parent, node.session) });
        helper.parent == node.parent
    }

    /// The helper that stands for the dead parent of an adopted process.
    fn dead_parent(&mut self, nodes: &BTreeMap<Pid, Node>, pid: Pid, node: &Node) -> Result<Pid, Failure> {
        let reaper = node.parent;
        if !self.is_reaper(reaper) {
            let why = format!(
                "process: session {} is neither its own nor its parent's, and its parent {reaper} does not adopt orphans",
                node.session
            );
            return Err(Failure::new(Kind::BadImage, format!("{}/{why}", layout::process_dir(pid))));
        }
        let leader_lives = nodes.get(&node.session).is_some_and(|leader| leader.role == Role::Live);
        // A living leader clones the helper into its session; a dead one is the helper itself.
        let (helper, creator) =
            if leader_lives { (self.free_pid(reaper), node.session) } else { (node.session, reaper) };
        let birth = Birth { own_session: !leader_lives, ..self::helper(helper, creator, node.session) };
        self.births.entry(helper).or_insert(birth);
        Ok(helper)
    }

    /// The helper that stands for the dead parent of an adopted process, which has what it shares from that.
    fn sharing_parent(&mut self, nodes: &BTreeMap<Pid, Node>, node: &Node, maker: Pid) -> Pid {
        let pid = self.free_pid(node.parent);
        // That of the process, unless it begins one of its own.
        let session = nodes.get(&maker).map_or(node.session, |maker| maker.session);
        self.births.insert(pid, Birth { shares: node.shares, ..helper(pid, maker, session) });
        pid
    }

    /// A group whose leader is dead: a helper of its number founds it.
    fn dead_group_leader(&mut self, nodes: &BTreeMap<Pid, Node>, pid: Pid, node: &Node) -> Result<(), Failure> {
        if nodes.contains_key(&node.group) || self.births.contains_key(&node.group) {
            return Ok(());
        }
        if node.role != Role::Live {
            // A member that lives is a better creator; a group of zombies alone is founded by the first of them.
            let lives = |(_, other): (&Pid, &Node)| other.group == node.group && other.role == Role::Live;
            if nodes.iter().any(lives) {
                return Ok(());
            }
        }
        // Nobody makes processes in a pid namespace around its own.
        if !self.spaces.is_within(self.spaces.space(node.group), self.spaces.space(pid)) {
            return Ok(());
        }
        self.births.insert(node.group, Birth { group: Some(node.group), ..helper(node.group, pid, node.session) });
        Ok(())
    }

    /// The thread of the parent that clones the process, if not the first. One that has system call filters by then would hand them on, and
    /// one that is in a user namespace may choose no id, so the first does it in its place and a note says so.
    fn cloning_thread(&self, node: &Node) -> Option<Pid> {
        let filtered = |thread: &ThreadImage| matches!(thread.attr.seccomp, Seccomp::Filter(_));
        let is_made = |_: &Pid| !self.entering.contains(&node.parent);
        node.parent_thread.filter(is_made).filter(|tid| {
            let parent = self.image.processes.get(&node.parent);
            parent.and_then(|parent| parent.threads.get(tid)).is_some_and(|thread| !filtered(thread))
        })
    }

    fn terminal(&self, pid: Pid, session: Pid) -> Terminal {
        let of = |pid: Pid| self.image.processes.get(&pid).map(|process| process.process.tty);
        match (of(pid), of(session)) {
            (Some(Some(own)), _) if pid == session => Terminal::Taken(own),
            (Some(None), Some(Some(theirs))) => Terminal::GivenUp(theirs),
            _ => Terminal::Inherited,
        }
    }

    fn is_reaper(&self, pid: Pid) -> bool {
        matches!(pid, OUTSIDE | Pid(1))
            || self.spaces.is_first(pid)
            || self.image.processes.get(&pid).is_some_and(|process| process.attr.child_subreaper)
    }

    fn free_pid(&mut self, adopter: Pid) -> Pid {
        let mut pid = Pid(2);
        while self.used.contains(&pid) {
            pid.0 += 1;
        }
        self.used.insert(pid);
        self.adopters.insert(pid, adopter);
        pid
    }

    /// The pid namespace that a process of the restore is in. What a helper leaves goes to the first process of that.
    fn space(&self, pid: Pid) -> Option<PidSpace> {
        self.spaces.space(self.adopters.get(&pid).copied().unwrap_or(pid))
    }

    /// Says where each is born and under which ids.
    fn pid_namespaces(&mut self) -> Result<(), Failure> {
        let mut born = Vec::new();
        for (&pid, birth) in &self.births {
            let Some(creator) = birth.creator else { continue };
            let (space, creators) = (self.space(pid), self.space(creator));
            let is_first = space.is_some_and(|space| self.spaces.first(space) == Some(pid));
            let born_into = match space {
                _ if space == creators => BornInto::Creators,
                Some(space) if is_first && self.spaces.above(space) == creators => BornInto::New(space),
                Some(inner) if !is_first && self.spaces.is_within(space, creators) => BornInto::Inner(inner),
                _ => {
                    let path = layout::process_file(pid, "process");
                    let why =
                        format!("parent: process {creator}, which makes it, is not in a pid namespace around its own");
                    return Err(Failure::new(Kind::BadImage, format!("{path}: {why}")));
                }
            };
            let ids = match self.adopters.get(&pid) {
                Some(&adopter) => vec![pid; self.spaces.ids(adopter).len()],
                None => self.spaces.ids(pid),
            };
            born.push((pid, born_into, ids));
        }
        for (pid, born_into, ids) in born {
            if let Some(birth) = self.births.get_mut(&pid) {
                (birth.born_into, birth.ids) = (born_into, ids);
            }
        }
        Ok(())
    }

    /// Says how each gets into a group that it could not name itself.
    fn groups(&mut self, nodes: &BTreeMap<Pid, Node>) -> Result<(), Failure> {
        let mut outside = Vec::new();
        for (&pid, birth) in &self.births {
            let (Some(group), Some(creator)) = (birth.group, birth.creator) else { continue };
            let refuse = |why: &str| {
                let path = layout::process_file(pid, "process");
                Err(Failure::new(Kind::BadImage, format!("{path}: group: {group} {why}")))
            };
            if !self.births.contains_key(&group) {
                return refuse("was led by a process of a pid namespace around those of all its members");
            }
            if self.spaces.seen_by(pid, group).is_some() {
                continue;
            }
            let creator = &self.births[&creator];
            let creators = nodes.get(&creator.pid).map(|node| node.group).or(creator.group);
            let can_put = creator.session == birth.session && !birth.before_creators_session;
            if creators == Some(group) {
                outside.push((pid, true));
            } else if can_put && self.spaces.seen_by(creator.pid, group).is_some() {
                outside.push((pid, false));
            } else {
                return refuse("lies outside its pid namespace, and its parent is not in it");
            }
        }
        for (pid, is_inherited) in outside {
            if let Some(birth) = self.births.get_mut(&pid) {
                (birth.born_into_group, birth.group_by_creator) = (is_inherited, !is_inherited);
                birth.group = birth.group.filter(|_| !is_inherited);
            }
        }
        Ok(())
    }
}
