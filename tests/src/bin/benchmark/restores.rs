//! Checkpointing and restoring the same program from the same kind of place by crfs and by CRIU, turn by turn.

use super::places::{Disk, Memory, memory_beyond, size_of};
use super::{median, milliseconds};
use anyhow::{Context, Result, ensure};
use crfs_tests::world::{PATIENCE, Program, World, binary, wait_for};
use nix::errno::Errno;
use nix::sys::signal::{Signal, killpg};
use nix::sys::wait::{WaitPidFlag, waitpid};
use nix::unistd::Pid;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Runs a command to its end and tells how long that took. Not `world::run`, whose looks are ten milliseconds apart.
fn timed(command: &mut Command) -> Result<Duration> {
    let begun = Instant::now();
    let output = command.stdin(Stdio::null()).output().with_context(|| format!("{command:?}"))?;
    let took = begun.elapsed();
    let said = || String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(output.status.success(), "{command:?}: {}: {}", output.status, said());
    Ok(took)
}

/// The program under which what is measured runs: chrt(1) where BENCHMARK_CHRT names a real-time priority, so that other work on the
/// machine is not measured.
fn measured(program: &Path, command: impl FnOnce(&Path) -> Command) -> Command {
    let Ok(priority) = std::env::var("BENCHMARK_CHRT") else { return command(program) };
    let mut chrt = command(Path::new("chrt"));
    chrt.args(["-f", &priority]).arg(program);
    chrt
}

/// Has the machine touch as much memory as an image of this size takes, and half as much again. A virtual machine's host takes back
/// what is free for two seconds (free page reporting, `mm/page_reporting.c`, v6.18), and gives it again page by page, which
/// takes up to ten times as long as all else.
fn touch_memory(size: u64) {
    let bytes = usize::try_from(size + size / 2).unwrap_or_default();
    drop(std::hint::black_box(vec![1u8; bytes]));
}

/// A program that is checkpointed and restored.
pub(super) struct Workload {
    pub(super) what: String,
    kind: String,
    arguments: Vec<String>,
    /// A directory on a disk for its images, in the place of a tmpfs.
    disk: Option<PathBuf>,
}

impl Workload {
    /// `arguments` with a blank between them.
    pub(super) fn new(what: &str, kind: &str, arguments: &str) -> Self {
        let arguments = arguments.split(' ').map(str::to_owned).collect();
        Workload { what: what.to_owned(), kind: kind.to_owned(), arguments, disk: None }
    }

    /// With its images below a directory on a disk.
    pub(super) fn on(self, disk: PathBuf) -> Self {
        Workload { disk: Some(disk), ..self }
    }

    fn program(&self, world: &World) -> Program {
        let arguments: Vec<&str> = self.arguments.iter().map(String::as_str).collect();
        Program::victim(world, &self.kind, &arguments)
    }
}

/// Takes and restores a checkpoint of a program `runs` times, with CRIU in between where there is one.
pub(super) fn compare(workload: &Workload, runs: usize, criu: Option<&Path>) -> Result<()> {
    let world = World::without_server();
    let memory = Memory::new(world.dir().join("memory"))?;
    let disk = workload.disk.as_deref().map(Disk::new).transpose()?;
    let place = disk.as_ref().map_or(&memory.0, |disk| &disk.0);
    let program = workload.program(&world);
    // Before ours runs: both are the same file, which is copied to its place.
    let mut peer = criu.map(|criu| Peer::new(&world, criu, &place.join("criu"), workload)).transpose()?;
    world.start("bench", &program);
    let copy = place.join("copy");
    let copy_path = copy.to_string_lossy().into_owned();
    let crctl =
        |arguments: &[&str]| timed(measured(&binary("crctl"), |program| world.command(program)).args(arguments));
    let (mut ours, mut theirs) = (Measured::default(), Measured::default());
    for _ in 0..runs {
        touch_memory(ours.size);
        ours.out.push(crctl(&["checkpoint", "bench", &copy_path])?);
        ours.size = size_of(&copy)?;
        crctl(&["kill", "bench"])?;
        touch_memory(ours.size);
        ours.restored(|| {
            let took = crctl(&["restore", &copy_path, "--name", "bench", "--run"])?;
            program.goes_on(1);
            Ok(took)
        })?;
        fs::remove_dir_all(&copy)?;
        if let Some(peer) = &mut peer {
            touch_memory(theirs.size);
            theirs.out.push(peer.dump()?);
            theirs.size = size_of(&peer.images)?;
            touch_memory(theirs.size);
            theirs.restored(|| peer.restore())?;
            peer.forget()?;
        }
    }
    crctl(&["kill", "bench"])?;
    println!("{}: {}", workload.what, ours.text("checkpoint"));
    if peer.is_some() {
        println!("    criu: {}", theirs.text("dump"));
        let ratio = |ours: &[Duration], theirs: &[Duration]| {
            median(ours.to_vec()).as_secs_f64() / median(theirs.to_vec()).as_secs_f64()
        };
        println!(
            "    crfs takes {:.2} and {:.2} of its time",
            ratio(&ours.out, &theirs.out),
            ratio(&ours.back, &theirs.back)
        );
    }
    Ok(())
}

