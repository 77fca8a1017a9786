//! A place of its own for a test: run directory, cgroup parent, mount point, server, containers.
//!
//! Whatever a test does, also when it panics, dropping the [`World`] ends its processes and removes its cgroups, mounts and files.
//! Nothing here waits without a deadline. Failures panic with what was being done: this is a harness, and its callers are tests.

mod command;
mod copy;
mod huge_pool;
mod leftovers;
mod program;
mod small_disk;
mod steps;

pub use command::{Outcome, run, wait_for};
pub use copy::{Method, copy_program, copy_tree, edit_line, edit_object, files_of, read_tree};
pub use huge_pool::HugePool;
pub use leftovers::Leftovers;
pub use program::{Program, python};
pub use small_disk::SmallDisk;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::AtomicU32;
use std::time::Duration;
use tempfile::TempDir;

/// How long a single command may take before the test fails.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// See the module.
#[derive(Debug)]
pub struct World {
    dir: TempDir,
    server: Option<Child>,
    /// Run directory of containers; under `dir` unless the test gave another.
    run_dir: PathBuf,
    copies: AtomicU32,
    environment: Vec<(String, String)>,
}

impl World {
    /// A world with a running server.
    ///
    /// # Panics
    /// When the machine lacks what crfs needs, saying what; or when the server does not start.
    #[must_use]
    #[allow(clippy::new_without_default)] // starts processes: nothing to be had by accident
    pub fn new() -> Self {
        let mut world = World::without_server();
        world.start_server();
        world
    }

    /// A world in which no server runs.
    ///
    /// # Panics
    /// As [`World::new`].
    #[must_use]
    pub fn without_server() -> Self {
        require_machine();
        let dir = tempfile::Builder::new().prefix("crfs-test-").tempdir().expect("a temporary directory");
        let world = World {
            run_dir: dir.path().join("run"),
            dir,
            server: None,
            copies: AtomicU32::new(0),
            environment: Vec::new(),
        };
        // A victim that gave up root must reach its files.
        let open = |path: &Path, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode));
        open(world.dir(), 0o755).expect("opening the world");
        for sub in ["mnt", "out", "bin", "backup", "pages"] {
            fs::create_dir(world.dir().join(sub)).expect("a directory of the world");
        }
        open(&world.out(), 0o777).expect("opening the output directory");
        world
    }

    /// A world whose run directory is this one, which the caller removes.
    ///
    /// # Panics
    /// As [`World::new`].
    #[must_use]
    pub fn with_run_dir(run_dir: &Path) -> Self {
        let mut world = World::without_server();
        world.run_dir = run_dir.to_owned();
        world.start_server();
        world
    }

    /// The directory of everything in this world.
    #[must_use]
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// The mount point.
    #[must_use]
    pub fn mount(&self) -> PathBuf {
        self.dir().join("mnt")
    }

    /// The tree of a container.
    #[must_use]
    pub fn tree(&self, name: &str) -> PathBuf {
        self.mount().join(name)
    }

    /// The cgroup of a container.
    ///
    /// # Panics
    /// Where cgroup v2 is not mounted.
    #[must_use]
    pub fn cgroup(&self, name: &str) -> PathBuf {
        let mount = leftovers::cgroup_mount().expect("a mount of cgroup v2");
        mount.join(cgroup_parent(&self.run_dir)).join(name)
    }

    /// Where programs write their progress. Anybody may write here.
    #[must_use]
    pub fn out(&self) -> PathBuf {
        self.dir().join("out")
    }

    /// The run directory: `/run/crfs` of this world.
    #[must_use]
    pub fn run_dir(&self) -> &Path {
        &self.run_dir
    }

    /// The server's process, as long as this world started it and it was not taken away.
    ///
    /// # Panics
    /// When no server runs.
    #[must_use]
    pub fn server_pid(&self) -> u32 {
        self.server.as_ref().expect("a running server").id()
    }

    /// A command in this world's environment.
    #[must_use]
    pub fn command(&self, program: impl AsRef<Path>) -> Command {
        let mut command = Command::new(program.as_ref());
        command.env("CRFS_RUN_DIR", &self.run_dir).env("CRFS_STAGING_DIR", self.dir().join("pages"));
        command.envs(self.environment.iter().map(|(key, value)| (key, value)));
        command.stdin(Stdio::null()).current_dir(self.dir());
        command
    }

    /// Sets an environment variable for every command from now on, the server among them.
    pub fn set_environment(&mut self, key: &str, value: &str) {
        self.environment.push((key.to_owned(), value.to_owned()));
    }

    /// Starts the server in front and waits until the mount answers.
    ///
    /// # Panics
    /// When it does not within twenty seconds, with what it said.
    pub fn start_server(&mut self) {
        assert!(self.server.is_none(), "a server runs already");
        let log = self.dir().join("server.log");
        let file = fs::OpenOptions::new().create(true).append(true).open(&log).expect("the server's log");
        let mut command = self.command(binary("crfs"));
        command.arg("-f").arg(self.mount());
        // A group of its own: ^C in the terminal of the tests must reach the harness first.
        command.process_group(0).stdout(file.try_clone().expect("the server's log")).stderr(file);
        let mut child = command.spawn().expect("starting crfs");
        let up = wait_for(Duration::from_secs(20), || {
            if let Ok(Some(status)) = child.try_wait() {
                panic!("crfs ended with {status}: {}", fs::read_to_string(&log).unwrap_or_default());
            }
            leftovers::is_mounted(&self.mount()) && fs::read_dir(self.mount()).is_ok()
        });
        self.server = Some(child);
        assert!(up, "the mount does not answer: {}", fs::read_to_string(&log).unwrap_or_default());
    }

    /// Ends the server with a signal and waits for its end.
    ///
    /// # Panics
    /// When it does not end.
    pub fn stop_server(&mut self, signal: nix::sys::signal::Signal) -> std::process::ExitStatus {
        let mut child = self.server.take().expect("a running server");
        let pid = nix::unistd::Pid::from_raw(child.id().cast_signed());
        nix::sys::signal::kill(pid, signal).expect("signalling the server");
        let mut status = None;
        let ended = wait_for(Duration::from_secs(10), || {
            status = child.try_wait().expect("waiting for the server");
            status.is_some()
        });
        if !ended {
            self.server = Some(child);
            panic!("the server does not end on {signal}");
        }
        // A server that was killed leaves a dead mount behind.
        leftovers::unmount(&self.mount());
        status.expect("it ended")
    }
}

