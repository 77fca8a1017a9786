//! From the records to cgroups.

use crate::failure::{Doing, Failure, Kind};
use crate::freezer;
use crate::plan::OUTSIDE;
use image_format::cgroups::{Cgroup, Maker, Setting};
use image_format::layout::CGROUPS;
use image_format::{Bytes, Image, Pid};
use nix::errno::Errno;
use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs::{self, File, Permissions};
use std::io::{ErrorKind, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};

/// The cgroups of an image, as they are made.
#[derive(Debug)]
pub struct Tree<'a> {
    records: &'a [Cgroup],
    top: &'a freezer::Cgroup,
}

impl<'a> Tree<'a> {
    /// Makes all cgroups below `top`, which is there; without limits, and with nobody in them.
    ///
    /// # Errors
    /// [`Kind::Incompatible`] with the line of `cgroups` that this host refuses.
    pub fn make(image: &'a Image, top: &'a freezer::Cgroup) -> Result<Self, Failure> {
        let tree = Tree { records: &image.cgroups, top };
        for (index, record) in tree.records.iter().enumerate() {
            tree.make_one(index, record).map_err(|failure| refused(failure, index, record))?;
        }
        Ok(tree)
    }

    fn make_one(&self, index: usize, record: &Cgroup) -> Result<(), Failure> {
        let path = self.path(index);
        if index > 0 {
            fs::create_dir(&path).doing(|| "making it")?;
        }
        if record.threaded {
            write(&path, "cgroup.type", "threaded").doing(|| "cgroup.type: writing threaded")?;
        }
        let own = |path: &Path, mode: u32, uid: u32, gid: u32| -> std::io::Result<()> {
            let found = fs::metadata(path)?;
            if (found.uid(), found.gid()) != (uid, gid) {
                chown(path, Some(uid), Some(gid))?;
            }
            if found.mode() & 0o7777 != mode { fs::set_permissions(path, Permissions::from_mode(mode)) } else { Ok(()) }
        };
        own(&path, record.mode.0, record.uid, record.gid).doing(|| "setting its owner and permissions")
    }

    /// The directory of a cgroup, by its path in the image.
    ///
    /// # Errors
    /// When there is no such directory.
    pub fn open(&self, path: &Bytes) -> Result<File, Failure> {
        let at = self.top.path().join(OsStr::from_bytes(&path.0));
        File::open(&at).doing(|| format!("{}: opening", at.display()))
    }

    /// The host's path of a cgroup.
    fn path(&self, index: usize) -> PathBuf {
        match self.records.get(index).filter(|_| index > 0) {
            Some(record) => self.top.path().join(OsStr::from_bytes(&record.path.0)),
            None => self.top.path().to_owned(),
        }
    }

    fn home(&self, pid: Pid) -> usize {
        self.records.iter().position(|record| record.processes.contains(&pid)).unwrap_or(0)
    }

    /// Moves a process that was just made to its place; `maker` is the process of the image that made it and is in its own, if any.
    ///
    /// # Errors
    /// [`Kind::Incompatible`] when it cannot be moved.
    pub fn place(&self, pid: Pid, host: i32, maker: Option<Pid>) -> Result<(), Failure> {
        let home = self.home(pid);
        let stays = maker.is_some_and(|maker| self.home(maker) == home);
        if stays || self.records.iter().all(|record| record.processes.is_empty()) {
            return Ok(());
        }
        self.move_to(home, "cgroup.procs", pid, host)
    }

