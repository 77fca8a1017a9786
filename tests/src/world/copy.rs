//! Copies: the tools users have, and edits in a copy.

use super::{Outcome, PATIENCE, run};
use serde_json::Value;
use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// How a tree is copied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// `cp -r`
    Cp,
    /// `cp -a`
    CpArchive,
    /// `tar c | tar x`
    Tar,
    /// `rsync -a`
    Rsync,
}

/// Copies a program, by another process: what this one has open for writing a child has as well that another test starts at that moment,
/// and a program that somebody may write is not executed (ETXTBSY).
///
/// # Panics
/// When it cannot be copied.
pub fn copy_program(from: &Path, to: &Path) {
    run(Command::new("cp").arg(from).arg(to), PATIENCE).expect_success();
}

/// Copies the directory `from` so that it is `to`, which must not exist (its parent must).
pub fn copy_tree(from: &Path, to: &Path, method: Method) -> Outcome {
    let mut command = match method {
        Method::Cp | Method::CpArchive => {
            let mut cp = Command::new("cp");
            cp.arg(if method == Method::Cp { "-r" } else { "-a" }).arg(from).arg(to);
            cp
        }
        Method::Tar => {
            let mut bash = Command::new("bash");
            // Without -p, tar as root would change owners that the mount does not keep.
            let script = r#"set -o pipefail; mkdir "$2" && tar -C "$1" -cf - . | tar -C "$2" --no-same-owner -xf -"#;
            bash.args([OsStr::new("-c"), OsStr::new(script), OsStr::new("tar"), from.as_os_str(), to.as_os_str()]);
            bash
        }
        Method::Rsync => {
            let mut rsync = Command::new("rsync");
            rsync.arg("-a").arg(from.join("")).arg(to);
            rsync
        }
    };
    run(&mut command, PATIENCE)
}

/// The paths of all files below a directory, relative to it, sorted.
///
/// # Panics
/// When a directory cannot be read.
#[must_use]
pub fn files_of(dir: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    let mut todo = vec![dir.to_owned()];
    while let Some(at) = todo.pop() {
        for entry in fs::read_dir(&at).unwrap_or_else(|error| panic!("reading {}: {error}", at.display())) {
            let entry = entry.unwrap_or_else(|error| panic!("reading {}: {error}", at.display()));
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                todo.push(entry.path());
            } else {
                files.push(entry.path().strip_prefix(dir).map(Path::to_owned).unwrap_or_default());
            }
        }
    }
    files.sort();
    files
}

/// Every file below a directory with its content.
///
/// # Panics
/// When one cannot be read.
#[must_use]
pub fn read_tree(dir: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let read = |path: &Path| fs::read(path).unwrap_or_else(|error| panic!("reading {}: {error}", path.display()));
    files_of(dir).into_iter().map(|file| (file.clone(), read(&dir.join(&file)))).collect()
}

/// Changes a file that holds one JSON object.
///
/// # Panics
/// When it cannot be read, parsed or written.
pub fn edit_object(path: &Path, edit: impl FnOnce(&mut Value)) {
    let text = fs::read(path).unwrap_or_else(|error| panic!("reading {}: {error}", path.display()));
    let mut value = serde_json::from_slice(&text).unwrap_or_else(|error| panic!("parsing {}: {error}", path.display()));
    edit(&mut value);
    fs::write(path, format!("{value:#}\n")).unwrap_or_else(|error| panic!("writing {}: {error}", path.display()));
}

/// Replaces a line (counted from 1) of a text file.
///
/// # Panics
/// When there is no such line.
pub fn edit_line(path: &Path, line: usize, new: &str) {
    let text = fs::read_to_string(path).unwrap_or_else(|error| panic!("reading {}: {error}", path.display()));
    let mut lines: Vec<&str> = text.lines().collect();
    assert!(line <= lines.len(), "{} has no line {line}", path.display());
    lines[line - 1] = new;
    fs::write(path, lines.join("\n") + "\n").unwrap_or_else(|error| panic!("writing {}: {error}", path.display()));
}
