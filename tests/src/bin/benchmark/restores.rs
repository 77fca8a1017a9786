//! Checkpointing and restoring the same program from the same kind of place by crfs and by CRIU, turn by turn.

use super::{Memory, median, milliseconds};
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

/// Takes and restores a checkpoint of a program `runs` times, on a tmpfs, with CRIU in between where there is one.
pub(super) fn compare(what: &str, kind: &str, arguments: &[&str], runs: usize, criu: Option<&Path>) -> Result<()> {
    let mut world = World::without_server();
    let memory = Memory::new(world.dir().join("memory"))?;
    world.set_environment("CRFS_STAGING_DIR", &memory.0.join("staging").to_string_lossy());
    let program = Program::victim(&world, kind, arguments);
    // Before ours runs: both are the same file, which is copied to its place.
    let mut peer = criu.map(|criu| Peer::new(&world, criu, &memory.0.join("criu"), kind, arguments)).transpose()?;
    world.start("bench", &program);
    let copy = memory.0.join("copy");
    let copy_path = copy.to_string_lossy().into_owned();
    let crctl =
        |arguments: &[&str]| timed(measured(&binary("crctl"), |program| world.command(program)).args(arguments));
    let (mut ours, mut theirs) = (Times::default(), Times::default());
    for _ in 0..runs {
        ours.out.push(crctl(&["checkpoint", "bench", &copy_path])?);
        crctl(&["kill", "bench"])?;
        ours.back.push(crctl(&["restore", &copy_path, "--name", "bench", "--run"])?);
        program.goes_on(1);
        fs::remove_dir_all(&copy)?;
        if let Some(peer) = &mut peer {
            theirs.out.push(peer.dump()?);
            theirs.back.push(peer.restore()?);
        }
    }
    crctl(&["kill", "bench"])?;
    println!("{what}: checkpoint {}, restore {}", median_ms(&ours.out), median_ms(&ours.back));
    if peer.is_some() {
        println!(
            "    criu: dump {}, restore {}; crfs takes {:.2} and {:.2} of its time",
            median_ms(&theirs.out),
            median_ms(&theirs.back),
            median(ours.out).as_secs_f64() / median(theirs.out).as_secs_f64(),
            median(ours.back).as_secs_f64() / median(theirs.back).as_secs_f64()
        );
    }
    Ok(())
}

/// How long each run took.
#[derive(Default)]
struct Times {
    out: Vec<Duration>,
    back: Vec<Duration>,
}

fn median_ms(times: &[Duration]) -> String {
    milliseconds(median(times.to_vec()))
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
    fn new(world: &World, criu: &Path, images: &Path, kind: &str, arguments: &[&str]) -> Result<Self> {
        fs::create_dir_all(images)?;
        nix::sys::prctl::set_child_subreaper(true)?;
        let mut program = Program::victim(world, kind, arguments);
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
