//! The commands that only tell: ls, status.

use crate::output::{age, bytes, command, print, print_json, shortened, table, time};
use anyhow::Result;
use crfs::freezer::Cgroup;
use crfs::operation::{self, Listed};
use crfs::registry::{Record, Registry, Server, State, Status};
use image_format::manifest::NamespaceKind;
use serde::Serialize;
use std::fmt::Write;

pub(super) fn list(registry: &Registry, json: bool) -> Result<()> {
    let all = operation::list(registry)?;
    if json {
        return print_json(&all);
    }
    print(&listing(&all))
}

fn listing(all: &[Listed]) -> String {
    let row = |one: &Listed| {
        let has_processes = matches!(one.state, State::Running | State::Frozen);
        let count = if has_processes { one.processes.to_string() } else { "-".into() };
        let memory = if has_processes { bytes(one.memory) } else { "-".into() };
        let state = if one.inspect { format!("{} (inspect)", one.state) } else { one.state.to_string() };
        vec![one.name.clone(), state, count, memory, age(one.created), shortened(&command(&one.command), 60)]
    };
    let rows: Vec<_> = all.iter().map(row).collect();
    table(&["NAME", "STATE", "PROCESSES", "MEMORY", "AGE", "COMMAND"], &rows)
}

/// What `crctl status --json NAME` prints.
#[derive(Serialize)]
struct One<'a> {
    name: &'a str,
    state: State,
    record: &'a Record,
    /// Microseconds that it has stood still since it was made or restored, all freezes together; null where the kernel does not tell.
    frozen_us: Option<u64>,
    /// The last operation.
    last: &'a Status,
    /// What of it is there to be seen, when a server runs.
    tree: Option<std::path::PathBuf>,
}

pub(super) fn status(registry: &Registry, name: &str, json: bool) -> Result<()> {
    let (state, record) = operation::state(registry, name)?;
    let container = registry.container(name)?;
    let mut last = container.status()?;
    if state == State::Incoming {
        // Known from the files alone, with or without a server. What somebody is writing this moment ends too early.
        last.notes.push(crfs::copy::awaited(&container.staging_dir(), &[]));
    }
    let frozen_us = Cgroup::at(&record.cgroup).frozen_us();
    let tree = registry.server().map(|server| server.mountpoint.join(name));
    if json {
        return print_json(&One { name, state, record: &record, frozen_us, last: &last, tree });
    }
    let mut text = String::new();
    let mut line = |key: &str, value: &str| {
        // Writing to a String does not fail.
        let _ = writeln!(text, "{key:<12}{value}");
    };
    line("name", name);
    let inspect = if record.inspect && state == State::Frozen { ", only to be looked at" } else { "" };
    line("state", &format!("{state}{inspect}"));
    line("command", &command(&record.command));
    line("age", &age(record.created));
    if let Some(init) = record.init.filter(|_| matches!(state, State::Running | State::Frozen)) {
        line("pid", &init.pid.to_string());
    }
    if let Some(status) = record.exit_status.filter(|_| state == State::Exited) {
        line("ended", &ended(status));
    }
    if let Some(root) = &record.root {
        line("root", &root.display().to_string());
    }
    if let Some(us) = frozen_us {
        line("stood still", &format!("{} in all", time(us)));
    }
    line("namespaces", &namespaces(&record));
    line("cgroup", &record.cgroup.display().to_string());
    match &tree {
        Some(tree) => line("tree", &tree.display().to_string()),
        None => line("tree", "no server is running: `crfs /mnt/crfs` shows it"),
    }
    text += &operation_text(&last, state);
    print(&text)
}

/// Which namespaces it has, for people.
fn namespaces(record: &Record) -> String {
    let shared: Vec<&str> =
        NamespaceKind::ALL.into_iter().filter(|&kind| record.shares(kind)).map(NamespaceKind::name).collect();
    let stub = if record.stub_init.is_some() { "; pid 1 is no part of it" } else { "" };
    if shared.is_empty() {
        format!("its own{stub}")
    } else {
        format!("its own, but the host's {}{stub}", shared.join(", "))
    }
}

/// The last operation, for people; nothing where there was none.
fn operation_text(last: &Status, state: State) -> String {
    if last.operation.is_empty() {
        return String::new();
    }
    let mut text = String::new();
    let mut line = |key: &str, value: &str| {
        let _ = writeln!(text, "{key:<12}{value}");
    };
    let outcome = match state {
        _ if last.failure.is_some() => "failed",
        // Files come one by one, and nobody says which is the last.
        State::Incoming => "not complete",
        _ => "done",
    };
    line("last", &format!("{}, {} ago: {outcome}", last.operation, age(last.time)));
    for (depth, reason) in last.failure.iter().flat_map(|failure| failure.chain.iter().enumerate()) {
        line(if depth == 0 { "reason" } else { "" }, reason);
    }
    for (index, blocker) in last.blockers.iter().enumerate() {
        line(if index == 0 { "blockers" } else { "" }, &blocker.to_string());
    }
    for (index, note) in last.notes.iter().enumerate() {
        line(if index == 0 { "notes" } else { "" }, note);
    }
    for (index, timing) in last.timings.iter().enumerate() {
        line(if index == 0 { "timings" } else { "" }, &format!("{:<28}{}", timing.what, time(timing.us)));
    }
    text
}

/// What `crctl status --json` prints without a name.
#[derive(Serialize)]
struct Overview {
    run_dir: std::path::PathBuf,
    /// None: no server is running.
    server: Option<Server>,
    containers: Vec<Listed>,
}

pub(super) fn overview(registry: &Registry, json: bool) -> Result<()> {
    let overview = Overview {
        run_dir: registry.run_dir().to_owned(),
        server: registry.server(),
        containers: operation::list(registry)?,
    };
    if json {
        return print_json(&overview);
    }
    let server = match &overview.server {
        Some(server) => format!("pid {}, mounted at {}", server.pid, server.mountpoint.display()),
        None => "not running: `crfs /mnt/crfs` shows containers as files; everything else works without it".into(),
    };
    let head = format!("server    {server}\nregistry  {}\n\n", overview.run_dir.display());
    print(&(head + &listing(&overview.containers)))
}

/// A wait(2) status in words.
fn ended(status: i32) -> String {
    match status & 0x7f {
        0 => format!("with exit status {}", (status >> 8) & 0xff),
        signal => format!("by signal {signal}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crfs::failure::{Failure, Kind};

    #[test]
    fn wait_statuses_in_words() {
        assert_eq!(ended(3 << 8), "with exit status 3");
        assert_eq!(ended(9), "by signal 9");
        assert_eq!(ended(0x80 | 11), "by signal 11");
    }

    #[test]
    fn the_last_operation_shows_the_whole_chain() {
        let failure = Failure::new(Kind::System, "no such file").within("vs1: freeze");
        let last = Status { operation: "freeze".into(), failure: Some(failure), ..Status::default() };
        let text = operation_text(&last, State::Running);
        assert!(text.contains("reason      vs1: freeze\n            no such file\n"), "{text}");
    }
}
