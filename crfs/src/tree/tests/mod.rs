//! The tree over a made-up registry, with operations that only move files. What is frozen is real: a sleeping child, whose
//! memory is read and whose CPU clock is watched, behind a directory that looks like its cgroup.
#![allow(clippy::unwrap_used)]

mod frozen;
mod incoming;
mod other;

use super::{HandleId, NodeId, Operations, Tree};
use crate::failure::{Failure, Kind};
use crate::operation::FreezeOptions;
use crate::registry::{Live, LiveProcess, Record, Registry, State, Status};
use image_format::manifest::{Clocks, Container, Cpu, Kernel, Manifest, PathEntry, PathKind};
use image_format::memory::{Backing, ChunkSum, Fixed, PageRange, Protection, Segment, SegmentFlags, Source, checksum};
use image_format::{Address, Blocker, Bytes, Hex, Pid, Timespec, layout, render_lines, render_object};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

pub(crate) const PROCESS: &str = "0x00000001";
const PAGE: u64 = 4096;

/// A registry in a directory that goes away with it, and a tree over it.
pub(crate) struct World {
    dir: tempfile::TempDir,
    pub(crate) registry: Registry,
    pub(crate) fake: Fake,
    pub(crate) tree: Tree,
}

impl World {
    pub(crate) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let registry = Registry::at(dir.path().join("run"), dir.path().join("pages"));
        let fake = Fake(Arc::new(Shared {
            registry: registry.clone(),
            cgroup: dir.path().join("cgroup"),
            builds: AtomicUsize::new(0),
        }));
        fake.frozen(true);
        let tree = Tree::new(registry.clone(), fake.clone());
        World { dir, registry, fake, tree }
    }

    /// A tree that knows nothing of what the first one saw: what a server that starts again has.
    pub(crate) fn restart(&mut self) {
        self.tree = Tree::new(self.registry.clone(), self.fake.clone());
    }

    pub(crate) fn node(&self, path: &str) -> NodeId {
        self.try_node(path).unwrap_or_else(|errno| panic!("{path}: {errno}"))
    }

    pub(crate) fn try_node(&self, path: &str) -> nix::Result<NodeId> {
        let parts = path.split('/').filter(|part| !part.is_empty());
        parts.into_iter().try_fold(NodeId::ROOT, |at, part| Ok(self.tree.lookup(at, part)?.attr.node))
    }

    pub(crate) fn names(&self, path: &str) -> Vec<String> {
        let opened = self.tree.open_directory(self.node(path)).unwrap();
        let entries = self.tree.entries(opened.handle).unwrap();
        self.tree.release(opened.handle);
        entries.iter().map(|listed| listed.name.clone()).collect()
    }

    pub(crate) fn open(&self, path: &str) -> nix::Result<HandleId> {
        Ok(self.tree.open(self.try_node(path)?, false, false).finish()?.handle)
    }

    /// Reads a file in steps of `size` bytes.
    pub(crate) fn read_by(&self, path: &str, size: usize) -> nix::Result<Vec<u8>> {
        let handle = self.open(path)?;
        let mut bytes = Vec::new();
        let result = loop {
            match self.tree.read(handle, bytes.len() as u64, size).finish() {
                Ok(data) if data.as_ref().is_empty() => break Ok(bytes),
                Ok(data) => bytes.extend_from_slice(data.as_ref()),
                Err(errno) => break Err(errno),
            }
        };
        self.tree.release(handle);
        result
    }

    pub(crate) fn read(&self, path: &str) -> nix::Result<Vec<u8>> {
        self.read_by(path, 1 << 20)
    }

    /// Makes or overwrites a file, as cp does: create, write, close.
    pub(crate) fn put(&self, path: &str, bytes: &[u8]) -> nix::Result<()> {
        let (parent, name) = path.rsplit_once('/').unwrap();
        let parent = self.node(parent);
        let handle = match self.tree.lookup(parent, name) {
            Ok(entry) => self.tree.open(entry.attr.node, true, true).finish()?.handle,
            Err(_) => self.tree.create(parent, name, 0o600, true)?.1.handle,
        };
        for (at, part) in (0..).zip(bytes.chunks(1 << 20)) {
            assert_eq!(self.tree.write(handle, at << 20, part).finish()?, part.len());
        }
        let result = self.tree.flush(handle).finish();
        self.tree.release(handle);
        result
    }

    pub(crate) fn make_directory(&self, path: &str) -> nix::Result<NodeId> {
        let (parent, name) = path.rsplit_once('/').unwrap_or(("", path));
        Ok(self.tree.make_directory(self.node(parent), name, 0o700)?.attr.node)
    }

    pub(crate) fn path(&self) -> &Path {
        self.dir.path()
    }
}

