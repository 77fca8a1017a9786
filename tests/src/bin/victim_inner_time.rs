//! Time namespaces: one begun for children by a process that stays outside, with a child there that has a thread and a timer, and a process from
//! elsewhere that has joined it; one begun for children that are not born yet, before threads were; and one whose maker is back in its own.

use anyhow::{Context, Result, ensure};
use crfs_sys::anonymous::{Kind, Region};
use crfs_sys::namespaces::CLONE_NEWTIME;
use crfs_sys::posix_timer::{self, Notify};
use crfs_sys::time::clock_ns;
use crfs_sys::{signal, sigqueue};
use crfs_tests::victim::{self, Stage, child, expect_success};
use nix::sched::{setns, unshare};
use std::fs::{self, File};
use std::process::ExitCode;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// Who answers for a clock, by the words of these numbers.
const MAKER: usize = 0;
const INNER: usize = 1;
const THREAD: usize = 2;
const JOINED: usize = 3;
const BEGINNER: usize = 4;
const BACK: usize = 5;
const REMOTE: usize = 6;
/// Children that are born at the end.
const LATE: usize = 7;
const LATER: usize = 8;
const MEMBERS: usize = 9;
/// From here on: how often each is asked, how often it has answered, and what its clocks showed.
const ASKED: usize = 0;
const ANSWERED: usize = 20;
const MONOTONIC: usize = 40;
const BOOTTIME: usize = 60;
const END: usize = 80;
const PID: usize = 81;

const REAL_TIME: i32 = 37;
const SECOND: i64 = 1_000_000_000;

/// What is added to CLOCK_MONOTONIC and CLOCK_BOOTTIME, in seconds.
type Added = [i64; 2];

/// Begins a time namespace for children, with clocks that go so much before those of the caller.
fn begin(added: Added) -> Result<()> {
    unshare(CLONE_NEWTIME).context("unshare")?;
    // What is written there is added to the host's.
    let text = fs::read_to_string("/proc/self/timens_offsets")?;
    let mut lines = String::new();
    for (line, added) in text.lines().zip(added) {
        let words: Vec<&str> = line.split_ascii_whitespace().collect();
        let [clock, seconds, nanoseconds] = words[..] else { anyhow::bail!("timens_offsets has {line:?}") };
        lines += &format!("{clock} {} {nanoseconds}\n", seconds.parse::<i64>()? + added);
    }
    fs::write("/proc/self/timens_offsets", &lines).with_context(|| format!("writing {lines:?}"))
}

fn clocks() -> Result<[i64; 2]> {
    Ok([clock_ns(libc::CLOCK_MONOTONIC)?, clock_ns(libc::CLOCK_BOOTTIME)?])
}

fn answer(shared: &Region, number: usize) -> Result<()> {
    let asked = shared.get(ASKED + number);
    if asked > shared.get(ANSWERED + number) {
        let [monotonic, boottime] = clocks()?;
        shared.set(MONOTONIC + number, u64::try_from(monotonic)?);
        shared.set(BOOTTIME + number, u64::try_from(boottime)?);
        shared.word(ANSWERED + number).store(asked, Ordering::Release);
    }
    Ok(())
}

/// Answers until the end.
fn member(shared: &Region, number: usize) -> Result<()> {
    while shared.get(END) == 0 {
        answer(shared, number)?;
        std::thread::sleep(Duration::from_millis(2));
    }
    Ok(())
}

/// Answers once.
fn newborn(shared: &Region, number: usize) -> Result<()> {
    victim::wait_until("a question", || shared.get(ASKED + number) > 0)?;
    answer(shared, number)
}

/// In the first one, with a thread, and a timer that rings now and then.
fn inner(shared: &Region) -> Result<()> {
    signal::block(signal::bit(REAL_TIME))?;
    let interval = Duration::from_millis(20);
    let timer = posix_timer::create(libc::CLOCK_MONOTONIC, Notify::Process(REAL_TIME), 1)?;
    posix_timer::set(timer, false, interval, interval)?;
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| member(shared, THREAD));
        while shared.get(END) == 0 {
            answer(shared, INNER)?;
            sigqueue::take(signal::bit(REAL_TIME), Some(Duration::from_secs(20))).context("the timer rings no more")?;
        }
        thread.join().ok().context("the thread panicked")?
    })
}

/// Asks one for its clocks, which must show what those of the caller do and so much more.
fn ask(shared: &Region, number: usize, added: Added) -> Result<()> {
    let before = clocks()?;
    let asked = shared.get(ASKED + number) + 1;
    shared.set(ASKED + number, asked);
    victim::wait_until("an answer", || shared.word(ANSWERED + number).load(Ordering::Acquire) == asked)?;
    let after = clocks()?;
    for (clock, at) in [MONOTONIC, BOOTTIME].into_iter().enumerate() {
        let told = i64::try_from(shared.get(at + number))? - added[clock] * SECOND;
        let (before, after) = (before[clock], after[clock]);
        ensure!(before <= told && told <= after, "clock {clock} of {number}: {before} <= {told} <= {after}");
    }
    Ok(())
}

fn run(stage: &mut Stage) -> Result<()> {
    let shared = &Region::new(4096, Kind { shared: true, noreserve: false })?;
    // Half of its time, so that a timer set by another clock would not ring in time.
    let outer = [-(clocks()?[0] / SECOND / 2), 5000];
    let (unborn, left) = ([700, 90_000], [1_000_000, -1]);
    // Is there before who makes what it joins.
    let joined = child(|| {
        victim::wait_until("the maker to begin", || shared.get(PID) != 0)?;
        setns(File::open(format!("/proc/{}/ns/time_for_children", shared.get(PID)))?, CLONE_NEWTIME)?;
        member(shared, JOINED)
    })?;
    let maker = child(|| {
        begin(outer)?;
        let inner = child(|| inner(shared))?;
        shared.set(PID, u64::from(std::process::id()));
        member(shared, MAKER)?;
        expect_success(child(|| newborn(shared, LATE))?)?;
        expect_success(inner)
    })?;
    let beginner = child(|| {
        begin(unborn)?;
        std::thread::scope(|scope| {
            let thread = scope.spawn(|| {
                victim::wait_until("the end", || shared.get(END) != 0 || shared.get(ASKED + BEGINNER) > 0)?;
                while shared.get(END) == 0 {
                    std::thread::sleep(Duration::from_millis(5));
                }
                expect_success(child(|| newborn(shared, LATER))?)
            });
            member(shared, BEGINNER)?;
            thread.join().ok().context("the thread panicked")?
        })
    })?;
    let back = child(|| {
        let own = File::open("/proc/self/ns/time")?;
        begin(left)?;
        let remote = child(|| member(shared, REMOTE))?;
        setns(own, CLONE_NEWTIME)?;
        member(shared, BACK)?;
        expect_success(remote)
    })?;
    let members = [
        (MAKER, [0, 0]),
        (INNER, outer),
        (THREAD, outer),
        (JOINED, outer),
        (BEGINNER, [0, 0]),
        (BACK, [0, 0]),
        (REMOTE, left),
    ];
    loop {
        for (number, added) in members {
            ask(shared, number, added)?;
        }
        if !stage.end_round_and_rest()? {
            break;
        }
    }
    shared.set(END, 1);
    ask(shared, LATE, outer)?;
    ask(shared, LATER, unborn)?;
    ensure!(MEMBERS == LATER + 1, "every one was asked");
    [joined, maker, beginner, back].into_iter().try_for_each(expect_success)
}

fn main() -> ExitCode {
    victim::main(run)
}
