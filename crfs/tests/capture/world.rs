//! Containers in a registry of the test's own, captured by a worker.

use crfs::captured::{Captured, Entry};
use crfs::registry::{Live, Registry};
use crfs::worker::{ARGV0, Job, Report};
use image_format::{Image, ProcessImage};
use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(30);

/// One container; it is gone when this is dropped.
pub(crate) struct World {
    /// In memory, as /run is.
    run: tempfile::TempDir,
    name: &'static str,
}

/// `crctl`, built once: cargo builds only the binaries of the package under test.
fn crctl() -> &'static Path {
    static PATH: OnceLock<PathBuf> = OnceLock::new();
    PATH.get_or_init(|| {
        let server = Path::new(env!("CARGO_BIN_EXE_crfs"));
        let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        cargo.args(["build", "--quiet", "-p", "crctl"]);
        if !cfg!(debug_assertions) {
            cargo.arg("--release");
        }
        assert!(cargo.status().unwrap().success(), "crctl does not build");
        server.with_file_name("crctl")
    })
}

impl World {
    /// Runs a program as pid 1 of a container, and waits until its log says `ready`.
    pub(crate) fn start(name: &'static str, command: &[&str]) -> World {
        let world = World { run: tempfile::tempdir_in("/dev/shm").unwrap(), name };
        let mut run = world.crctl(&["run", name, "--"]);
        let status = run.args(command).stdout(Stdio::null()).status().unwrap();
        assert!(status.success(), "crctl run {command:?}: {status}");
        world.wait_for("ready");
        world
    }

    /// A Python program; `libc` is its C library.
    pub(crate) fn python(name: &'static str, program: &str) -> World {
        let program = format!(
            "import ctypes, mmap, os, signal, sys, threading, time\nlibc = ctypes.CDLL(None, use_errno=True)\n\
             def ready(): print('ready', flush=True)\n{program}"
        );
        World::start(name, &["/usr/bin/env", "python3", "-c", &program])
    }

    /// Waits until every task has got where it waits or has ended, seen three times in a row.
    pub(crate) fn at_rest(self) -> World {
        let end = Instant::now() + PATIENCE;
        let mut looks = 0;
        while looks < 3 {
            assert!(Instant::now() < end, "its tasks do not come to rest; the log: {}", self.log());
            std::thread::sleep(Duration::from_millis(10));
            looks = if self.waits() { looks + 1 } else { 0 };
        }
        self
    }

    fn waits(&self) -> bool {
        let threads = fs::read_to_string(self.cgroup().join("cgroup.threads")).unwrap();
        threads.lines().all(|tid| {
            // One that has ended meanwhile rests as well.
            let stat = fs::read_to_string(format!("/proc/{tid}/stat")).unwrap_or_default();
            stat.rsplit_once(") ").is_none_or(|(_, rest)| rest.starts_with(['S', 'T', 't', 'Z', 'X']))
        })
    }

    fn command(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        command
            .env("CRFS_RUN_DIR", self.run.path())
            .env("CRFS_STAGING_DIR", self.run.path().join("staging-pages"))
            .env_remove("CRFS_KSTATE_FAULT");
        command
    }

    fn crctl(&self, arguments: &[&str]) -> Command {
        let mut command = self.command(crctl());
        command.args(arguments);
        command
    }