    /// Moves the first process to its place, and offers controllers to those inside. A stub, which is no process of the image, lies
    /// where others do if it must not be in the container's own cgroup.
    ///
    /// # Errors
    /// As [`Tree::place`]; [`Kind::Incompatible`] when the controllers cannot be offered.
    pub fn begin(&self, pid: Pid, host: i32, notes: &mut Vec<String>) -> Result<(), Failure> {
        let is_stub = pid == OUTSIDE && self.records.first().is_some_and(|top| !top.controllers.is_empty());
        let inhabited = || self.records.iter().position(|record| !record.processes.is_empty()).unwrap_or(0);
        let home = if is_stub { inhabited() } else { self.home(pid) };
        if home > 0 {
            self.move_to(home, "cgroup.procs", pid, host)?;
        }
        let wanted: BTreeSet<&str> = self.records.first().iter().flat_map(|top| needs(top)).collect();
        if !wanted.is_empty() {
            self.top.ask_for(&wanted);
        }
        for (index, record) in self.records.iter().enumerate() {
            let path = self.path(index);
            let text = fs::read_to_string(path.join("cgroup.controllers"));
            let offered = text.doing(|| format!("cgroup {}: reading its controllers", path.display()))?;
            for name in &record.controllers {
                if !offered.split_whitespace().any(|there| there == name) {
                    notes.push(format!("{}: this host gives it no controller {name}", line(index, record)));
                    continue;
                }
                let word = format!("+{name}");
                let written = write(&path, "cgroup.subtree_control", &word);
                written
                    .doing(|| format!("cgroup.subtree_control: writing {word}"))
                    .map_err(|failure| refused(failure, index, record))?;
            }
        }
        Ok(())
    }

    /// Moves threads that lie elsewhere than their process; `host` tells how the host numbers one, if it is of the process at hand.
    ///
    /// # Errors
    /// As [`Tree::place`].
    pub fn place_threads(&self, mut host: impl FnMut(Pid) -> Option<i32>) -> Result<(), Failure> {
        for (index, record) in self.records.iter().enumerate() {
            for &tid in &record.threads {
                if let Some(host) = host(tid) {
                    self.move_to(index, "cgroup.threads", tid, host)?;
                }
            }
        }
        Ok(())
    }

    fn move_to(&self, index: usize, file: &str, id: Pid, host: i32) -> Result<(), Failure> {
        let Some(record) = self.records.get(index) else { return Ok(()) };
        let moved = write(&self.path(index), file, &host.to_string()).doing(|| format!("{file}: moving {id} into it"));
        moved.map_err(|failure| refused(failure, index, record))
    }

    /// Sets limits, gives files away, and freezes what is frozen by itself: when nothing is left to be built.
    ///
    /// # Errors
    /// [`Kind::Incompatible`] with the line of `cgroups` and the limit that this host refuses.
    pub fn finish(&self, notes: &mut Vec<String>) -> Result<(), Failure> {
        for (index, record) in self.records.iter().enumerate() {
            let path = self.path(index);
            for setting in &record.settings {
                if !set(&path, setting).map_err(|failure| refused(failure, index, record))? {
                    notes.push(format!(
                        "{}: {} is lost: this host has no such limit for it",
                        line(index, record),
                        setting.file
                    ));
                }
            }
            give_to_maker(&path, record.maker)
                .doing(|| "giving its files to who made it")
                .map_err(|failure| refused(failure, index, record))?;
            for file in &record.delegated {
                let at = path.join(&file.file);
                let given = chown(&at, Some(file.uid), Some(file.gid))
                    .and_then(|()| fs::set_permissions(&at, Permissions::from_mode(file.mode.0)));
                match given {
                    // Of a controller that this host does not have.
                    Err(error) if error.kind() == ErrorKind::NotFound => {}
                    given => given
                        .doing(|| format!("{}: setting its owner and permissions", file.file))
                        .map_err(|failure| refused(failure, index, record))?,
                }
            }
            if record.frozen {
                write(&path, "cgroup.freeze", "1")
                    .doing(|| "freezing it")
                    .map_err(|failure| refused(failure, index, record))?;
            }
        }
        Ok(())
    }
}

/// Gives away the files of a cgroup, those of its controllers among them.
fn give_to_maker(path: &Path, maker: Maker) -> std::io::Result<()> {
    if maker == Maker::default() {
        return Ok(());
    }
    for entry in fs::read_dir(path)? {
        let entry = entry?;
        if entry.file_type()?.is_file() {
            chown(entry.path(), Some(maker.uid), Some(maker.gid))?;
        }
    }
    Ok(())
}