/// What all runs came to.
#[derive(Default)]
struct Measured {
    out: Vec<Duration>,
    back: Vec<Duration>,
    /// Of the image of the last run, in bytes.
    size: u64,
    /// What a restore needed beyond what ran afterwards, at most, in bytes.
    beyond: u64,
}

impl Measured {
    fn restored(&mut self, restore: impl FnOnce() -> Result<Duration>) -> Result<()> {
        let (beyond, took) = memory_beyond(restore);
        self.back.push(took?);
        self.beyond = self.beyond.max(beyond);
        Ok(())
    }

    fn text(&self, out: &str) -> String {
        let [out_ms, back_ms] = [&self.out, &self.back].map(|times| milliseconds(median(times.clone())));
        let [size, beyond] = [self.size, self.beyond].map(mebibytes);
        format!("{out} {out_ms}, restore {back_ms}; image {size}, beside what is restored {beyond}")
    }
}

/// With a digit after the point.
fn mebibytes(bytes: u64) -> String {
    let tenths = (bytes * 10) >> 20;
    format!("{}.{} MiB", tenths / 10, tenths % 10)
}

/// The same program outside of any container, under CRIU. It leads a session, so that it can be ended as a group.
struct Peer {
    criu: PathBuf,
    images: PathBuf,
    program: Program,
    pid: Pid,
    /// What setsid(1) was started as, until the first dump has ended it.
    child: Option<Child>,
}

impl Peer {
    fn new(world: &World, criu: &Path, images: &Path, workload: &Workload) -> Result<Self> {
        fs::create_dir_all(images)?;
        nix::sys::prctl::set_child_subreaper(true)?;
        let mut program = workload.program(world);
        program.path = world.out().join("peer");
        program.command[1] = program.path.to_string_lossy().into_owned();
        let log = File::create(images.join("out"))?;
        let mut command = Command::new("setsid");
        command.args(&program.command).stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        let child = command.spawn()?;
        let pid = Pid::from_raw(i32::try_from(child.id())?);
        let peer = Peer { criu: criu.to_owned(), images: images.to_owned(), program, pid, child: Some(child) };
        peer.program.goes_on(3);
        Ok(peer)
    }

    fn command(&self, action: &str) -> Command {
        let mut command = measured(&self.criu, |program| Command::new(program));
        command.arg(action).arg("--images-dir").arg(&self.images);
        command
    }

    /// It is gone afterwards.
    fn dump(&mut self) -> Result<Duration> {
        let took = timed(self.command("dump").args(["--tree", &self.pid.to_string()]))?;
        if let Some(mut child) = self.child.take() {
            child.wait()?;
        }
        self.end();
        Ok(took)
    }

    fn restore(&mut self) -> Result<Duration> {
        let took = timed(self.command("restore").arg("--restore-detached"))?;
        self.program.goes_on(1);
        Ok(took)
    }

    /// The images are not to be counted again.
    fn forget(&self) -> Result<()> {
        for entry in fs::read_dir(&self.images)? {
            let path = entry?.path();
            if path.extension().is_some_and(|extension| extension == "img") {
                fs::remove_file(path)?;
            }
        }
        Ok(())
    }

    /// Its ids must be free for the next one.
    fn end(&self) {
        // Gone already is as good.
        let _ = killpg(self.pid, Signal::SIGKILL);
        let group = Pid::from_raw(-self.pid.as_raw());
        // Restored detached they are ours to reap, see `new`.
        wait_for(PATIENCE, || matches!(waitpid(group, Some(WaitPidFlag::WNOHANG)), Err(Errno::ECHILD)));
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        self.end();
    }
}
