//! Making threads and processes out of a tracee.

use std::borrow::Cow;
use std::time::{Duration, Instant};

use crfs_sys::clone::RawCloneArgs;

use crate::{Arg, Batch, Error, InjectError, Injector, RemoteAddress, Running, Stop, Stopped, Tracee, Waited};

/// What an injected clone3(2) is to make.
#[derive(Clone, Debug, Default)]
pub struct Spawn {
    /// `CLONE_*`, as for clone3(2).
    pub flags: u64,
    /// Signal for the parent at the child's death; 0 for none, as it must be for a thread.
    pub exit_signal: i32,
    /// The ids to take, the innermost pid namespace first; empty for any.
    pub set_tid: Vec<i32>,
    /// The fs base, with `CLONE_SETTLS`.
    pub tls: RemoteAddress,
    /// The tid address, with `CLONE_CHILD_SETTID` or `CLONE_CHILD_CLEARTID`.
    pub child_tid: RemoteAddress,
    /// A descriptor of a cgroup directory that is open in the tracee, with `CLONE_INTO_CGROUP`.
    pub cgroup: Option<u32>,
}

impl Spawn {
    /// Adds the call that makes it.
    fn call(&self, batch: &mut Batch, label: Cow<'static, str>) {
        let args = RawCloneArgs {
            flags: self.flags,
            child_tid: self.child_tid.0,
            exit_signal: u64::from(self.exit_signal.cast_unsigned()),
            tls: self.tls.0,
            set_tid_size: self.set_tid.len() as u64,
            cgroup: self.cgroup.map_or(0, u64::from),
            ..RawCloneArgs::default()
        };
        let structure = batch.data(&args.to_bytes());
        if !self.set_tid.is_empty() {
            let ids: Vec<u8> = self.set_tid.iter().flat_map(|id| id.to_ne_bytes()).collect();
            let ids = batch.data(&ids);
            batch.point(structure.from(RawCloneArgs::SET_TID_OFFSET), ids);
        }
        batch.call(libc::SYS_clone3, &[Arg::Data(structure), structure.len().into()], label);
    }
}

impl Injector {
    /// Makes a thread or a process and returns it at its first stop, an event stop before any instruction of its own; the
    /// parent is stopped too. No stack is needed for a thread: its registers are set while it stands.
    ///
    /// The child has the parent's registers at the clone, and blocks all signals.
    ///
    /// # Errors
    /// [`InjectError::Call`] when clone3(2) fails, [`InjectError::Untraced`] when the parent was seized without the options that
    /// attach children at birth (the child then runs away).
    pub fn spawn(
        &mut self,
        spawn: &Spawn,
        label: impl Into<Cow<'static, str>>,
    ) -> Result<Tracee<Stopped>, InjectError> {
        let label = label.into();
        let mut children = self.spawn_all(&[(spawn.clone(), label.clone())])?;
        children.pop().ok_or(InjectError::Untraced { tid: self.tid(), label })
    }

    /// Makes several, in one go. They are returned in this order, each as [`Injector::spawn`] returns one.
    ///
    /// # Errors
    /// As [`Injector::spawn`]; what was made before the failure stays, traced.
    pub fn spawn_all(&mut self, spawns: &[(Spawn, Cow<'static, str>)]) -> Result<Vec<Tracee<Stopped>>, InjectError> {
        let mut batch = Batch::new();
        for (spawn, label) in spawns {
            spawn.call(&mut batch, label.clone());
        }
        let before = std::mem::take(&mut self.children);
        let ran = self.run(&batch);
        let made = std::mem::replace(&mut self.children, before);
        ran?;
        let deadline = Instant::now() + Duration::from_secs(10);
        let mut born = Vec::with_capacity(spawns.len());
        for (index, (_, label)) in spawns.iter().enumerate() {
            let child =
                made.get(index).ok_or_else(|| InjectError::Untraced { tid: self.tid(), label: label.clone() })?;
            born.push(first_stop(Tracee::adopt(*child), label, deadline)?);
        }
        Ok(born)
    }
}

/// Waits for the stop that a child is born to.
pub(crate) fn first_stop(
    child: Tracee<Running>,
    label: &str,
    deadline: Instant,
) -> Result<Tracee<Stopped>, InjectError> {
    let tid = child.tid();
    let mut running = child;
    loop {
        let failed = |source| InjectError::Tracee { label: label.to_owned().into(), source };
        let stopped = match running.wait(deadline).map_err(failed)? {
            Waited::Stopped(stopped) => stopped,
            Waited::Gone(exit) => return Err(InjectError::Died { tid, label: label.to_owned().into(), exit }),
            Waited::Running(_) => return Err(InjectError::TimedOut { tid, label: label.to_owned().into() }),
        };
        if matches!(stopped.stop(), Stop::Event { .. }) {
            return Ok(stopped);
        }
        // A signal that nothing blocks was faster than the birth.
        running = match stopped.cont(None) {
            Err(Error::Gone { .. }) => Tracee::adopt(tid),
            other => other.map_err(failed)?,
        };
    }
}
