//! From the records to time namespaces that processes are in, or have for their children.

use crate::failure::{Doing, Failure, Kind};
use crate::resource::container::Offsets;
use crate::resource::proc::Proc;
use crate::resource::unshared::enter;
use crate::resource::unshared::maker::Maker;
use crate::resource::user_namespace::{self, UserNamespaces};
use crfs_sys::HostPid;
use crfs_sys::namespaces::CLONE_NEWTIME;
use crfs_tracee::Batch;
use image_format::layout::NAMESPACES;
use image_format::time_namespaces::TimeNamespace;
use image_format::{Image, Pid};
use nix::sched::unshare;
use std::collections::BTreeMap;
use std::fs::{self, File};

/// The time namespaces of a container, held open by the worker: none where all processes are in the container's own.
#[derive(Debug)]
pub struct TimeNamespaces<'a> {
    image: &'a Image,
    /// The container's own, and how far its clocks are from the host's.
    own: Option<(File, Offsets)>,
    /// By their place.
    open: BTreeMap<usize, File>,
}

impl<'a> TimeNamespaces<'a> {
    /// Makes those that no process has for its children. `first` is the container's first process.
    ///
    /// The caller must have one thread.
    ///
    /// # Errors
    /// When the system refuses one.
    pub fn make(image: &'a Image, first: HostPid, users: &UserNamespaces<'_>) -> Result<Self, Failure> {
        let mut made = TimeNamespaces { image, own: None, open: BTreeMap::new() };
        if image.time_namespaces().next().is_none() {
            return Ok(made);
        }
        let path = format!("/proc/{}/ns/time", first.raw());
        let own = File::open(&path).doing(|| format!("{path}: opening"))?;
        made.own = Some((own, Offsets::of(first.raw(), &mut Proc::open()?)?));
        for (place, (time, line)) in image.time_namespaces().enumerate() {
            if !time.for_children_of.is_empty() {
                continue;
            }
            let maker = Maker::born(None, |_| {
                user_namespace::enter(users.owner(line.user).map(|(open, _)| open))?;
                unshare(CLONE_NEWTIME).doing(|| "unshare(2)").map(|()| Vec::new())
            })?;
            made.set(maker.pid().as_raw(), time)?;
            made.open.insert(place, maker.open("ns/time_for_children")?);
        }
        Ok(made)
    }

    /// The calls by which a process that was just born, wherever its maker is, joins the one that it is to be in, and begins the one for its
    /// children. `link` is its pidfd of the worker.
    ///
    /// # Errors
    /// [`Kind::System`] where it is not there yet.
    pub fn join(&self, batch: &mut Batch, process: Pid, link: u32) -> Result<(), Failure> {
        // Who has the memory of its maker has its clocks too.
        let Some((own, _)) = self.own.as_ref().filter(|_| self.has_own_memory(process)) else { return Ok(()) };
        let joined = match self.image.time_of_process(process) {
            None => Some(own),
            Some(place) => self.open.get(&place),
        };
        let missing = || Failure::new(Kind::System, format!("{NAMESPACES}: a time namespace is not there yet"));
        enter(batch, joined.ok_or_else(missing)?, CLONE_NEWTIME, link);
        if self.image.time_of_children(process).is_some() {
            let flag = u64::from(CLONE_NEWTIME.bits().cast_unsigned());
            batch.call(libc::SYS_unshare, &[flag.into()], "unshare(CLONE_NEWTIME)");
        }
        Ok(())
    }

    /// Sets the clocks of what a process has begun by that, and keeps it for others to join.
    ///
    /// # Errors
    /// When the system refuses, or the process is gone.
    pub fn keep(&mut self, process: Pid, host: HostPid) -> Result<(), Failure> {
        let Some(place) = self.image.time_of_children(process).filter(|_| self.has_own_memory(process)) else {
            return Ok(());
        };
        let Some((time, _)) = self.image.time_namespaces().nth(place) else { return Ok(()) };
        self.set(host.raw(), time)?;
        let path = format!("/proc/{}/ns/time_for_children", host.raw());
        self.open.insert(place, File::open(&path).doing(|| format!("{path}: opening"))?);
        Ok(())
    }

    fn has_own_memory(&self, process: Pid) -> bool {
        self.image.processes.get(&process).is_some_and(|one| one.process.shares.memory.is_none())
    }

    /// Sets the clocks of one that a task (host pid) has for its children, and that nobody is in.
    fn set(&self, host: i32, time: &TimeNamespace) -> Result<(), Failure> {
        let Some((_, own)) = &self.own else { return Ok(()) };
        let offsets =
            Offsets { monotonic: own.monotonic + time.monotonic.ns(), boottime: own.boottime + time.boottime.ns() };
        let (path, text) = (format!("/proc/{host}/timens_offsets"), offsets.text());
        fs::write(&path, &text).doing(|| format!("{NAMESPACES}: {path}: writing {:?}", text.trim_end()))
    }
}
