//! What is recorded of each kind of object.

use super::world::World;
use image_format::Pid;
use image_format::memory::{Backing, PageRange, Segment, Source};
use image_format::thread::Resume;
use image_format::timer::IntervalTimerKind;

fn segment_at(segments: &[Segment], address: u64) -> &Segment {
    segments.iter().find(|segment| (segment.start.0..segment.end.0).contains(&address)).unwrap()
}

fn number(log: &str, key: &str) -> u64 {
    log.lines().find_map(|line| line.strip_prefix(key)?.trim().parse().ok()).unwrap()
}

fn pages(segment: &Segment) -> Vec<(u64, u64, Source)> {
    let told = |range: &PageRange| (range.start.0 - segment.start.0, range.count, range.source.clone());
    segment.pages.iter().map(told).collect()
}

#[test]
fn a_sleep_has_the_time_that_remained() {
    let world = World::start("sleep", &["/bin/sh", "-c", "echo ready; exec sleep 1000"]).at_rest();
    let tree = world.capture();
    let process = tree.process(1);
    let call = process.threads[&Pid(1)].frame.syscall.clone().unwrap();
    assert_eq!(call.name, "clock_nanosleep");
    let Resume::Remaining(left) = call.resume else { panic!("{call:?}") };
    assert!((990..1000).contains(&left.sec), "{left:?}");
    assert_eq!(process.process.arguments.iter().map(|a| a.escaped()).collect::<Vec<_>>(), ["sleep", "1000"]);
    let image = tree.image();
    assert_eq!(image.manifest.container.hostname.escaped(), "sleep");
    assert!(image.manifest.kernel.vdso_size > 0 && image.manifest.cpu.xfeatures.0 & 3 == 3);
}

#[test]
fn waits_are_taken_up_again_as_each_was() {
    let world = World::python(
        "waits",
        "
import select
epoll = select.epoll()
poll = select.poll(); endless = select.poll()
lock = threading.Lock(); lock.acquire()
for wait in (lambda: epoll.poll(-1), lambda: poll.poll(500000), lambda: endless.poll(None), lambda: lock.acquire(timeout=900),
             lambda: signal.sigwait([40]), lambda: signal.sigtimedwait([41], 800)):
    threading.Thread(target=wait, daemon=True).start()
ready()
libc.pause()
",
    )
    .at_rest();
    let process = world.capture().process(1);
    let mut calls: Vec<(String, String)> = Vec::new();
    for thread in process.threads.values() {
        let call = thread.frame.syscall.clone().unwrap();
        let resume = match call.resume {
            Resume::Remaining(left) => format!("{} s", (left.sec + 99) / 100 * 100),
            Resume::Again => format!("again {}", thread.frame.registers.rax.0.cast_signed()),
            Resume::Ended => "ended".to_owned(),
            Resume::Vfork(child) => format!("vfork of {child}"),
        };
        calls.push((call.name, resume));
    }
    calls.sort();
    let expected = [
        ("epoll_wait", "again -514"),
        ("futex", "again -514"),
        ("pause", "again -514"),
        ("poll", "500 s"),
        ("poll", "again -514"),
        ("rt_sigtimedwait", "800 s"),
        ("rt_sigtimedwait", "again -514"),
    ];
    assert_eq!(calls, expected.map(|(name, how)| (name.to_owned(), how.to_owned())));
}

