//! Puppets in a cgroup, and what capture says about them.

use crfs::freezer::Cgroup;
use crfs::resource::Findings;
use crfs::resource::descriptor::{self, Descriptors, TableOf, Whose};
use crfs::resource::met::Met;
use crfs::resource::mount::{Roots, Views};
use crfs::resource::unnamed::Made;
use crfs_kstate::KernelState;
use crfs_sys::HostPid;
use crfs_sys::puppet::{Arg, Puppet, Stage, Step};
use image_format::files::{File, FileKind};
use image_format::image::TextSource;
use image_format::{FileId, Image, Pid};
use std::collections::BTreeMap;
use std::fs;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(20);

/// The processes of the golden image, which the captured descriptors are put into.
pub(crate) const FIRST: Pid = Pid(1);
pub(crate) const SECOND: Pid = Pid(0x3002);

/// A list of calls. The descriptors of a puppet count from 0: it closes all it inherits first.
pub(crate) struct Script {
    stage: Stage,
    steps: Vec<Step>,
}

impl Script {
    pub(crate) fn new() -> Self {
        let close_all = Step::call(libc::SYS_close_range, [0, u64::from(u32::MAX)]);
        Script { stage: Stage::new().unwrap(), steps: vec![close_all] }
    }

    /// One that keeps what it inherits.
    pub(crate) fn bare() -> Self {
        Script { stage: Stage::new().unwrap(), steps: Vec::new() }
    }

    /// Bytes the calls can point to.
    pub(crate) fn place(&mut self, bytes: &[u8]) -> u64 {
        self.stage.place(bytes).unwrap()
    }

    pub(crate) fn call<const N: usize>(&mut self, number: libc::c_long, args: [u64; N]) -> &mut Self {
        self.steps.push(Step::call(number, args));
        self
    }

    pub(crate) fn open(&mut self, path: &Path, flags: i32) -> &mut Self {
        let mut text = path.to_str().unwrap().as_bytes().to_vec();
        text.push(0);
        let path = self.place(&text);
        self.call(libc::SYS_open, [path, flags.unsigned_abs().into(), 0o600])
    }

    /// Starts the puppet and waits until all calls were made; each must have succeeded.
    pub(crate) fn start(mut self) -> Puppet {
        self.steps.push(Step::call_with(libc::SYS_pause, [] as [Arg; 0]));
        let calls = self.steps.len() - 1;
        let puppet = self.stage.fork(libc::SIGCHLD, false, &self.steps).unwrap();
        let end = Instant::now() + PATIENCE;
        while puppet.begun() <= calls {
            assert!(Instant::now() < end, "the puppet hangs in step {}", puppet.begun());
            std::thread::sleep(Duration::from_millis(1));
        }
        for step in 0..calls {
            let result = puppet.result(step).unwrap();
            assert!(result >= 0, "step {step}, {:?}: {result}", self.steps[step]);
        }
        puppet
    }
}

/// A puppet that has what `open` says, and nothing else.
pub(crate) fn holding(open: impl IntoIterator<Item = i32>) -> Puppet {
    let mut kept: Vec<i32> = open.into_iter().collect();
    kept.sort_unstable();
    let mut script = Script::bare();
    let mut from = 0;
    for fd in kept {
        let fd = u64::try_from(fd).unwrap();
        if fd > from {
            script.call(libc::SYS_close_range, [from, fd - 1]);
        }
        from = fd + 1;
    }
    script.call(libc::SYS_close_range, [from, u64::from(u32::MAX)]);
    script.start()
}

/// A cgroup and a directory that go with the test.
pub(crate) struct World {
    pub(crate) dir: tempfile::TempDir,
    cgroup: Cgroup,
}

impl World {
    pub(crate) fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("crfs-test-descriptor-{}-{number}", std::process::id());
        let mounts = procfs::process::Process::myself().unwrap().mountinfo().unwrap();
        let cgroups = mounts.0.into_iter().find(|mount| mount.fs_type == "cgroup2").expect("cgroup v2 is mounted");
        let cgroup = Cgroup::at(cgroups.mount_point.join(name));
        cgroup.create().unwrap();
        let world = World { dir: tempfile::tempdir().unwrap(), cgroup };
        fs::write(world.log(), "").unwrap();
        world
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// A file with this content.
    pub(crate) fn file(&self, name: &str, content: &[u8]) -> PathBuf {
        let path = self.path(name);
        fs::write(&path, content).unwrap();
        path
    }

