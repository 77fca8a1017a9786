//! Making threads and processes out of a tracee.

use std::borrow::Cow;
use std::time::{Duration, Instant};

use crfs_sys::clone::RawCloneArgs;

use crate::{Arg, Batch, Error, InjectError, Injector, RemoteAddress, Stop, Stopped, Tracee, Waited};

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
        let args = RawCloneArgs {
            flags: spawn.flags,
            child_tid: spawn.child_tid.0,
            exit_signal: u64::from(spawn.exit_signal.cast_unsigned()),
            tls: spawn.tls.0,
            set_tid_size: spawn.set_tid.len() as u64,
            cgroup: spawn.cgroup.map_or(0, u64::from),
            ..RawCloneArgs::default()
        };
        let mut batch = Batch::new();
        let structure = batch.data(&args.to_bytes());
        if !spawn.set_tid.is_empty() {
            let ids: Vec<u8> = spawn.set_tid.iter().flat_map(|id| id.to_ne_bytes()).collect();
            let ids = batch.data(&ids);
            batch.point(structure.from(RawCloneArgs::SET_TID_OFFSET), ids);
        }
        batch.call(libc::SYS_clone3, &[Arg::Data(structure), structure.len().into()], label.clone());
        let before = std::mem::take(&mut self.children);
        let ran = self.run(&batch);
        let made = std::mem::replace(&mut self.children, before);
        ran?;
        let child = *made.first().ok_or(InjectError::Untraced { tid: self.tid(), label: label.clone() })?;
        let mut running = Tracee::adopt(child);
        let deadline = Instant::now() + Duration::from_secs(10);
        loop {
            let waited =
                running.wait(deadline).map_err(|source| InjectError::Tracee { label: label.clone(), source })?;
            let stopped = match waited {
                Waited::Stopped(stopped) => stopped,
                Waited::Gone(exit) => return Err(InjectError::Died { tid: child, label, exit }),
                Waited::Running(_) => return Err(InjectError::TimedOut { tid: child, label }),
            };
            if matches!(stopped.stop(), Stop::Event { .. }) {
                return Ok(stopped);
            }
            // A signal that nothing blocks was faster than the birth.
            running = match stopped.cont(None) {
                Err(Error::Gone { .. }) => Tracee::adopt(child),
                other => other.map_err(|source| InjectError::Tracee { label: label.clone(), source })?,
            };
        }
    }
}
