//! Restoring the same program from the same kind of place by crfs and by CRIU, turn by turn.

use super::{Memory, median, milliseconds};
use anyhow::{Context, Result, ensure};
use crfs_tests::world::{PATIENCE, Program, World, wait_for};
use nix::errno::Errno;
use nix::sys::signal::{Signal, killpg};
use nix::sys::wait::{WaitPidFlag, waitpid};
use nix::unistd::Pid;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
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

/// Restores a program `runs` times from a tmpfs, with CRIU in between where there is one.
pub(super) fn compare(what: &str, kind: &str, arguments: &[&str], runs: usize, criu: Option<&Path>) -> Result<()> {
    let mut world = World::without_server();
    let memory = Memory::new(world.dir().join("memory"))?;
    world.set_environment("CRFS_STAGING_DIR", &memory.0.join("staging").to_string_lossy());
    let program = Program::victim(&world, kind, arguments);
    world.start("bench", &program);
    let copy = memory.0.join("copy");
    let crctl = |arguments: &[&str]| {
        let mut command = world.command(crfs_tests::world::binary("crctl"));
        command.args(arguments);
        command
    };
    let copy_path = copy.to_string_lossy().into_owned();
    let saved = timed(&mut crctl(&["checkpoint", "bench", &copy_path]))?;
    timed(&mut crctl(&["kill", "bench"]))?;
    let mut peer = criu.map(|criu| Peer::new(&world, criu, &memory.0.join("criu"), kind, arguments)).transpose()?;
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for _ in 0..runs {
        ours.push(timed(&mut crctl(&["restore", &copy_path, "--name", "bench", "--run"]))?);
        program.goes_on(1);
        timed(&mut crctl(&["kill", "bench"]))?;
        if let Some(peer) = &mut peer {
            theirs.push(peer.restore()?);
        }
    }
    let ours = median(ours);
    println!("{what}: checkpoint {}, restore {}", milliseconds(saved), milliseconds(ours));
    if let Some(peer) = &peer {
        let theirs = median(theirs);
        println!(
            "    criu: dump {}, restore {}: crfs restores in {:.2} of its time",
            milliseconds(peer.dumped),
            milliseconds(theirs),
            ours.as_secs_f64() / theirs.as_secs_f64()
        );
    }
    Ok(())
}

/// The same program outside of any container, under CRIU. It leads a session, so that it can be ended as a group.
struct Peer {
    criu: PathBuf,
    images: PathBuf,
    program: Program,
    pid: Pid,
    dumped: Duration,
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
        let mut child = command.spawn()?;
        let pid = Pid::from_raw(i32::try_from(child.id())?);
        let mut peer = Peer { criu: criu.to_owned(), images: images.to_owned(), program, pid, dumped: Duration::ZERO };
        peer.program.goes_on(3);
        peer.dumped = timed(peer.command("dump").args(["--tree", &pid.to_string()]))?;
        child.wait()?;
        Ok(peer)
    }

    fn command(&self, action: &str) -> Command {
        let mut command = Command::new(&self.criu);
        command.arg(action).arg("--images-dir").arg(&self.images);
        command
    }

    fn restore(&mut self) -> Result<Duration> {
        let took = timed(self.command("restore").arg("--restore-detached"))?;
        self.program.goes_on(1);
        self.end();
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