    pub(crate) fn dir(&self) -> PathBuf {
        self.run.path().join(self.name)
    }

    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.dir().join("log")).unwrap_or_default()
    }

    /// Waits for a word in the log.
    pub(crate) fn wait_for(&self, word: &str) {
        let end = Instant::now() + PATIENCE;
        while !self.log().contains(word) {
            assert!(Instant::now() < end, "{word:?} does not come; the log: {}", self.log());
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// Starts a worker with a job.
    pub(crate) fn worker(&self, job: &Job, environment: &[(&str, &str)]) -> Child {
        let mut command = self.command(Path::new(env!("CARGO_BIN_EXE_crfs")));
        command.arg0(ARGV0).envs(environment.iter().copied()).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        child.stdin.take().unwrap().write_all(&serde_json::to_vec(job).unwrap()).unwrap();
        child
    }

    fn report(&self, job: &Job, environment: &[(&str, &str)]) -> Report {
        let output = self.worker(job, environment).wait_with_output().unwrap();
        serde_json::from_slice(&output.stdout).unwrap()
    }

    pub(crate) fn capture_job(&self, inspect: bool) -> Job {
        Job::Capture { name: self.name.to_owned(), deadline_ms: 10_000, inspect, external: Vec::new() }
    }

    /// Captures; the container stays frozen if that succeeds without obstacles.
    pub(crate) fn try_capture(&self, inspect: bool) -> Report {
        self.report(&self.capture_job(inspect), &[])
    }

    /// Captures in another environment.
    pub(crate) fn try_capture_with(&self, environment: &[(&str, &str)]) -> Report {
        self.report(&self.capture_job(false), environment)
    }

    /// Captures what must be free of obstacles, and finds nothing wrong with the image.
    pub(crate) fn capture(&self) -> Tree {
        let report = self.try_capture(false);
        assert_eq!((&report.failure, &report.blockers[..]), (&None, &[][..]));
        let tree = self.tree();
        let image = tree.image();
        let size = |path: &str| {
            let path = path.to_owned();
            let entry = image.manifest.paths.iter().find(|entry| entry.path == path)?;
            entry.size
        };
        let defects = image_format::check::image(&image, &size);
        assert!(defects.is_empty(), "{defects:#?}");
        tree
    }

    pub(crate) fn survey(&self) -> Report {
        self.report(&Job::Survey { name: self.name.to_owned() }, &[])
    }

    pub(crate) fn thaw(&self) {
        let report = self.report(&Job::Thaw { name: self.name.to_owned() }, &[]);
        assert_eq!(report.failure, None);
    }

    /// The files of the captured tree.
    pub(crate) fn tree(&self) -> Tree {
        let captured = Captured::open(&self.dir().join("image")).unwrap().unwrap();
        let files = captured.entries().filter(|(_, entry)| *entry != Entry::Directory);
        Tree(files.map(|(path, _)| (path.to_owned(), captured.read(path).unwrap())).collect())
    }

    pub(crate) fn live(&self) -> Live {
        serde_json::from_slice(&fs::read(self.dir().join("live.json")).unwrap()).unwrap()
    }

    pub(crate) fn cgroup(&self) -> PathBuf {
        let text = fs::read(self.dir().join("container.json")).unwrap();
        serde_json::from_slice::<crfs::registry::Record>(&text).unwrap().cgroup
    }

    pub(crate) fn is_frozen(&self) -> bool {
        fs::read_to_string(self.cgroup().join("cgroup.events")).unwrap().contains("frozen 1")
    }
}

impl Drop for World {
    fn drop(&mut self) {
        for verb in ["kill", "rm"] {
            // Whatever state the test left it in, as far as it got.
            let _ = self.crctl(&[verb, self.name]).stdout(Stdio::null()).stderr(Stdio::null()).status();
        }
        // The parent cgroup belongs to this registry alone.
        let text = self.run.path().to_string_lossy().into_owned();
        let tag: String = text.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect();
        let registry = Registry::from_environment();
        if let Ok(cgroup) = crfs::freezer::Cgroup::of(&registry, "x") {
            let base = cgroup.path().parent().and_then(Path::parent).map(|base| base.join(format!("crfs{tag}")));
            let _ = base.map(fs::remove_dir);
        }
    }
}

/// A captured tree.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Tree(pub(crate) BTreeMap<String, Vec<u8>>);

impl Tree {
    pub(crate) fn image(&self) -> Image {
        Image::parse(&self.0).unwrap()
    }

    pub(crate) fn process(&self, pid: u32) -> ProcessImage {
        self.image().processes[&image_format::Pid(pid)].clone()
    }

    /// Fails with the files that differ, but for the manifest, which holds clocks.
    #[track_caller]
    pub(crate) fn assert_same(&self, other: &Tree) {
        let names: Vec<&String> = self.0.keys().collect();
        assert_eq!(names, other.0.keys().collect::<Vec<_>>());
        for (path, bytes) in self.0.iter().filter(|(path, _)| *path != "manifest") {
            let other = &other.0[path];
            assert_eq!(String::from_utf8_lossy(bytes), String::from_utf8_lossy(other), "{path}");
        }
    }
}
