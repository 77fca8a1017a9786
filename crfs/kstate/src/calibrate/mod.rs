//! Calibration: children with known state are read back, and what does not come back right is switched off.
//!
//! One child has everything set, another nothing of it, so that a feature that always answers "yes" is found out as well as
//! one that always answers "no"; three more wait in the other calls that leave a restart block.

mod actor;
mod checks;
mod connections;
mod io_uring;
mod learn;
mod numa;
mod registers;
mod scene;

use crate::error::Error;
use crate::feature::{Feature, Status};
use crate::restart::RestartFunctions;
use crate::state::KernelState;
use scene::{Roles, Scene};
use std::path::Path as FilePath;
use std::time::{Duration, Instant};

/// Why a feature was not proven.
enum Trouble {
    /// The kernel has no call that makes such state.
    Absent(String),
    /// It could not be set up, or something else was read.
    Wrong(String),
}

impl From<Error> for Trouble {
    fn from(error: Error) -> Self {
        let mut text = error.to_string();
        let mut source = std::error::Error::source(&error);
        while let Some(cause) = source {
            text = format!("{text}: {cause}");
            source = cause.source();
        }
        Self::Wrong(text)
    }
}

/// How long it is looked at children that wait: on a busy machine one may not have come to its wait, or not have gone back to it.
const LOOKING: Duration = Duration::from_millis(500);
const BETWEEN_LOOKS: Duration = Duration::from_millis(2);

type LookOnce = fn(&mut KernelState, &Scene) -> Result<(), Trouble>;

impl KernelState {
    /// Proves every feature on children of known state, and switches off what does not read back right.
    ///
    /// Takes some 20 ms, about half of it processor time of a child that lets its processor timers run. Call it from a single-threaded
    /// process or at least from a thread that nobody interrupts: the calling thread forks five children, traces them and
    /// reaps them again. They die with the caller. State of the caller is not touched.
    ///
    /// A feature that fails is no error: [`KernelState::features`] tells which and why.
    ///
    /// # Errors
    /// [`Error::Calibrate`] when the children could not be had; then everything is off.
    pub fn calibrate(&mut self) -> Result<(), Error> {
        self.known.calibrated = false;
        self.set_all_off("calibration did not finish");
        let mut scene = Scene::set()?;
        for &feature in Feature::ALL {
            if self.known.missing(feature).is_none() {
                self.set_status(feature, Status::On);
            }
        }
        let waits = self.look_at_waits(&scene, Self::look_at_waits_once);
        self.judge(Feature::WaitEnd, waits);
        let waits = self.look_at_waits(&scene, Self::look_at_socket_wait_once);
        self.judge(Feature::SocketWaitEnd, waits);
        scene.stop().inspect_err(|_| self.set_all_off("calibration did not finish"))?;
        match scene.find(self) {
            Ok(roles) => {
                self.learn_restart_functions(&roles);
                self.judge_learned(&scene, &roles);
                for &(feature, check) in checks::CHECKS {
                    self.judge(feature, check(self, &scene, &roles));
                }
            }
            Err(why) => self.set_all_off(&format!("the list of traced tasks does not read back right: {why}")),
        }
        if !FilePath::new("/proc/self/numa_maps").exists() {
            let why = "this kernel was built without NUMA policies (CONFIG_NUMA)".to_owned();
            self.set_status(Feature::Numa, Status::Absent { why });
        }
        self.known.calibrated = true;
        Ok(())
    }

    fn set_all_off(&mut self, why: &str) {
        for &feature in Feature::ALL {
            let why = self.known.missing(feature).unwrap_or_else(|| why.to_owned());
            self.switch_off(feature, why);
        }
    }

    fn judge(&mut self, feature: Feature, outcome: Result<(), Trouble>) {
        // What is already off, or absent, has its reason.
        if *self.status(feature) == Status::On {
            match outcome {
                Ok(()) => {}
                Err(Trouble::Absent(why)) => self.set_status(feature, Status::Absent { why }),
                Err(Trouble::Wrong(why)) => self.switch_off(feature, why),
            }
        }
    }

    /// While the children still wait: learns what wakes one, and reads the end of every wait. They are not stopped, and one that wakes
    /// for a moment, as on a busy machine, is on no timer then: it is looked again.
    fn look_at_waits(&mut self, scene: &Scene, once: LookOnce) -> Result<(), Trouble> {
        let end = Instant::now() + LOOKING;
        loop {
            let looked = once(self, scene);
            if !matches!(looked, Err(Trouble::Wrong(_))) || Instant::now() >= end {
                return looked;
            }
            std::thread::sleep(BETWEEN_LOOKS);
        }
    }

    fn look_at_waits_once(&mut self, scene: &Scene) -> Result<(), Trouble> {
        let sleepers = checks::sleepers(self, &scene.bare)?;
        self.known.wakeup = sleepers.first().map_or(0, |sleeper| sleeper.function);
        checks::wait_end(self, scene)
    }

    fn look_at_socket_wait_once(&mut self, scene: &Scene) -> Result<(), Trouble> {
        let timeouts = checks::timeouts(self, &scene.terminal)?;
        // What earlier calls left on the stack may look like another.
        let ends = checks::socket_wait(scene);
        let timer = timeouts.into_iter().find(|timer| ends.contains(&timer.expires_ns));
        self.known.timeout = timer.map_or(0, |timer| timer.function);
        checks::socket_wait_end(self, scene)
    }

    /// What was not learned leaves its feature off, which is not checked then.
    fn judge_learned(&mut self, scene: &Scene, roles: &Roles) {
        let learned = self.learn_memory_bits(scene, roles);
        self.judge(Feature::MemoryFlags, learned);
        let learned = self.learn_thread_bits(scene, roles);
        self.judge(Feature::ThreadFlags, learned);
        let learned = self.learn_landlock_offset(scene, roles);
        self.judge(Feature::Landlock, learned);
        let learned = connections::learn_direct_map(self, scene, roles);
        self.judge(Feature::PendingUnix, learned);
        let learned = connections::learn_direct_map_by_tcp(self, scene, roles);
        self.judge(Feature::PendingTcp, learned);
        let learned = registers::learn(self, scene, roles);
        self.judge(Feature::Registers, learned);
        let learned = registers::learn_extended(self, scene);
        self.judge(Feature::ExtendedRegisters, learned);
    }

    /// Nothing tells which function a restart block points to; the children wait in calls that we know.
    fn learn_restart_functions(&mut self, roles: &Roles) {
        let function = |task| self.restart_function(task).unwrap_or(0);
        self.known.restart = RestartFunctions {
            none: function(&roles.bare),
            nanosleep: function(&roles.full),
            poll: function(&roles.poll),
            futex: function(&roles.futex),
        };
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