/// Operations without tasks.
#[derive(Clone)]
pub(crate) struct Fake(Arc<Shared>);

pub(crate) struct Shared {
    registry: Registry,
    cgroup: PathBuf,
    pub(crate) builds: AtomicUsize,
}

impl Fake {
    pub(crate) fn builds(&self) -> usize {
        self.0.builds.load(Ordering::Relaxed)
    }

    /// Writes what cgroup.events says.
    pub(crate) fn frozen(&self, frozen: bool) {
        fs::create_dir_all(&self.0.cgroup).unwrap();
        let text = format!("populated 1\nfrozen {}\n", u8::from(frozen));
        fs::write(self.0.cgroup.join("cgroup.events"), text).unwrap();
    }

    pub(crate) fn record(&self, name: &str, state: State) -> Record {
        Record {
            name: name.to_owned(),
            state,
            generation: self.0.registry.next_generation().unwrap(),
            cgroup: self.0.cgroup.clone(),
            created: 1_700_000_000,
            command: Vec::new(),
            root: None,
            host_namespaces: BTreeSet::new(),
            added: false,
            stub_init: None,
            init: None,
            exit_status: None,
            inspect: false,
            restored: false,
        }
    }

    /// Writes a record of this state, as another program would.
    pub(crate) fn set_state(&self, name: &str, state: State) {
        let container = self.0.registry.container(name).unwrap();
        let record = container.record().unwrap().unwrap_or_else(|| self.record(name, state));
        container.write_record(&Record { state, ..record }).unwrap();
    }
}

impl Operations for Fake {
    fn state(&self, name: &str) -> Result<(State, Record), Failure> {
        let record = self.0.registry.container(name)?.existing()?;
        Ok((record.state, record))
    }
    fn freeze(&self, name: &str, options: FreezeOptions) -> Result<Status, Failure> {
        if options.deadline < Duration::from_secs(1) {
            return Err(Failure::new(Kind::Deadline, "too short"));
        }
        self.set_state(name, State::Frozen);
        Ok(Status::default())
    }
    fn thaw(&self, name: &str) -> Result<Status, Failure> {
        self.set_state(name, State::Running);
        Ok(Status { operation: "thaw".into(), ..Status::default() })
    }
    fn survey(&self, _: &str) -> Result<Vec<Blocker>, Failure> {
        Ok(vec![Blocker::new("0x00000001/fds: 3", "is a socket", "close it")])
    }
    /// Moves the text files to `image`. Refuses a `process` file that says so.
    fn build(&self, name: &str) -> Result<Status, Failure> {
        self.0.builds.fetch_add(1, Ordering::Relaxed);
        let container = self.0.registry.container(name)?;
        let process = fs::read_to_string(container.staging_dir().join(PROCESS).join("process")).unwrap();
        if process.contains("refuse") {
            self.set_state(name, State::Failed);
            return Err(Failure::new(Kind::BadImage, "0x00000001/process: line 1: refused"));
        }
        let walked = super::staging::walk(&container.staging_dir()).unwrap();
        let made = [layout::MEM_PAGES, layout::MEM_SUMS, layout::CONTENTS_SUMS];
        let text = |path: &String| !made.iter().any(|name| path.ends_with(name));
        let content = |path: &String| fs::read(container.staging_dir().join(path)).ok();
        let files: BTreeMap<String, Option<Vec<u8>>> =
            walked.into_keys().filter(text).map(|path| (path.clone(), content(&path))).collect();
        write_captured(&container, &files);
        fs::remove_dir_all(container.staging_dir()).unwrap();
        fs::rename(container.dir().join("live.new"), container.dir().join("live.json")).unwrap();
        self.set_state(name, State::Frozen);
        Ok(Status::default())
    }
    fn remove(&self, name: &str) -> Result<(), Failure> {
        fs::remove_dir_all(self.0.registry.container(name)?.dir()).unwrap();
        Ok(())
    }
    fn incoming(&self, name: &str) -> Result<Record, Failure> {
        let container = self.0.registry.container(name)?;
        let record = self.record(name, State::Incoming);
        container.write_record(&record)?;
        Ok(record)
    }
}

