//! How tasks of a build die: zombies as they did, helpers once they have served.

use super::builder::{Builder, STOP_PATIENCE};
use crate::failure::{Doing, Failure, Kind};
use crate::plan::Role;
use crate::resource::zombie;
use crfs_tracee::{Batch, Exit, Stop, Stopped, Tracee, Waited};
use image_format::{Pid, layout};
use std::time::Instant;

/// Signals that are ignored or stop a process where nothing else was asked for (signal(7)).
const NOT_DEADLY: [i32; 8] = [
    libc::SIGCHLD,
    libc::SIGCONT,
    libc::SIGSTOP,
    libc::SIGTSTP,
    libc::SIGTTIN,
    libc::SIGTTOU,
    libc::SIGURG,
    libc::SIGWINCH,
];

impl Builder<'_> {
    /// Lets a zombie die as it did.
    pub(super) fn die(&mut self, pid: Pid) -> Result<(), Failure> {
        let Some((parent, zombie)) = self.zombie(pid) else { return Ok(()) };
        let place =
            zombie::restore::dumps_core(zombie).then(|| zombie::restore::Place::new(self.cores())).transpose()?;
        let mut batch = Batch::new();
        if let Some(place) = &place {
            place.enter(&mut batch, self.link());
        }
        zombie::restore::attributes(&mut batch, zombie, place.is_some());
        self.inject(pid, &batch)?;
        let signal = i32::try_from(zombie.status & 0x7f).unwrap_or(0);
        if signal == 0 {
            self.exit(pid, u64::from(zombie.status >> 8 & 0xff))?;
        } else {
            if let Some(place) = &place {
                place.allow(self.host(pid)?)?;
            }
            let dumped = self.end_by(pid, signal, place.is_some())?;
            if place.is_some() && !dumped {
                let path = layout::process_file(parent, "wait.zombies");
                self.note(format!(
                    "{path}: process {pid}: its status says no longer that it dumped core, since it could not dump one here (core_pattern, RLIMIT_CORE)"
                ));
            }
        }
        self.count_death(Some(parent));
        Ok(())
    }

    fn exit(&mut self, pid: Pid, code: u64) -> Result<(), Failure> {
        let died = self.leader(pid)?.attempt(libc::SYS_exit_group, &[code], "exit_group");
        self.forget(pid);
        match died {
            Err(crfs_tracee::InjectError::Died { .. }) => Ok(()),
            Err(error) => Err(error).doing(|| format!("process {pid}: exiting")),
            Ok(_) => Err(Failure::new(Kind::System, format!("process {pid}: exit_group returned"))),
        }
    }

    /// Ends a process by a signal whose action is the default. Returns whether it left a core dump.
    fn end_by(&mut self, pid: Pid, signal: i32, may_dump: bool) -> Result<bool, Failure> {
        if NOT_DEADLY.contains(&signal) {
            let reason = format!("wait.zombies: process {pid}: status: signal {signal} ends no process");
            return Err(Failure::new(Kind::BadImage, reason));
        }
        let doing = || format!("process {pid}: ending it by signal {signal}");
        let injector = self.forget(pid).ok_or_else(|| Failure::new(Kind::System, doing()))?;
        let tracee = injector.release().doing(doing)?;
        let host = tracee.tid();
        if !may_dump {
            let none = crfs_sys::limits::Limit { soft: 0, hard: 0 };
            crfs_sys::limits::set(host.pid(), 4, none).doing(doing)?;
        }
        tracee.set_sigmask(0).doing(doing)?;
        // By number: nix has no names for real-time signals.
        crfs_sys::sigqueue::queue(host.pid(), signal, 0).doing(doing)?;
        // SIGKILL does not wait for the task to be continued: then it is gone, which waiting tells.
        let go_on = |tracee: Tracee<Stopped>, signal| match tracee.cont(signal) {
            Err(error) if error.is_gone() => Ok(Tracee::adopt(host)),
            other => other.doing(doing),
        };
        let mut running = go_on(tracee, None)?;
        loop {
            running = match running.wait(Instant::now() + STOP_PATIENCE).doing(doing)? {
                Waited::Gone(exit) => return Ok(matches!(exit, Exit::Signal { core: true, .. })),
                Waited::Running(_) => return Err(Failure::new(Kind::Deadline, doing())),
                Waited::Stopped(stopped) => match stopped.stop() {
                    Stop::Signal(got) if got == signal => go_on(stopped, Some(signal))?,
                    _ => go_on(stopped, None)?,
                },
            };
        }
    }

    /// A helper or stub has served: it exits, and its reaper waits for it.
    pub(super) fn dismiss(&mut self, pid: Pid) -> Result<(), Failure> {
        self.exit(pid, 0)?;
        // Nobody in the image waits for the stub: it is the worker's own child.
        let Some(Role::Helper { reaper }) = self.role(pid) else { return Ok(()) };
        let wait_all = u64::from(libc::__WALL.cast_unsigned());
        let seen = self.seen_by(reaper, pid)?;
        self.leader(reaper)?
            .call(libc::SYS_wait4, &[seen.0.into(), 0, wait_all, 0], "wait4 for a helper")
            .doing(|| layout::process_dir(reaper))?;
        self.count_death(Some(reaper));
        Ok(())
    }
}
