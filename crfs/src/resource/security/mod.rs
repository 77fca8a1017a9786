//! Security state that nobody can hand on: Landlock domains, keys, labels of security modules, core scheduling.
//!
//! - **What:** what confines a thread beside its credentials, and the keys it holds.
//! - **Where:** `cred` and what security modules keep with it (`include/linux/cred.h`, v6.18).
//! - **Read:** labels from /proc/PID/attr/current, the cookie by prctl(2); domains and keyrings from kernel memory.
//! - **Made again:** not at all. A session keyring without keys is as good as the one of whoever restores.
//! - **Refused:** all of it: a program that believes itself confined must not come back free.

use super::Findings;
use super::kernel::Kernel;
use super::proc::Proc;
use super::subject::{Process, Thread};
use crate::failure::{Doing, Failure};
use image_format::layout;
use nix::errno::Errno;
use nix::unistd::Pid;

/// The label of this process, which is what restored threads would have.
#[derive(Clone, Debug)]
pub struct Label(Vec<u8>);

impl Label {
    /// Reads it. None where no security module keeps labels (EINVAL): then no other task has one.
    pub fn own(proc: &mut Proc) -> Option<Self> {
        proc.read(format_args!("thread-self/attr/current")).map(|label| Label(label.to_vec())).ok()
    }
}

/// Obstacles that the system tells from outside, of a running thread too. `own` is the label of this process.
///
/// # Errors
/// When the thread is gone.
pub fn survey(
    process: &Process,
    thread: &Thread,
    own: Option<&Label>,
    proc: &mut Proc,
    findings: &mut Findings,
) -> Result<(), Failure> {
    let path = layout::thread_file(process.pid, thread.tid, "attr");
    let label = format_args!("{}/task/{}/attr/current", process.host, thread.host);
    if let Some(Label(own)) = own
        && let Ok(label) = proc.read(label)
        && own != label
    {
        let label = String::from_utf8_lossy(label).trim_end_matches(['\0', '\n']).to_owned();
        findings.block(
            &path,
            format!("runs under the label {label:?} of a security module, which is not carried"),
            "Start it without a profile or context of its own",
        );
    }
    match crfs_sys::sched::core_cookie(Pid::from_raw(thread.host)) {
        // Not on this kernel, or not on this machine, or it has ended.
        Ok(0) | Err(Errno::EINVAL | Errno::ENODEV | Errno::ESRCH) => {}
        Ok(_) => findings.block(
            &path,
            "has a core scheduling cookie (PR_SCHED_CORE), which is not carried",
            "Start it without; give it a cookie after the restore",
        ),
        Err(errno) => return Err(errno).doing(|| format!("{path}: reading the core scheduling cookie")),
    }
    Ok(())
}

/// What credentials bring with them that only kernel memory tells: of all threads that have them.
#[derive(Clone, Debug)]
pub struct Confinement {
    /// PR_SET_SECUREBITS.
    pub securebits: u32,
    in_landlock_domain: bool,
    /// Which keyrings of its own hold keys.
    keyrings: Vec<&'static str>,
}

impl Confinement {
    /// Reads it for a frozen and traced thread. `path` is its `attr`.
    ///
    /// # Errors
    /// When the thread is gone.
    pub fn read(host: i32, path: &str, kernel: &mut Kernel) -> Result<Self, Failure> {
        let securebits = kernel.ask(host, path, |state, task| state.securebits(task))?.unwrap_or(0);
        let in_landlock_domain = kernel.ask(host, path, |state, task| state.in_landlock_domain(task))?.unwrap_or(false);
        let rings = kernel.ask(host, path, |state, task| Ok((state.keyrings(task)?, state.own_keyrings()?.session)))?;
        let (rings, own_session) = rings.unwrap_or_default();
        // What everybody of the host's session has is there again for whoever restores from it.
        let session = rings.session.filter(|&ring| Some(ring.address) != own_session.map(|own| own.address));
        let kinds = [("thread", rings.thread), ("process", rings.process), ("session", session)];
        let held = kinds.into_iter().filter(|(_, ring)| ring.is_some_and(|ring| ring.keys > 0));
        Ok(Confinement { securebits, in_landlock_domain, keyrings: held.map(|(kind, _)| kind).collect() })
    }

    /// The obstacles that it is for a thread that has it. `path` is the thread's `attr`.
    pub fn report(&self, path: &str, findings: &mut Findings) {
        if self.in_landlock_domain {
            findings.block(
                path,
                "is confined by Landlock, whose rules nobody can read",
                "Start it without; it would come back free",
            );
        }
        for kind in &self.keyrings {
            findings.block(
                path,
                format!("has keys in a {kind} keyring of its own, which are not carried"),
                "Have the program drop its keys (keyctl clear), and read them anew after the restore",
            );
        }
    }
}
