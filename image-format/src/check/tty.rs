//! Terminals: pairs that are whole, settings the kernel takes, and sessions that can have them.

use super::Findings;
use crate::files::{FileKind, Stream};
use crate::image::Image;
use crate::layout::{STDIOS, file_entry, process_file, tty_file};
use crate::tty::{CONTROL_CHARACTERS, DISCIPLINE_SIZE, Pty, SHOWN_SIZE, SlaveState, TtyQueue, TtySide};
use crate::types::Pid;
use std::collections::{BTreeMap, BTreeSet};

/// Terminals of one devpts are numbered below (NR_UNIX98_PTY_MAX, fs/devpts/inode.c, v6.18).
const NUMBER_LIMIT: u32 = 1 << 20;
/// More than the buffers between the sides of a pair ever hold (`pty_unix98_install` limits them to 8 KiB, v6.18).
const MOST_BEHIND: usize = 64 << 10;
/// `ICANON` of c_lflag.
const ICANON: u32 = 0o2;

pub(super) fn check(image: &Image, findings: &mut Findings) {
    sides(image, findings);
    consoles(image, findings);
    for (&number, pty) in &image.ttys {
        let path = tty_file(number);
        for problem in problems(pty) {
            findings.add(&path, problem);
        }
    }
    sessions(image, findings);
}

/// Each description belongs to a pair, and each pair has its master once.
fn sides(image: &Image, findings: &mut Findings) {
    let mut masters = BTreeSet::new();
    let mut slaves = BTreeSet::new();
    for (&id, file) in &image.files {
        let FileKind::Tty(tty) = &file.kind else { continue };
        let mut refuse = |reason: String| findings.add(&file_entry(id), reason);
        let number = tty.number;
        if number >= NUMBER_LIMIT {
            refuse(format!("number {number}: terminals are numbered below {NUMBER_LIMIT}"));
        }
        if !tty.hung_up && !image.ttys.contains_key(&number) {
            refuse(format!("number {number}: there is no {}", tty_file(number)));
        }
        match tty.side {
            TtySide::Master if tty.hung_up => refuse("hung_up: a master is never hung up".to_owned()),
            TtySide::Master if !masters.insert(number) => {
                refuse(format!("the master of terminal {number} is open twice"))
            }
            TtySide::Slave | TtySide::Controlling if !tty.hung_up => {
                slaves.insert(number);
            }
            _ => {}
        }
    }
    for (&number, pty) in &image.ttys {
        match (masters.contains(&number), &pty.console) {
            (true, Some(_)) => findings.add(&tty_file(number), "console: its master is open in the container"),
            (false, None) => findings.add(&tty_file(number), "no process has its master open"),
            _ => {}
        }
        if slaves.contains(&number) != (pty.slave == SlaveState::Open) {
            let is = if slaves.contains(&number) { "is" } else { "is not" };
            findings.add(&tty_file(number), format!("slave: {:?}, but it {is} open", pty.slave));
        }
    }
}

/// There is one console at most, and the standard streams that lead to it are slaves of it.
fn consoles(image: &Image, findings: &mut Findings) {
    let consoles: Vec<u32> =
        image.ttys.iter().filter(|(_, pty)| pty.console.is_some()).map(|(&number, _)| number).collect();
    for number in consoles.iter().skip(1) {
        findings.add(&tty_file(*number), format!("console: {} is one already", tty_file(consoles[0])));
    }
    for (index, stdio) in (0..).zip(&image.stdios).filter(|(_, stdio)| stdio.stream == Stream::Console) {
        let kind = image.files.get(&stdio.file).map(|file| &file.kind);
        if !matches!(kind, Some(FileKind::Tty(tty)) if consoles.contains(&tty.number)) {
            findings.line(STDIOS, index, format!("{} is not open on a console", file_entry(stdio.file)));
        }
    }
}

fn problems(pty: &Pty) -> Vec<String> {
    let mut problems = Vec::new();
    if pty.termios.line != 0 {
        problems.push(format!("termios.line {}: only the usual line discipline (0) is carried", pty.termios.line));
    }
    if pty.termios.cc.0.len() != CONTROL_CHARACTERS {
        let length = pty.termios.cc.0.len();
        problems.push(format!("termios.cc: {length} bytes, and there are {CONTROL_CHARACTERS} control characters"));
    }
    if let Some(console) = pty.console.as_ref().filter(|console| console.shown.0.len() > SHOWN_SIZE) {
        problems.push(format!("console.shown: {} bytes, more than {SHOWN_SIZE}", console.shown.0.len()));
    }
    if pty.mode.0 > 0o7777 {
        problems.push(format!("mode: {} is beyond 07777", pty.mode));
    }
    let canonical = pty.termios.lflag.0 & ICANON != 0;
    problems.extend(queue("input", &pty.input, canonical));
    problems.extend(queue("output", &pty.output, false));
    if pty.slave == SlaveState::Unopened && !(pty.input.bytes.0.is_empty() && pty.input.behind.0.is_empty()) {
        problems.push("input: bytes for a slave that was never opened".to_owned());
    }
    problems
}

fn queue(name: &str, queue: &TtyQueue, canonical: bool) -> Vec<String> {
    let TtyQueue { bytes, line_ends, behind } = queue;
    let mut problems = Vec::new();
    if bytes.0.len() >= DISCIPLINE_SIZE {
        problems.push(format!("{name}.bytes: {}, and a line discipline holds {}", bytes.0.len(), DISCIPLINE_SIZE - 1));
    }
    if behind.0.len() > MOST_BEHIND {
        problems.push(format!("{name}.behind: {} bytes, more than {MOST_BEHIND}", behind.0.len()));
    }
    if !canonical && !line_ends.is_empty() {
        problems.push(format!("{name}.line_ends: there are lines in canonical mode alone"));
    }
    if !line_ends.is_sorted_by(|a, b| a < b) {
        problems.push(format!("{name}.line_ends: not in ascending order"));
    }
    if line_ends.iter().any(|&end| usize::try_from(end).is_ok_and(|end| end >= bytes.0.len())) {
        problems.push(format!("{name}.line_ends: beyond the {} bytes", bytes.0.len()));
    }
    problems
}

/// A controlling terminal is its session leader's, whose children inherit it.
fn sessions(image: &Image, findings: &mut Findings) {
    let mut session_of: BTreeMap<u32, Pid> = BTreeMap::new();
    for (&pid, process) in &image.processes {
        let Some(number) = process.process.tty else { continue };
        let mut refuse = |reason: String| findings.add(&process_file(pid, "process"), format!("tty: {reason}"));
        let session = process.process.session;
        if image.ttys.get(&number).is_none_or(|pty| pty.slave == SlaveState::Unopened) {
            refuse(format!("there is no {} that was opened", tty_file(number)));
        }
        if image.processes.get(&session).is_none_or(|leader| leader.process.tty != Some(number)) {
            refuse(format!("{number}, but that is not the terminal of its session leader {session}"));
        }
        if let Some(other) = session_of.insert(number, session).filter(|&other| other != session) {
            refuse(format!("{number} is the terminal of session {other} and of session {session}"));
        }
    }
    for (&number, pty) in &image.ttys {
        let Some(group) = pty.foreground else { continue };
        let session = session_of.get(&number);
        let is_there =
            |process: &crate::ProcessImage| process.process.group == group && Some(&process.process.session) == session;
        if !image.processes.values().any(is_there) {
            findings
                .add(&tty_file(number), format!("foreground: {group} is no group of a session that has this terminal"));
        }
    }
}