    pub(crate) fn log(&self) -> PathBuf {
        self.path("log")
    }

    /// Captures puppets, the first as [`FIRST`] and the second as [`SECOND`]: frozen, traced, kernel memory at hand.
    pub(crate) fn capture(&self, puppets: &[&Puppet]) -> (Descriptors, Findings) {
        self.capture_with(KernelState::open_calibrated, puppets)
    }

    /// The same with a reader of kernel memory that nothing is read from: before calibration every feature is off.
    pub(crate) fn capture_blind(&self, puppets: &[&Puppet]) -> (Descriptors, Findings) {
        self.capture_with(KernelState::open, puppets)
    }

    fn capture_with(
        &self,
        open: fn(Option<&Path>) -> Result<KernelState, crfs_kstate::Error>,
        puppets: &[&Puppet],
    ) -> (Descriptors, Findings) {
        let processes = processes(puppets);
        for (_, host) in &processes {
            fs::write(self.cgroup.path().join("cgroup.procs"), host.to_string()).unwrap();
        }
        self.cgroup.freeze(PATIENCE).unwrap();
        let tids = processes.iter().map(|&(_, host)| HostPid::new(host)).collect();
        let stopped = crfs_tracee::stop_all(tids, Instant::now() + PATIENCE).stopped;
        assert_eq!(stopped.len(), puppets.len());
        let state = open(None).unwrap();
        let tasks = state.tracees().unwrap_or_default();
        let mut findings = Findings::default();
        let captured = descriptor::capture(
            Whose {
                tables: &tables(&processes),
                processes: &processes,
                init: processes[0].1,
                ipc: &[],
                external: &[],
                views: &Views::default(),
            },
            Some((&state, &tasks)),
            &root(puppets),
            &self.log(),
            None,
            &mut Met::new(),
            &mut findings,
        )
        .unwrap();
        for tracee in stopped {
            tracee.detach().unwrap();
        }
        self.cgroup.thaw().unwrap();
        (captured, findings)
    }

    /// What stands in the way of running puppets.
    pub(crate) fn survey(&self, puppets: &[&Puppet]) -> Findings {
        self.look(puppets).1
    }

    /// The records as far as they are told without the kernel's memory.
    pub(crate) fn compare(&self, puppets: &[&Puppet]) -> Descriptors {
        self.look(puppets).0
    }

    fn look(&self, puppets: &[&Puppet]) -> (Descriptors, Findings) {
        look(&processes(puppets), &root(puppets), &self.log())
    }

    /// Captures, and asserts that nothing stands in the way.
    pub(crate) fn capture_all(&self, puppets: &[&Puppet]) -> Descriptors {
        let (captured, findings) = self.capture(puppets);
        assert_eq!(findings, Findings::default());
        captured
    }

    /// An image with these descriptors, its text on disk read back. `files/pipe.N` are written beside.
    pub(crate) fn image(&self, captured: &Descriptors) -> Image {
        let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("../image-format/tests/golden");
        let mut image = Image::parse(&Directory(golden)).unwrap();
        image.files = captured.files.clone();
        image.stdios = captured.stdios.clone();
        image.locks = captured.locks.clone();
        for (pid, process) in &mut image.processes {
            process.fds = captured.fds.get(pid).cloned().unwrap_or_default();
        }
        image.manifest.paths = image.paths();
        let mut text = image.render();
        text.insert("manifest".to_owned(), image_format::render_object(&image.manifest));
        assert_eq!(Image::parse(&text).unwrap(), image);
        fs::create_dir_all(self.path("files")).unwrap();
        for (&pipe, data) in &captured.pipes {
            fs::write(self.path(&image_format::layout::pipe_data(pipe)), data).unwrap();
        }
        image
    }

    /// Opens everything of an image in this process.
    pub(crate) fn open_all(
        &self,
        image: &Image,
        notes: &mut Vec<String>,
    ) -> Result<BTreeMap<FileId, OwnedFd>, crfs::failure::Failure> {
        let root = fs::File::open("/").unwrap();
        descriptor::open_all(image, self.dir.path(), &Roots::only(root.as_fd()), &self.log(), &Made::default(), notes)
            .map(|opened| opened.files)
    }