impl Drop for World {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = fs::read_to_string(self.dir().join("server.log")).unwrap_or_default();
            eprintln!("--- the server said:\n{log}---");
        }
        leftovers::remove_containers(self);
        if let Some(mut child) = self.server.take() {
            let pid = nix::unistd::Pid::from_raw(child.id().cast_signed());
            let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM);
            if !wait_for(Duration::from_secs(5), || matches!(child.try_wait(), Ok(Some(_)))) {
                let _ = child.kill();
                let _ = child.wait();
            }
        }
        leftovers::unmount(&self.mount());
        leftovers::remove_cgroups(self);
        leftovers::end_background_servers(self);
    }
}

/// The name of the cgroup that all containers of a run directory stand under.
fn cgroup_parent(run_dir: &Path) -> String {
    let plain = |c: char| if c.is_ascii_alphanumeric() { c } else { '-' };
    format!("crfs{}", run_dir.to_string_lossy().chars().map(plain).collect::<String>())
}

/// A binary of this workspace, from the directory that the tests themselves were built into (or CRFS_TEST_BIN_DIR). The first
/// call builds the binaries: cargo does so only for the package that is being tested.
///
/// # Panics
/// When it cannot be built.
#[must_use]
pub fn binary(name: &str) -> PathBuf {
    static DIRECTORY: OnceLock<PathBuf> = OnceLock::new();
    let directory = DIRECTORY.get_or_init(|| {
        if let Some(given) = std::env::var_os("CRFS_TEST_BIN_DIR") {
            return given.into();
        }
        let test = std::env::current_exe().expect("the test's own path");
        // target/PROFILE/deps/TEST, or target/PROFILE/PROGRAM for the benchmark.
        let mut directory = test.parent().expect("a directory");
        if directory.ends_with("deps") {
            directory = directory.parent().expect("a directory");
        }
        let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        cargo.args(["build", "--quiet", "--workspace", "--bins"]);
        if directory.ends_with("release") {
            cargo.arg("--release");
        }
        let built = run(cargo.current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/..")), Duration::from_secs(900));
        assert!(built.success(), "building the programs: {built}");
        directory.to_owned()
    });
    directory.join(name)
}

/// Fails with the reason where crfs cannot work at all: a test that skipped would pass for one that passed.
fn require_machine() {
    assert!(nix::unistd::geteuid().is_root(), "these tests need root: freezing, ptrace and mounting do");
    assert!(Path::new("/dev/fuse").exists(), "these tests need /dev/fuse");
    assert!(leftovers::cgroup_mount().is_some(), "these tests need a mounted cgroup v2 hierarchy");
}