/// A child that sleeps, and what its `mem.pages` must hold.
pub(crate) struct Sleeper {
    child: Child,
    pub(crate) segments: Vec<Segment>,
    pub(crate) pages: Vec<u8>,
}

const PROGRAM: &str = "
import ctypes, mmap, sys, time
def area(pages, seed):
    m = mmap.mmap(-1, pages * 4096, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    for page in range(pages):
        m[page * 4096:(page + 1) * 4096] = bytes((seed + page * 7 + i) % 251 for i in range(64)) * 64
    return m, ctypes.addressof(ctypes.c_char.from_buffer(m))
a, b, c = area(700, 1), area(1, 5), area(3, 9)
libc = ctypes.CDLL(None)
assert libc.mprotect(ctypes.c_void_p(c[1]), 3 * 4096, 0) == 0
print(a[1], b[1], c[1], flush=True)
sys.stdin.readline()
sum(range(200000))
print('ran', flush=True)
time.sleep(1000)
";

impl Sleeper {
    /// 704 pages in three mappings, the last without read permission, in an order of their own.
    pub(crate) fn start() -> Self {
        let mut child =
            Command::new("python3").args(["-c", PROGRAM]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
        let at: Vec<u64> = line.split_whitespace().map(|word| word.parse().unwrap()).collect();
        let mut segments = Vec::new();
        let mut pages = Vec::new();
        // First the one without permission, then the two others: by their place in the file, not in memory.
        for (start, count, seed) in [(at[2], 3, 9), (at[0], 700, 1), (at[1], 1, 5)] {
            let first = pages.len() as u64 / PAGE;
            for page in 0..count {
                let one: Vec<u8> = (0..64).map(|i| u8::try_from((seed + page * 7 + i) % 251).unwrap()).collect();
                (0..64).for_each(|_| pages.extend_from_slice(&one));
            }
            let range = PageRange { start: Address(start), count, source: Source::Own(first) };
            segments.push(Segment {
                start: Address(start),
                end: Address(start + count * PAGE),
                protection: Protection(3),
                shared: false,
                flags: SegmentFlags(0),
                backing: Backing::Anonymous,
                pages: vec![range],
            });
        }
        let sleeper = Sleeper { child, segments, pages };
        sleeper.settle();
        sleeper
    }

    /// Waits until its clock stands still.
    fn settle(&self) {
        let end = Instant::now() + Duration::from_secs(10);
        loop {
            let before = self.clock();
            std::thread::sleep(Duration::from_millis(20));
            if self.clock() == before {
                return;
            }
            assert!(Instant::now() < end, "the child does not come to rest");
        }
    }

    fn clock(&self) -> u64 {
        let pid = nix::unistd::Pid::from_raw(self.host_pid());
        u64::try_from(crfs_sys::time::process_cpu_ns(pid).unwrap()).unwrap()
    }

    fn host_pid(&self) -> i32 {
        self.child.id().cast_signed()
    }

    /// Lets it do something.
    pub(crate) fn run(&mut self) {
        use std::io::Write;
        self.child.stdin.as_mut().unwrap().write_all(b"\n").unwrap();
        let mut line = String::new();
        BufReader::new(self.child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
        assert_eq!(line, "ran\n");
    }

    pub(crate) fn live(&self) -> Live {
        let process = LiveProcess { pid: Pid(1), host_pid: self.host_pid(), cpu_ns: self.clock() };
        Live { processes: vec![process], thawed: None, contents: Vec::new() }
    }

    pub(crate) fn sums(&self) -> Vec<u8> {
        let sum = |(chunk, bytes): (u64, &[u8])| ChunkSum { chunk: Fixed(chunk), xxh3: Fixed(checksum(bytes)) };
        render_lines(&(0..).zip(self.pages.chunks(1 << 20)).map(sum).collect::<Vec<_>>())
    }

    /// The files of an image of it, but for page contents and sums, and only as much as the tree looks at.
    pub(crate) fn text_files(&self) -> BTreeMap<String, Vec<u8>> {
        let mut files = BTreeMap::from([
            ("files/stdios".to_owned(), render_lines::<Hex>(&[])),
            ("files/pipe.1".to_owned(), b"queued".to_vec()),
            ("sysv.shm".to_owned(), render_lines::<Hex>(&[])),
            (format!("{PROCESS}/process"), render_object(&"sleeper")),
            (format!("{PROCESS}/mem.segments"), render_lines(&self.segments)),
            (format!("{PROCESS}/{PROCESS}/attr"), render_object(&"thread")),
        ]);
        let entry = |path: &str, size| PathEntry { path: path.to_owned(), kind: layout::kind(path).unwrap(), size };
        let raw = |path: &str, bytes: &[u8]| (layout::kind(path) == Some(PathKind::Raw)).then_some(bytes.len() as u64);
        let mut paths: Vec<PathEntry> = files.iter().map(|(path, bytes)| entry(path, raw(path, bytes))).collect();
        paths.extend(["files", PROCESS, &format!("{PROCESS}/{PROCESS}")].map(|path| entry(path, None)));
        paths.push(entry(&format!("{PROCESS}/mem.pages"), Some(self.pages.len() as u64)));
        paths.push(entry(&format!("{PROCESS}/mem.sums"), None));
        paths.push(entry(layout::CONTENTS_SUMS, None));
        paths.sort();
        files.insert(layout::MANIFEST.to_owned(), render_object(&manifest(paths)));
        files
    }

    /// Every file of an image of it.
    pub(crate) fn files(&self) -> BTreeMap<String, Vec<u8>> {
        let mut files = self.text_files();
        files.insert(format!("{PROCESS}/mem.pages"), self.pages.clone());
        files.insert(format!("{PROCESS}/mem.sums"), self.sums());
        files.insert(layout::CONTENTS_SUMS.to_owned(), render_lines::<Hex>(&[]));
        files
    }

    /// Makes a frozen container of it, as a freeze leaves one.
    pub(crate) fn freeze(&self, world: &World, name: &str) {
        let container = world.registry.container(name).unwrap();
        write_captured(&container, &with_directories(self.text_files()));
        container.write_live(&self.live()).unwrap();
        container.write_record(&world.fake.record(name, State::Frozen)).unwrap();
    }
}

/// The files of an image with its directories.
pub(crate) fn with_directories(files: BTreeMap<String, Vec<u8>>) -> BTreeMap<String, Option<Vec<u8>>> {
    let mut all: BTreeMap<String, Option<Vec<u8>>> =
        files.into_iter().map(|(path, bytes)| (path, Some(bytes))).collect();
    for directory in ["files".to_owned(), PROCESS.to_owned(), format!("{PROCESS}/{PROCESS}")] {
        all.insert(directory, None);
    }
    all
}

pub(crate) fn write_captured(container: &crate::registry::Container, files: &BTreeMap<String, Option<Vec<u8>>>) {
    let entries = files.iter().map(|(path, bytes)| (path.as_str(), bytes.as_deref()));
    fs::create_dir_all(container.dir()).unwrap();
    crate::captured::write(&container.image_file(), entries).unwrap();
}

impl Drop for Sleeper {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn manifest(paths: Vec<PathEntry>) -> Manifest {
    let time = Timespec { sec: 0, nsec: 0 };
    Manifest {
        format: image_format::manifest::FORMAT_VERSION,
        generator: "test".into(),
        name: "vs1".into(),
        architecture: "x86_64".into(),
        page_size: PAGE,
        kernel: Kernel { release: "6.18".into(), vdso: Hex(0), vdso_size: 0 },
        cpu: Cpu { xfeatures: Hex(0), xsave_size: 0, flags: Vec::new() },
        clocks: Clocks { realtime: time, monotonic: time, boottime: time },
        container: Container {
            root: None,
            host_namespaces: BTreeSet::new(),
            hostname: Bytes(vec![]),
            domainname: Bytes(vec![]),
            loopback: true,
        },
        parent: None,
        paths,
    }
}