#[test]
fn only_pages_with_contents_are_named() {
    let world = World::python(
        "pages",
        "
import tempfile
P = 4096
def address(m): return ctypes.addressof(ctypes.c_char.from_buffer(m))
m = mmap.mmap(-1, 64 * P, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
m[3 * P] = 1; m[4 * P] = 1; m[60 * P] = 1
m[10 * P]  # reading maps the page of zeros
a = address(m)
libc.mprotect(ctypes.c_void_p(a), 64 * P, 0)
print('none', a)
big = mmap.mmap(-1, 10 << 30, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | 0x4000)
big[5 << 30] = 1
print('big', address(big))
path = '/tmp/crfs-capture-pages-%d' % time.monotonic_ns()
with open(path, 'wb') as f: f.write(b'x' * 8 * P)
f = open(path, 'r+b')
cow = mmap.mmap(f.fileno(), 8 * P, mmap.MAP_PRIVATE)
cow[2 * P] = 1; cow[5 * P]
print('cow', address(cow))
sh = mmap.mmap(f.fileno(), 8 * P, mmap.MAP_SHARED)
sh[0] = 7
print('shared', address(sh))
print('path', path)
ready()
libc.pause()
",
    )
    .at_rest();
    let tree = world.capture();
    let log = world.log();
    let path = log.lines().find_map(|line| line.strip_prefix("path ")).unwrap();
    std::fs::remove_file(path).unwrap();
    let segments = tree.process(1).segments;
    let none = segment_at(&segments, number(&log, "none"));
    let mut found = pages(none);
    found
        .iter_mut()
        .for_each(|(_, _, source)| assert!(matches!(std::mem::replace(source, Source::Zero), Source::Own(_))));
    // The kernel may have joined it with its neighbours.
    let shift = number(&log, "none") - none.start.0;
    let expected = [(3, 2), (60, 1)].map(|(page, count)| (shift + page * 4096, count, Source::Zero));
    assert!(expected.iter().all(|run| found.contains(run)), "{found:?}");
    assert_eq!(none.protection.0, 0);
    let big = segment_at(&segments, number(&log, "big"));
    let at = number(&log, "big") + (5 << 30);
    assert!(big.pages.iter().any(|range| (range.start.0..range.end()).contains(&at)));
    assert!(big.pages.iter().map(|range| range.count).sum::<u64>() <= 600, "{:?}", big.pages);
    let cow = segment_at(&segments, number(&log, "cow"));
    assert!(matches!(&cow.backing, Backing::File(file) if file.path.escaped() == path && !file.writable));
    assert_eq!(pages(cow).iter().map(|(start, count, _)| (*start, *count)).collect::<Vec<_>>(), [(2 * 4096, 1)]);
    let shared = segment_at(&segments, number(&log, "shared"));
    assert!(shared.shared && shared.pages.is_empty());
    assert!(matches!(&shared.backing, Backing::File(file) if file.writable && file.size == 8 * 4096));
    // Own pages are counted up without a hole.
    let mut next = 0;
    for range in segments.iter().flat_map(|segment| &segment.pages) {
        assert_eq!(range.source, Source::Own(next));
        next += range.count;
    }
}

#[test]
fn a_child_names_its_parent_for_what_they_still_share() {
    let world = World::python(
        "fork",
        "
P = 4096
def address(m): return ctypes.addressof(ctypes.c_char.from_buffer(m))
private = mmap.mmap(-1, 1024 * P, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
private.madvise(15)  # no huge pages
for page in range(1024): private[page * P] = 1
shared = mmap.mmap(-1, 16 * P, mmap.MAP_SHARED | mmap.MAP_ANONYMOUS)
shared[P] = 1
if os.fork() == 0:
    private[512 * P] = 2
    shared[9 * P] = 1
    print('private', address(private)); print('shared', address(shared))
    ready()
libc.pause()
",
    )
    .at_rest();
    let tree = world.capture();
    let log = world.log();
    let image = tree.image();
    let child = image.processes.values().find(|process| process.process.parent == Pid(1)).unwrap();
    let at = number(&log, "private");
    let of = |segments: &[Segment], address: u64| {
        let ranges = segments.iter().flat_map(|segment| segment.pages.clone());
        ranges.into_iter().find(|range| (range.start.0..range.end()).contains(&address)).map(|range| range.source)
    };
    assert_eq!(of(&child.segments, at), Some(Source::Process(Pid(1))));
    assert_eq!(of(&child.segments, at + 1023 * 4096), Some(Source::Process(Pid(1))));
    assert!(matches!(of(&child.segments, at + 512 * 4096), Some(Source::Own(_))));
    assert!(child.pages_size() < 1024 * 4096, "{}", child.pages_size());
    let shared = number(&log, "shared");
    let parent = tree.process(1);
    assert!(matches!(of(&parent.segments, shared + 4096), Some(Source::Own(_))));
    assert!(matches!(of(&parent.segments, shared + 9 * 4096), Some(Source::Own(_))));
    assert_eq!(of(&child.segments, shared + 4096), Some(Source::Process(Pid(1))));
    let object = |segments: &[Segment]| match &segment_at(segments, shared).backing {
        Backing::SharedAnonymous(object) => object.clone(),
        other => panic!("{other:?}"),
    };
    assert_eq!(object(&child.segments), object(&parent.segments));
    assert_eq!(object(&child.segments).size, 16 * 4096);
}

#[test]
fn trees_zombies_timers_and_limits_are_recorded() {
    let world = World::python(
        "tree",
        "
import resource
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        libc.pause()
    libc.pause()
if os.fork() == 0:
    libc.prctl(15, b'gone', 0, 0, 0)
    os._exit(7)
if os.fork() == 0:
    os.kill(os.getpid(), 9)
signal.setitimer(signal.ITIMER_REAL, 500, 25)
signal.setitimer(signal.ITIMER_VIRTUAL, 300)
os.umask(0o27)
os.chdir('/usr')
resource.setrlimit(resource.RLIMIT_NOFILE, (123, 456))
os.nice(3)
libc.prctl(1, 10, 0, 0, 0)
libc.prctl(36, 1, 0, 0, 0)
ready()
libc.pause()
",
    )
    .at_rest();
    let image = world.capture().image();
    let first = &image.processes[&Pid(1)];
    let parents: Vec<(u32, u32, u32, u32)> = image
        .processes
        .values()
        .map(|p| (p.process.pid.0, p.process.parent.0, p.process.group.0, p.process.session.0))
        .collect();
    let session = parents[1].0;
    assert_eq!(parents[0], (1, 0, 1, 1));
    assert_eq!(parents[1], (session, 1, session, session));
    assert_eq!((parents[2].1, parents[2].2, parents[2].3), (session, session, session));
    assert_eq!(parents.len(), 3);
    let leader = &first.threads[&Pid(1)];
    let mut zombies: Vec<_> = leader.zombies.iter().map(|zombie| (zombie.name.escaped(), zombie.status)).collect();
    zombies.sort();
    assert_eq!(zombies.len(), 2);
    assert_eq!(zombies[0], ("gone".to_owned(), 7 << 8));
    assert_eq!(zombies[1].1, 9);
    let timers: Vec<_> =
        first.timers().interval.iter().map(|timer| (timer.which, timer.remaining.sec, timer.interval.sec)).collect();
    // However long it took to come to rest.
    assert!(matches!(timers[0], (IntervalTimerKind::ITIMER_REAL, 400..500, 25)), "{timers:?}");
    // The kernel adds a tick, so that it does not end too early.
    assert!(matches!(timers[1], (IntervalTimerKind::ITIMER_VIRTUAL, 299 | 300, 0)), "{timers:?}");
    assert_eq!(timers.len(), 2);
    assert_eq!((first.process.umask.0, first.process.cwd.escaped()), (0o27, "/usr".to_owned()));
    let limit = &first.process.limits["RLIMIT_NOFILE"];
    assert_eq!((limit.soft, limit.hard), (Some(123), Some(456)));
    assert_eq!((leader.attr.scheduling.nice, leader.attr.pdeath_signal.map(|signal| signal.0)), (3, Some(10)));
    assert!(first.attr.child_subreaper);
}
