//! The first thaw after a restore gives a timer the time that remained in the image, however long the container stood.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

#[allow(dead_code, reason = "each test uses a part of it")]
mod world;

use crfs::registry::{Live, LiveProcess, State, write_json};
use image_format::files::{File, FileKind, OpenFlags, Timerfd};
use image_format::process::Fd;
use image_format::thread::{Frame, Registers};
use image_format::{FileId, Hex, Pid, Timespec, layout, render_lines, render_object};
use std::time::{Duration, Instant};
use world::{PATIENCE, World};

const REMAINING: Duration = Duration::from_secs(5);

/// Two timers that expire in 2 s: one by length, one by date. Tells when each has.
const PROGRAM: &str = r#"
import ctypes, os, struct, time
libc = ctypes.CDLL(None)
def timer(flags, seconds):
    fd = libc.timerfd_create(time.CLOCK_MONOTONIC, 0)
    spec = struct.pack("llll", 0, 0, int(seconds), int(seconds % 1 * 1e9))
    assert libc.timerfd_settime(fd, flags, spec, None) == 0
    return fd
relative = timer(0, 2)
absolute = timer(1, time.monotonic() + 2)
print("armed", relative, absolute, flush=True)
for name, fd in (("absolute", absolute), ("relative", relative)):
    os.read(fd, 8)
    print(name, "expired", flush=True)
time.sleep(1000)
"#;

fn record(settime_flags: u32, remaining: Duration) -> File {
    let remaining = Timespec { sec: remaining.as_secs().cast_signed(), nsec: remaining.subsec_nanos() };
    let timer = Timerfd { clock: 1, settime_flags, remaining, interval: Timespec::default(), ticks: Hex(0) };
    File { flags: OpenFlags(2), position: 0, owner: None, kind: FileKind::Timerfd(timer) }
}

#[test]
fn relative_timers_count_again_and_absolute_ones_do_not() {
    let world = World::new();
    world.ok(&["run", "v", "--", "python3", "-c", PROGRAM]);
    let log = world.wait_for_log("v", "armed");
    let numbers: Vec<u32> = log.split_whitespace().skip(1).map(|word| word.parse().unwrap()).collect();
    world.cgroup("v").freeze(PATIENCE).unwrap();
    assert!(!world.log("v").contains("expired"), "this machine is too slow for the test");

    // As a build leaves it.
    let dir = world.run_dir().join("v");
    let fds: Vec<Fd> =
        numbers.iter().zip(0..).map(|(&fd, file)| Fd { fd, file: FileId(file), cloexec: false }).collect();
    let frame = Frame { registers: Registers::default(), syscall: None };
    let files = [
        (layout::process_file(Pid(1), "fds"), render_lines(&fds)),
        (layout::thread_file(Pid(1), Pid(1), "thread.frame"), render_object(&frame)),
        (layout::file_entry(FileId(0)), render_object(&record(0, REMAINING))),
        (layout::file_entry(FileId(1)), render_object(&record(1, REMAINING))),
    ];
    let entries = files.iter().map(|(path, bytes)| (path.as_str(), Some(bytes.as_slice())));
    crfs::captured::write(&dir.join("image"), entries).unwrap();
    let mut container = world.record("v");
    let host_pid = container.init.unwrap().pid;
    let process = LiveProcess { pid: Pid(1), host_pid, cpu_ns: 0 };
    write_json(&dir.join("live.json"), &Live { processes: vec![process], thawed: None, contents: vec![] }).unwrap();
    container.state = State::Frozen;
    container.restored = true;
    world.write_record(&container);

    // Both expire while it is frozen.
    std::thread::sleep(Duration::from_millis(2200));
    let before = Instant::now();
    world.ok(&["thaw", "v"]);
    world.wait_for_log("v", "absolute expired");
    assert!(before.elapsed() < REMAINING, "the absolute timer was set again");
    world.wait_for_log("v", "relative expired");
    assert!(before.elapsed() >= REMAINING, "the relative timer had expired while the container was frozen");
    assert!(!world.record("v").restored, "the next thaw would set it once more");
}
