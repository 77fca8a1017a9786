//! Captures `process` and `attr` of a process.

use super::super::Findings;
use super::super::container::Place;
use super::super::kernel::Kernel;
use super::super::proc::Proc;
use super::super::subject::{self, Subjects};
use super::super::{autogroup, memory_policy, signal};
use crate::failure::{Failure, Kind};
use image_format::layout;
use image_format::process::{EndedThread, JobControl, MemoryLayout, Process, ProcessAttr, Shares};
use image_format::types::{Address, Blob, Bytes, Hex, Octal, Pid};

/// Where the paths of a process are looked up.
#[derive(Clone, Copy, Debug)]
pub struct Places<'a> {
    /// Its executable, and what it maps: in the container's own mount namespace, whatever it is in itself.
    pub executable: &'a Place,
    /// Its directories.
    pub directories: &'a Place,
}

/// Reads both records.
///
/// # Errors
/// When the process is gone.
pub fn capture(
    process: &subject::Process,
    subjects: &Subjects,
    places: Places<'_>,
    proc: &mut Proc,
    kernel: &mut Kernel,
    findings: &mut Findings,
) -> Result<(Process, ProcessAttr), Failure> {
    let host = process.alive().host;
    let leader = process.leader();
    let object = layout::process_file(process.pid, "process");
    let id = |ids: &[u32]| Pid(ids.last().copied().unwrap_or(0));
    let exe = places.executable.path(proc, &format!("{host}/exe"), &object, "the executable", findings)?;
    let (cwd, cwd_deleted) = places.directories.working_directory(proc, &host.to_string(), &object, findings)?;
    let root = places.directories.path(proc, &format!("{host}/root"), &object, "the root directory", findings)?;
    let limits = super::limits::parse(proc.text(format_args!("{host}/limits"))?);
    let unreadable = || Failure::new(Kind::Unsupported, format!("{object}: /proc/{host}/limits is malformed"));
    let record = Process {
        pid: process.pid,
        parent: subjects.ids.get(&leader.stat.ppid).copied().unwrap_or(Pid(0)),
        // Told by the parent's threads; the caller sets it.
        parent_thread: None,
        group: id(&leader.status.ns_pgid),
        session: id(&leader.status.ns_sid),
        exit_signal: signal::from_number(leader.stat.exit_signal),
        // Found by comparing with all others; the caller sets it.
        shares: Shares::default(),
        // Only a traced task tells; the caller sets it.
        job_control: JobControl::Running,
        first_thread_ended: process.is_leaderless().then(|| ended(leader)),
        tty: None,
        exe,
        cwd,
        cwd_deleted,
        root,
        umask: Octal(process.alive().status.umask.unwrap_or(0)),
        limits: limits.ok_or_else(unreadable)?,
        arguments: strings(proc.bytes(format_args!("{host}/cmdline"))?),
        environment: strings(proc.bytes(format_args!("{host}/environ"))?),
        layout: memory_layout(process, &object, proc, kernel)?,
    };
    let path = layout::process_file(process.pid, "attr");
    let attr = ProcessAttr {
        dumpable: kernel.ask(host, &path, |state, task| state.dumpable(task))?.unwrap_or(0),
        child_subreaper: kernel.ask(host, &path, |state, task| state.is_child_subreaper(task))?.unwrap_or(false),
        oom_score_adj: proc.number(format_args!("{host}/oom_score_adj"))?,
        coredump_filter: Hex(proc.hex(format_args!("{host}/coredump_filter"))?),
        memory: memory_policy::capture(process, proc, kernel)?,
        autogroup_nice: autogroup::capture(proc, host),
    };
    Ok((record, attr))
}

/// What is left of a first thread that has ended.
fn ended(leader: &subject::Thread) -> EndedThread {
    EndedThread {
        name: Bytes(leader.stat.comm.clone()),
        uid: leader.status.uid,
        gid: leader.status.gid,
        status: leader.stat.exit_code,
    }
}

/// What stands between NUL bytes, the last of which ends the list.
fn strings(bytes: &[u8]) -> Vec<Bytes> {
    if bytes.is_empty() {
        return Vec::new();
    }
    bytes.strip_suffix(b"\0").unwrap_or(bytes).split(|&b| b == 0).map(|part| Bytes(part.to_vec())).collect()
}

/// All but the end of the heap is in /proc; that one is needed to the byte.
fn memory_layout(
    process: &subject::Process,
    object: &str,
    proc: &mut Proc,
    kernel: &mut Kernel,
) -> Result<MemoryLayout, Failure> {
    let (host, stat) = (process.alive().host, &process.alive().stat);
    let brk = kernel.ask(host, object, |state, task| state.brk(task))?;
    Ok(MemoryLayout {
        start_code: Address(stat.start_code),
        end_code: Address(stat.end_code),
        start_data: Address(stat.start_data),
        end_data: Address(stat.end_data),
        start_brk: Address(stat.start_brk),
        brk: Address(brk.map_or(stat.start_brk, |brk| brk.brk)),
        start_stack: Address(stat.start_stack),
        arg_start: Address(stat.arg_start),
        arg_end: Address(stat.arg_end),
        env_start: Address(stat.env_start),
        env_end: Address(stat.env_end),
        auxv: Blob(proc.bytes(format_args!("{host}/auxv"))?.to_vec()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_keep_empty_strings() {
        let texts = |bytes: &[u8]| strings(bytes).iter().map(Bytes::escaped).collect::<Vec<_>>();
        assert_eq!(texts(b"a\0\0b c\0"), ["a", "", "b c"]);
        assert_eq!(texts(b"title without end"), ["title without end"]);
        assert!(texts(b"").is_empty());
    }
}
