//! How fast, and how small: medians of several runs, with ratios to a plain copy in the same run. It judges nothing.
//!
//! `cargo run --release -p crfs-tests --bin benchmark [RUNS [CRIU]]`; CRIU is a command that takes the arguments of criu(8), and is run
//! on the same programs in turn. Environment:
//!
//! | | default | |
//! |---|---|---|
//! | BENCHMARK_MIB | 64,1024,4096 | sizes of processes that are compared; each is there four times with CRIU, twice without |
//! | BENCHMARK_SHARED_MIB | 128 | what 50 children share since a fork; CRIU writes it 50 times |
//! | BENCHMARK_COPY_MIB | 1024 | the process that is copied through the mount; three times that |
//! | BENCHMARK_SHOW_MIB | 8192 | a process that is shown, and restored without CRIU; twice that |
//! | BENCHMARK_DISK | | a directory on a disk, to which the processes of BENCHMARK_MIB are checkpointed as well |
//! | BENCHMARK_ONLY | | runs the parts whose name it is a part of |
//! | BENCHMARK_CHRT | | a real-time priority for the commands that are compared with CRIU's, and for CRIU |
//!
//! A size of 0 leaves that part out.

mod places;
mod restores;

use anyhow::{Context, Result, ensure};
use crfs_tests::world::{Method, PATIENCE, Program, World, copy_tree, run};
use places::Memory;
use restores::Workload;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

fn median(mut values: Vec<Duration>) -> Duration {
    values.sort();
    values.get(values.len() / 2).copied().unwrap_or_default()
}

fn milliseconds(time: Duration) -> String {
    format!("{:.1} ms", time.as_secs_f64() * 1000.0)
}

fn size(key: &str, default: usize) -> Result<usize> {
    std::env::var(key).map_or(Ok(default), |text| text.parse().with_context(|| format!("{key}={text}")))
}

/// Freezes and thaws, and prints how long each part of a freeze took.
fn freezes(what: &str, kind: &str, arguments: &[&str], runs: usize) {
    let world = World::new();
    let program = Program::victim(&world, kind, arguments);
    world.start("bench", &program);
    let (mut whole, mut parts): (Vec<Duration>, Vec<(String, Vec<Duration>)>) = (Vec::new(), Vec::new());
    for _ in 0..runs.max(5) {
        whole.push(world.crctl(["freeze", "bench"]).expect_success().took);
        let status = world.status("bench");
        for timing in timings(&status) {
            match parts.iter_mut().find(|(name, _)| *name == timing.0) {
                Some((_, times)) => times.push(timing.1),
                None => parts.push((timing.0, vec![timing.1])),
            }
        }
        world.must("thaw", "bench");
        program.goes_on(1);
    }
    println!("freeze and capture, {what}: {} with crctl; of it", milliseconds(median(whole)));
    for (name, times) in parts {
        println!("    {name}: {}", milliseconds(median(times)));
    }
}

/// The parts of the last operation, wherever the status has them.
fn timings(status: &serde_json::Value) -> Vec<(String, Duration)> {
    let Some(list) = status.pointer("/last/timings").or_else(|| status.get("timings")).and_then(|list| list.as_array())
    else {
        return Vec::new();
    };
    let timing = |entry: &serde_json::Value| {
        Some((entry.get("what")?.as_str()?.to_owned(), Duration::from_micros(entry.get("us")?.as_u64()?)))
    };
    list.iter().filter_map(timing).collect()
}

fn plain_copy(from: &Path, to: &Path) -> Result<Duration> {
    let copied = run(Command::new("cp").arg(from).arg(to), PATIENCE);
    ensure!(copied.success(), "{copied}");
    Ok(copied.took)
}

/// A big container out and in, against `cp` of a file of the same size from tmpfs to tmpfs.
fn copies(mib: usize, runs: usize) -> Result<()> {
    let mut world = World::without_server();
    let memory = Memory::new(world.dir().join("memory"))?;
    world.set_environment("CRFS_STAGING_DIR", &memory.0.join("staging").to_string_lossy());
    world.start_server();
    let program = Program::victim(&world, "data", &[&mib.to_string()]);
    world.start("bench", &program);
    world.freeze("bench");
    let (mut plain, mut out, mut back) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..runs {
        let copy = memory.0.join("bench");
        let taken = copy_tree(&world.tree("bench"), &copy, Method::Cp);
        ensure!(taken.success(), "{taken}");
        out.push(taken.took);
        let file = memory.0.join("plain");
        plain.push(plain_copy(&copy.join("0x00000001/mem.pages"), &file)?);
        fs::remove_file(&file)?;
        world.must("kill", "bench");
        let restored = world.copy_in(&copy, "bench", Method::Cp);
        ensure!(restored.success(), "{restored}");
        back.push(restored.took);
        fs::remove_dir_all(&copy)?;
    }
    world.must("thaw", "bench");
    program.goes_on(1);
    let (plain, out, back) = (median(plain), median(out), median(back));
    println!("copies of {mib} MiB: plain cp, tmpfs to tmpfs: {}", milliseconds(plain));
    for (what, time) in [("cp -r out", out), ("cp -r in, with the build", back)] {
        println!(
            "    {what}: {}, {:.2} of the plain speed",
            milliseconds(time),
            plain.as_secs_f64() / time.as_secs_f64()
        );
    }
    drop(world);
    Ok(())
}