/// Controllers without which the container's own cgroup is not what it was.
fn needs(top: &Cgroup) -> impl Iterator<Item = &str> {
    let limits = top.settings.iter().map(Setting::controller).filter(|&name| name != "cgroup");
    limits.chain(top.controllers.iter().map(String::as_str))
}

/// Writes a setting, a line at a time, unless it is so. False where there is no such file, or no such device in it.
fn set(path: &Path, setting: &Setting) -> Result<bool, Failure> {
    let now = match fs::read_to_string(path.join(&setting.file)) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(false),
        text => text.doing(|| format!("{}: reading", setting.file))?,
    };
    if now.trim_end() == setting.value {
        return Ok(true);
    }
    if setting.file == "memory.max" {
        fits(path, &setting.value)?;
    }
    let lines: Vec<&str> = if setting.value.is_empty() { vec![""] } else { setting.value.lines().collect() };
    for line in lines {
        match write(path, &setting.file, &format!("{line}\n")) {
            Err(error) if error.raw_os_error() == Some(Errno::ENODEV as i32) => return Ok(false),
            written => written.doing(|| format!("{}: writing {line:?}", setting.file))?,
        }
    }
    Ok(true)
}

/// A limit below what is used would have the kernel kill processes that are not even there yet.
fn fits(path: &Path, limit: &str) -> Result<(), Failure> {
    let used = fs::read_to_string(path.join("memory.current")).doing(|| "memory.current: reading")?;
    let bytes = |text: &str| text.trim().parse::<u64>().ok();
    match (bytes(&used), bytes(limit)) {
        (Some(used), Some(limit)) if used > limit => Err(Failure::new(
            Kind::Incompatible,
            format!("memory.max: {limit} bytes are less than the {used} that its processes use; raise it in the copy"),
        )),
        _ => Ok(()),
    }
}

/// Without O_CREAT: in a directory that is no cgroup a new file would look like success.
fn write(path: &Path, file: &str, text: &str) -> std::io::Result<()> {
    fs::OpenOptions::new().write(true).open(path.join(file))?.write_all(text.as_bytes())
}

fn line(index: usize, record: &Cgroup) -> String {
    format!("{CGROUPS}: line {}: {}", index + 1, record.path)
}

fn refused(failure: Failure, index: usize, record: &Cgroup) -> Failure {
    Failure { kind: Kind::Incompatible, ..failure.within(line(index, record)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn setting(file: &str, value: &str) -> Setting {
        Setting { file: file.to_owned(), value: value.to_owned() }
    }

    #[test]
    fn a_limit_is_written_where_it_is_another() {
        let directory = tempfile::tempdir().unwrap();
        let at = |file: &str| directory.path().join(file);
        fs::write(at("pids.max"), "max\n").unwrap();
        assert!(set(directory.path(), &setting("pids.max", "20")).unwrap());
        assert_eq!(fs::read_to_string(at("pids.max")).unwrap(), "20\n\n", "the old text was four bytes long");
        fs::write(at("io.max"), "").unwrap();
        assert!(set(directory.path(), &setting("io.max", "8:0 riops=1\n8:16 riops=2")).unwrap());
        assert!(!set(directory.path(), &setting("cpu.max", "1 100000")).unwrap());
        assert!(!at("cpu.max").exists());
    }

    #[test]
    fn memory_that_is_used_is_not_taken_away() {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("memory.max"), "max\n").unwrap();
        fs::write(directory.path().join("memory.current"), "8192\n").unwrap();
        let failure = set(directory.path(), &setting("memory.max", "4096")).unwrap_err();
        assert_eq!(failure.kind, Kind::Incompatible);
        assert!(failure.to_string().contains("less than the 8192 that its processes use"), "{failure}");
        assert!(set(directory.path(), &setting("memory.max", "8192")).unwrap());
    }
}
