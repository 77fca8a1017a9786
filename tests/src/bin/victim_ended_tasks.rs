//! Files and directories of /proc whose process or thread has ended, with another process that has the id by now. With `rest` there
//! is also one of which a part was read while its process was there: the kernel still has the rest. With `listing` there is the listing of
//! its descriptors, which cannot even be asked what it is.

use anyhow::{Context, Result, ensure};
use crfs_sys::clone::{CloneArgs, Forked, exit_now, fork_into};
use crfs_tests::victim::{self, Stage};
use nix::dir::Dir;
use nix::errno::Errno;
use nix::fcntl::{OFlag, openat};
use nix::sys::signal::{Signal, kill};
use nix::sys::stat::Mode;
use nix::sys::wait::waitpid;
use nix::unistd::{Pid, gettid, pause};
use std::fs::{self, File};
use std::io::Read;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::process::ExitCode;
use std::sync::mpsc;
use std::time::{Duration, Instant};

/// A child that waits for a signal, with this id if one is asked for.
fn child(id: Option<i32>) -> Result<Pid> {
    let id = id.as_slice();
    match fork_into(&CloneArgs { set_tid: id, exit_signal: libc::SIGCHLD, ..CloneArgs::default() })? {
        Forked::Child => {
            pause();
            exit_now(0)
        }
        Forked::Parent { child, .. } => Ok(child),
    }
}

fn end(child: Pid) -> Result<()> {
    kill(child, Signal::SIGKILL)?;
    waitpid(child, None)?;
    Ok(())
}

/// What a thread that has ended by now had open of itself.
fn of_a_thread() -> Result<File> {
    let (said, heard) = mpsc::channel();
    let thread = std::thread::spawn(move || said.send(gettid().as_raw()));
    let id = heard.recv()?;
    let path = format!("/proc/self/task/{id}/schedstat");
    // Held in its end by nobody: it may be gone already.
    let opened = File::open(&path);
    thread.join().map_err(|_| anyhow::anyhow!("the thread failed"))??;
    let deadline = Instant::now() + Duration::from_secs(10);
    while Path::new(&path).exists() {
        ensure!(Instant::now() < deadline, "the thread does not end");
        std::thread::yield_now();
    }
    opened.or_else(|_| of_a_thread())
}

fn told(file: &File) -> std::io::Result<usize> {
    file.read_at(&mut [0; 4096], 0)
}

fn errno(told: std::io::Result<usize>) -> Option<Errno> {
    told.err()?.raw_os_error().map(Errno::from_raw)
}

fn run(stage: &mut Stage) -> Result<()> {
    let past = child(None)?;
    let open = |name: &str| File::open(format!("/proc/{past}{name}")).with_context(|| name.to_owned());
    let asked = |what: &str| std::env::args().any(|argument| argument == what);
    let mut rest = asked("rest").then(|| open("/status")).transpose()?;
    if let Some(rest) = &mut rest {
        rest.read_exact(&mut [0; 10])?;
    }
    let _listing = asked("listing").then(|| open("/fd")).transpose()?;
    // One that was not read, one that was, one that was left half way and asked again.
    let silent = [open("/stat")?, open("/cmdline")?, open("/maps")?, open("/limits")?];
    let mut read = open("/status")?;
    std::io::copy(&mut read, &mut std::io::sink())?;
    let mut half = open("/io")?;
    half.read_exact(&mut [0; 5])?;
    let empty = [open("/environ")?, open("/mem")?];
    let directories = [open("")?, open("/task")?, open("/fdinfo")?, open(&format!("/task/{past}"))?];
    let place = File::options().read(true).custom_flags(OFlag::O_PATH.bits()).open(format!("/proc/{past}/stat"))?;
    end(past)?;
    ensure!(errno(told(&half)) == Some(Errno::ESRCH), "half a text is told of who has ended");
    let thread = of_a_thread()?;
    let present = child(Some(past.as_raw()))?;
    ensure!(present == past, "the id is another one");
    loop {
        // Before it is asked from its beginning, which forgets what the kernel kept.
        ensure!(errno(half.read(&mut [0])) == Some(Errno::ESRCH), "half a text goes on");
        for file in silent.iter().chain([&half, &thread]) {
            ensure!(errno(told(file)) == Some(Errno::ESRCH), "one that has ended is told of: {:?}", told(file));
        }
        ensure!(read.read(&mut [0; 16])? == 0, "what was read to its end goes on");
        for file in &empty {
            ensure!(told(file)? == 0, "the memory of one that has ended is told");
        }
        for directory in &directories {
            let below = openat(directory, "stat", OFlag::O_RDONLY, Mode::empty());
            ensure!(matches!(below, Err(Errno::ENOENT | Errno::ESRCH)), "a directory leads to {below:?}");
            // The C library takes ENOENT for the end.
            let listed = Dir::from_fd(directory.as_fd().try_clone_to_owned()?)?.iter().count();
            ensure!(listed == 0, "a directory has {listed} entries");
        }
        let again = File::open(format!("/proc/self/fd/{}", place.as_raw_fd()));
        ensure!(again.is_err() || again.is_ok_and(|file| told(&file).is_err()), "a place leads to who has the id now");
        let link = fs::read_link(format!("/proc/self/fd/{}", silent[0].as_raw_fd()))?;
        let name = format!("/proc/{past}/stat");
        let link = link.to_str().context("a name")?;
        ensure!(link.strip_suffix(" (deleted)").unwrap_or(link) == name, "the link is {link}");
        ensure!(
            fs::read_to_string(format!("/proc/{present}/stat"))?.starts_with(&format!("{present} (")),
            "it is not there"
        );
        if !stage.end_round_and_rest()? {
            return end(present);
        }
    }
}

fn main() -> ExitCode {
    victim::main(run)
}
