//! What prctl(2) and its like set and nothing shows: for the address space, for a thread, for the session; a segment of its own, and a
//! thread whose system calls can become signals.

use anyhow::{Context, Result, ensure};
use crfs_sys::{controls, dispatch, ldt};
use crfs_tests::victim::{self, Stage};
use std::fs;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

const IN_SEGMENT: u32 = 0x5e67_3e27;
const LOGIN_UID: &str = "1000";
const NICE: &str = "7";

/// A thread that goes on while its system calls can be caught.
fn dispatched(stop: &AtomicBool) -> Result<()> {
    dispatch::switch_on()?;
    while !stop.load(Ordering::Relaxed) {
        ensure!(dispatch::catches(), "a blocked system call was made");
        std::thread::sleep(Duration::from_millis(5));
    }
    Ok(())
}

fn check() -> Result<()> {
    ensure!(controls::mdwe()? == 1, "PR_MDWE is {}", controls::mdwe()?);
    ensure!(controls::huge_pages()? == 3, "PR_THP_DISABLE is {}", controls::huge_pages()?);
    ensure!(controls::memory_merge()?, "pages are no longer merged");
    ensure!(controls::memory_errors()? == 1, "PR_MCE_KILL is {}", controls::memory_errors()?);
    ensure!(!controls::may_use_tsc()?, "the time stamp counter is allowed again");
    ensure!(ldt::read() == IN_SEGMENT, "the segment begins with {:#x}", ldt::read());
    Ok(())
}

fn locked_kib() -> Result<u64> {
    let status = fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmLck:")).context("VmLck")?;
    Ok(line.trim().trim_end_matches(" kB").parse()?)
}

/// For the end only: a freeze that met an open file of /proc would be refused.
fn check_files() -> Result<()> {
    let autogroup = fs::read_to_string("/proc/self/autogroup")?;
    ensure!(autogroup.trim_end().ends_with(&format!("nice {NICE}")), "its group is {autogroup:?}");
    let login_uid = fs::read_to_string("/proc/self/loginuid")?;
    ensure!(login_uid == LOGIN_UID, "loginuid is {login_uid:?}");
    let before = locked_kib()?;
    let memory = crfs_sys::anonymous::Region::new(1 << 20, crfs_sys::anonymous::Kind::default())?;
    ensure!(locked_kib()? >= before + 1024, "new memory is not locked");
    drop(memory);
    Ok(())
}

fn run(stage: &mut Stage) -> Result<()> {
    // The first process of a container leads a session already; elsewhere the session is others'.
    let _ = nix::unistd::setsid();
    fs::write("/proc/self/autogroup", NICE)?;
    fs::write("/proc/self/loginuid", LOGIN_UID)?;
    ldt::define(3, IN_SEGMENT)?;
    let stop = Arc::new(AtomicBool::new(false));
    let thread = {
        let stop = Arc::clone(&stop);
        std::thread::spawn(move || dispatched(&stop))
    };
    controls::set_huge_pages_if_advised()?;
    controls::set_memory_merge()?;
    controls::set_memory_errors(1)?;
    controls::lock_future()?;
    controls::set_mdwe(1)?;
    // From here on this thread must not read a clock.
    controls::forbid_tsc()?;
    loop {
        check()?;
        if thread.is_finished() || !stage.end_round_and_rest()? {
            break;
        }
    }
    stop.store(true, Ordering::Relaxed);
    thread.join().ok().context("the thread panicked")??;
    check_files()
}

fn main() -> ExitCode {
    victim::main(run)
}
