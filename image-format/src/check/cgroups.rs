//! `cgroups`: a tree that can be made, and who lies in it.

use super::Findings;
use super::mounts::is_plain;
use crate::cgroups::{Cgroup, Setting};
use crate::image::Image;
use crate::layout::CGROUPS;
use std::collections::BTreeSet;

/// A page, less the end: `kernfs_fop_write_iter`, `fs/kernfs/file.c`, v6.18, takes no more by one call.
const LONGEST: usize = 4095;

pub(super) fn check(image: &Image, findings: &mut Findings) {
    let mut paths: BTreeSet<&[u8]> = BTreeSet::new();
    let mut placed = BTreeSet::new();
    for (index, cgroup) in (0..).zip(&image.cgroups) {
        let place = place(index, cgroup, &paths);
        for problem in [place, mode(cgroup), controllers(cgroup)].into_iter().flatten() {
            findings.line(CGROUPS, index, problem);
        }
        for problem in settings(cgroup) {
            findings.line(CGROUPS, index, problem);
        }
        for pid in &cgroup.processes {
            let unknown = !image.processes.contains_key(pid);
            if unknown || !placed.insert((*pid, *pid)) {
                let reason = if unknown { "is no process of the image" } else { "lies in another too" };
                findings.line(CGROUPS, index, format!("processes: {pid} {reason}"));
            }
        }
        for tid in &cgroup.threads {
            let process = image.processes.iter().find(|(_, process)| process.threads.contains_key(tid));
            // Its first thread lies where the process does.
            let fresh = process.is_some_and(|(pid, _)| tid != pid && placed.insert((*pid, *tid)));
            if !fresh {
                let reason = "is no thread of the image beside the first ones, or lies in another too";
                findings.line(CGROUPS, index, format!("threads: {tid} {reason}"));
            }
        }
        paths.insert(if index == 0 { b"." } else { &cgroup.path.0 });
    }
}

/// What is wrong with the place of a cgroup in the tree, if anything.
fn place(index: u64, cgroup: &Cgroup, paths: &BTreeSet<&[u8]>) -> Option<String> {
    let path = cgroup.path.0.as_slice();
    if index == 0 {
        let is_top = path == b"." && !cgroup.threaded && !cgroup.frozen;
        let what = "the container's own cgroup, \".\", neither threaded nor frozen by itself";
        return (!is_top).then(|| format!("path: {:?} stands where {what}, belongs", cgroup.path));
    }
    if !is_plain(path) || path.contains(&0) || path.contains(&b'\n') {
        return Some(format!("path: {:?} does not lead straight down from the container's own", cgroup.path));
    }
    if paths.contains(path) {
        return Some(format!("path: {:?} is there already", cgroup.path));
    }
    let above = path.iter().rposition(|&byte| byte == b'/').map_or(b".".as_slice(), |at| &path[..at]);
    (!paths.contains(above)).then(|| format!("path: {:?} has no cgroup before it to be in", cgroup.path))
}

fn mode(cgroup: &Cgroup) -> Option<String> {
    let modes = cgroup.delegated.iter().map(|file| file.mode).chain([cgroup.mode]);
    modes.into_iter().find(|mode| mode.0 > 0o7777).map(|mode| format!("mode {mode}: permissions are twelve bits"))
}

fn controllers(cgroup: &Cgroup) -> Option<String> {
    let is_name = |name: &&String| {
        !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_')
    };
    let bad = cgroup.controllers.iter().find(|name| !is_name(name));
    bad.map(|name| format!("controllers: {name:?} is no name of a controller"))
}

fn settings(cgroup: &Cgroup) -> Vec<String> {
    let is_file = |name: &str| name.contains('.') && is_plain(name.as_bytes()) && !name.contains(['/', '\0']);
    let mut problems = Vec::new();
    let names = cgroup.delegated.iter().map(|file| &file.file).chain(cgroup.settings.iter().map(|s| &s.file));
    problems
        .extend(names.filter(|name| !is_file(name)).map(|name| format!("{name:?} is no name of a file in a cgroup")));
    for setting in &cgroup.settings {
        if Setting::is_no_setting(&setting.file) {
            problems.push(format!("settings: {} is no setting", setting.file));
        }
        if setting.value.contains('\0') || setting.value.lines().any(|line| line.len() > LONGEST) {
            problems.push(format!("settings: {}: a line is longer than {LONGEST} bytes, or has a NUL", setting.file));
        }
    }
    problems
}
