//! The first thaw after a restore gives a timer the time that remained in the image, however long the container stood.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

#[allow(dead_code, reason = "each test uses a part of it")]
mod world;

use std::time::{Duration, Instant};
use world::World;

/// Longer than what is left of the timer by date, and of the one by length if that has counted meanwhile.
const STANDS: Duration = Duration::from_secs(4);
/// What is left of the timer by length at least.
const REMAINS: Duration = Duration::from_secs(5);

/// A timer by length and one by date. Tells when each has expired.
const PROGRAM: &str = r#"
import ctypes, os, struct, time
libc = ctypes.CDLL(None)
def timer(flags, seconds):
    fd = libc.timerfd_create(time.CLOCK_MONOTONIC, 0)
    spec = struct.pack("llll", 0, 0, int(seconds), int(seconds % 1 * 1e9))
    assert libc.timerfd_settime(fd, flags, spec, None) == 0
    return fd
relative = timer(0, 8)
absolute = timer(1, time.monotonic() + 4)
print("armed", relative, absolute, flush=True)
for name, fd in (("absolute", absolute), ("relative", relative)):
    os.read(fd, 8)
    print(name, "expired", flush=True)
time.sleep(1000)
"#;

#[test]
fn relative_timers_count_again_and_absolute_ones_do_not() {
    let world = World::new();
    let begun = Instant::now();
    world.ok(&["run", "v", "--", "python3", "-c", PROGRAM]);
    world.wait_for_log("v", "armed");
    let copy = world.dir.path().join("copy");
    let copy = copy.to_str().unwrap();
    world.ok(&["checkpoint", "v", copy, "--leave-frozen"]);
    assert!(begun.elapsed() < Duration::from_secs(3), "this machine is too slow for the test");
    world.ok(&["kill", "v"]);
    world.ok(&["restore", copy, "--name", "v"]);
    assert!(world.record("v").restored);
    std::thread::sleep(STANDS);

    let before = Instant::now();
    world.ok(&["thaw", "v"]);
    let log = world.wait_for_log("v", "absolute expired");
    assert!(!log.contains("relative"), "the relative timer had expired while the container was frozen");
    assert!(before.elapsed() < REMAINS, "the absolute timer was set again");
    world.wait_for_log("v", "relative expired");
    assert!(before.elapsed() >= REMAINS, "the relative timer had counted while the container was frozen");
    assert!(!world.record("v").restored, "the next thaw would set it once more");
}