    /// Restores into a puppet and captures that: the records under the ids of the first capture.
    pub(crate) fn again(&self, image: &Image) -> (BTreeMap<FileId, File>, BTreeMap<u32, Vec<u8>>) {
        let mut notes = Vec::new();
        let open = self.open_all(image, &mut notes).unwrap();
        assert_eq!(notes, Vec::<String>::new());
        assert_eq!(open.keys().collect::<Vec<_>>(), image.files.keys().collect::<Vec<_>>());
        register(image, &open);
        let puppet = holding(open.values().map(AsRawFd::as_raw_fd));
        let captured = self.capture_all(&[&puppet]);
        let number = |id: FileId| u32::try_from(open[&id].as_raw_fd()).unwrap();
        let new_id = |id: FileId| captured.fds[&FIRST].iter().find(|fd| fd.fd == number(id)).unwrap().file;
        let old_id: BTreeMap<FileId, FileId> = open.keys().map(|&id| (new_id(id), id)).collect();
        assert_eq!(old_id.len(), open.len(), "each description is one of its own");
        let mut pipes = BTreeMap::new();
        let files = old_id.iter().map(|(new, &old)| {
            let mut file = captured.files[new].clone();
            match (&mut file.kind, &image.files[&old].kind) {
                (FileKind::Pipe(pipe), FileKind::Pipe(was)) => {
                    pipes.insert(was.pipe, captured.pipes[&pipe.pipe].clone());
                    pipe.pipe = was.pipe;
                }
                (FileKind::Epoll(epoll), FileKind::Epoll(was)) => {
                    for target in &mut epoll.targets {
                        target.file = old_id[&target.file];
                        target.fd = was.targets.iter().find(|old| old.file == target.file).unwrap().fd;
                    }
                    epoll.targets.sort_by_key(|target| target.fd);
                }
                _ => {}
            }
            (old, file)
        });
        (files.collect(), pipes)
    }
}

impl Drop for World {
    fn drop(&mut self) {
        // The puppets were dropped before; what cannot be cleaned up has nobody to tell.
        let _ = self.cgroup.remove(PATIENCE);
    }
}

fn tables(processes: &[(Pid, i32)]) -> Vec<TableOf> {
    processes.iter().map(|&(pid, host)| TableOf::process(pid, host)).collect()
}

fn processes(puppets: &[&Puppet]) -> Vec<(Pid, i32)> {
    [FIRST, SECOND].into_iter().zip(puppets.iter().map(|puppet| puppet.pid().as_raw())).collect()
}

/// What the restored processes would do themselves.
fn register(image: &Image, open: &BTreeMap<FileId, OwnedFd>) {
    use nix::sys::epoll::{Epoll, EpollEvent, EpollFlags};
    for registration in crfs::resource::epoll::registrations(image).unwrap().in_place {
        let fds = &image.processes[&registration.owner].fds;
        let file = |fd: u32| fds.iter().find(|entry| entry.fd == fd).unwrap().file;
        let epoll = Epoll(open[&file(registration.epfd)].try_clone().unwrap());
        let events = EpollFlags::from_bits_retain(registration.watch.events.cast_signed());
        epoll.add(&open[&file(registration.watch.fd)], EpollEvent::new(events, registration.watch.data)).unwrap();
    }
}

/// Text files on disk.
struct Directory(PathBuf);

impl TextSource for Directory {
    fn read(&self, path: &str) -> Result<Option<Vec<u8>>, String> {
        Ok(fs::read(self.0.join(path)).ok())
    }
}

/// Where the first of them has its root directory.
fn root(puppets: &[&Puppet]) -> PathBuf {
    PathBuf::from(format!("/proc/{}/root", puppets[0].pid()))
}

/// What is told of processes that may run.
pub(crate) fn look(processes: &[(Pid, i32)], root: &Path, log: &Path) -> (Descriptors, Findings) {
    let mut findings = Findings::default();
    let whose = Whose {
        tables: &tables(processes),
        processes,
        init: processes[0].1,
        ipc: &[],
        external: &[],
        views: &Views::default(),
    };
    let captured = descriptor::capture(whose, None, root, log, None, &mut Met::new(), &mut findings);
    (captured.unwrap(), findings)
}