/// What the server has to itself while a big container is shown and has been read.
fn server_memory(mib: usize) -> Result<()> {
    let world = World::new();
    let program = Program::victim(&world, "data", &[&mib.to_string()]);
    world.start("bench", &program);
    world.freeze("bench");
    let pages = world.tree("bench").join("0x00000001/mem.pages");
    let read = run(
        Command::new("dd").args([format!("if={}", pages.display()), "of=/dev/null".into(), "bs=1M".into()]),
        PATIENCE,
    );
    ensure!(read.success(), "{read}");
    let rollup = fs::read_to_string(format!("/proc/{}/smaps_rollup", world.server_pid()))?;
    let private = rollup.lines().filter(|line| line.starts_with("Private_"));
    let kib: u64 = private.filter_map(|line| line.split_whitespace().nth(1)?.parse::<u64>().ok()).sum();
    println!("server while showing {mib} MiB: {:.1} MiB private", f64::from(u32::try_from(kib)?) / 1024.0);
    Ok(())
}

/// Whether this part is to be run.
fn wanted(what: &str) -> bool {
    std::env::var("BENCHMARK_ONLY").map_or(true, |part| what.contains(&part))
}

/// How long checksums take: that of looking at all of a checkpoint (crctl verify) beside that of reading it.
fn sums(mib: usize, runs: usize) -> Result<()> {
    let world = World::without_server();
    let memory = Memory::new(world.dir().join("memory"))?;
    let program = Program::victim(&world, "data", &[&mib.to_string()]);
    world.start("bench", &program);
    let copy = memory.0.join("copy");
    let (mut taken, mut read, mut verified) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..runs {
        let at = copy.to_string_lossy();
        taken.push(world.crctl(["checkpoint", "bench", &at]).expect_success().took);
        let begun = Instant::now();
        std::io::copy(&mut fs::File::open(copy.join("0x00000001/mem.pages"))?, &mut std::io::sink())?;
        read.push(begun.elapsed());
        verified.push(world.crctl(["verify", &at]).expect_success().took);
        fs::remove_dir_all(&copy)?;
    }
    let [taken, read, verified] = [taken, read, verified].map(median);
    println!(
        "checksums of {mib} MiB: crctl verify {}, reading alone {}; a checkpoint with them {}",
        milliseconds(verified),
        milliseconds(read),
        milliseconds(taken)
    );
    Ok(())
}

/// What is frozen, and what is checkpointed and restored: name, victim, its arguments.
const FROZEN: [(&str, &str, &str); 5] = [
    ("1 process", "data", "1"),
    ("1,000 threads", "threads", "1000"),
    ("100 processes", "processes", "99 1"),
    ("10,000 descriptors", "many", "descriptors 10000"),
    ("5,000 mappings", "many", "mappings 5000"),
];
const COMPARED: [(&str, &str, &str); 7] = [
    ("1,000 threads", "threads", "1000"),
    ("100 processes of 10 MiB", "processes", "100 10"),
    ("1,000 processes of 1 MiB", "processes", "1000 1"),
    ("10,000 descriptors", "many", "descriptors 10000"),
    ("5,000 mappings", "many", "mappings 5000"),
    ("1,000 pipes with data", "many", "pipes 1000"),
    ("1,000 pairs of Unix sockets with data", "many", "pairs 1000"),
];

/// All that is compared, with sizes from the environment.
fn workloads() -> Result<Vec<Workload>> {
    let mut workloads: Vec<Workload> =
        COMPARED.into_iter().map(|(what, kind, arguments)| Workload::new(what, kind, arguments)).collect();
    let shared = size("BENCHMARK_SHARED_MIB", 128)?;
    if shared > 0 {
        let what = format!("50 children of 1 MiB that share {shared} MiB since a fork");
        workloads.push(Workload::new(&what, "processes", &format!("50 1 {shared}")));
    }
    let sizes = std::env::var("BENCHMARK_MIB").unwrap_or_else(|_| "64,1024,4096".to_owned());
    let disk = std::env::var_os("BENCHMARK_DISK").map(PathBuf::from);
    for mib in sizes.split(',').filter(|mib| *mib != "0") {
        let one = |what: String| Workload::new(&what, "data", mib);
        workloads.push(one(format!("1 process of {mib} MiB")));
        workloads.extend(disk.clone().map(|disk| one(format!("1 process of {mib} MiB, on a disk")).on(disk)));
    }
    Ok(workloads)
}

fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let runs = arguments.next().map_or(Ok(3), |runs| runs.parse()).context("the number of runs")?;
    let criu = arguments.next().map(PathBuf::from);
    for (what, kind, arguments) in FROZEN.into_iter().filter(|(what, ..)| wanted(what)) {
        freezes(what, kind, &arguments.split(' ').collect::<Vec<_>>(), runs);
    }
    for workload in workloads()?.iter().filter(|workload| wanted(&workload.what)) {
        restores::compare(workload, runs, criu.as_deref())?;
    }
    let copied = size("BENCHMARK_COPY_MIB", 1024)?;
    if copied > 0 && wanted("copies") {
        copies(copied, runs)?;
    }
    if copied > 0 && wanted("checksums") {
        sums(copied, runs)?;
    }
    let shown = size("BENCHMARK_SHOW_MIB", 8192)?;
    if shown > 0 && wanted("server") {
        server_memory(shown)?;
    }
    let what = format!("1 process of {shown} MiB, alone");
    if shown > 0 && wanted(&what) {
        restores::compare(&Workload::new(&what, "data", &shown.to_string()), 1, None)?;
    }
    Ok(())
}
