//! Standard streams that lead outside, and that the user has declared (`--external stdio`): those of a container that another program made
//! are pipes whose other ends it holds, files that only it sees, or a terminal that it shows. A restore gives the container its log for outputs,
//! and no input; in the place of such a terminal a console of its own.

use super::capture::{Pass, Whose};
use super::refused::Refusal;
use super::seen::Seen;
use crate::external::External;
use image_format::files::{Device, FileKind, IfChanged, OpenFlags, RegularFile};
use image_format::{Bytes, Timespec};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;

impl Pass<'_> {
    /// What the ends of a pipe become, if one of them is such a stream and all go the same way.
    pub(super) fn pipe_outside(&mut self, ends: &[usize], whose: Whose<'_>) -> Option<Vec<FileKind>> {
        ends.iter().any(|&end| self.is_declared(end, whose)).then_some(())?;
        let kinds = ends.iter().map(|&end| self.outside(end)).collect::<Option<Vec<_>>>()?;
        let is_output = |kind: &FileKind| matches!(kind, FileKind::Regular(_));
        if kinds.iter().any(|kind| is_output(kind) != is_output(&kinds[0])) {
            return None;
        }
        self.streams.extend(ends);
        Some(kinds)
    }

    /// What a file that cannot be carried becomes, if it is such a stream.
    ///
    /// # Errors
    /// Whether it would be if it were declared.
    pub(super) fn file_outside(&mut self, index: usize, whose: Whose<'_>) -> Result<FileKind, bool> {
        let is_file = self.table.descriptions[index].seen.file_type() == libc::S_IFREG;
        let kind = (is_file && self.is_stream(index, whose)).then(|| self.outside(index)).flatten().ok_or(false)?;
        if !is_declared(whose) {
            return Err(true);
        }
        self.streams.insert(index);
        Ok(kind)
    }

    /// What has been shown on a terminal, if it is such a stream, and the container has no console yet: nothing that anybody here knows. A
    /// restore makes it the console.
    pub(super) fn terminal_outside(
        &self,
        mut sides: impl Iterator<Item = usize>,
        whose: Whose<'_>,
    ) -> Option<&'static [u8]> {
        let is_first = self.console.is_none() && self.out.ttys.values().all(|pty| pty.console.is_none());
        (is_first && sides.any(|side| self.is_declared(side, whose))).then_some(&[])
    }

    fn is_declared(&self, index: usize, whose: Whose<'_>) -> bool {
        is_declared(whose) && self.is_stream(index, whose)
    }

    fn is_stream(&self, index: usize, whose: Whose<'_>) -> bool {
        let holders = &self.table.descriptions[index].holders;
        holders.iter().any(|holder| holder.host == whose.init && (0..=2).contains(&holder.fd))
    }

    /// None for what is open for both, as no log can be.
    fn outside(&self, index: usize) -> Option<FileKind> {
        let seen = &self.table.descriptions[index].seen;
        match (seen.readable(), seen.writable()) {
            (true, false) => Some(FileKind::Device(Device { path: "/dev/null".into(), major: 1, minor: 3 })),
            (false, true) => {
                let log = std::fs::metadata(self.log).ok();
                let modified = log
                    .as_ref()
                    .map_or(0, |log| i128::from(log.mtime()) * 1_000_000_000 + i128::from(log.mtime_nsec()));
                Some(FileKind::Regular(RegularFile {
                    path: Bytes(self.log.as_os_str().as_bytes().to_vec()),
                    size: log.map_or(0, |log| log.size()),
                    modified: Timespec::from_ns(modified),
                    if_changed: IfChanged::Default,
                }))
            }
            _ => None,
        }
    }
}

fn is_declared(whose: Whose<'_>) -> bool {
    whose.external.contains(&External::Stdio)
}

/// The refusal of what could be carried as such a stream.
pub(super) fn declare(refusal: Refusal) -> Refusal {
    let remedy = refusal.remedy.trim_end_matches('.');
    let remedy = format!(
        "{remedy}; or freeze with `--external stdio`, since it is a standard stream of the container's first process."
    );
    Refusal::new(refusal.reason, remedy)
}

/// As the streams of `crctl run` have them: what several processes write does not overwrite each other.
pub(super) fn flags(seen: &Seen) -> OpenFlags {
    const CARRIED: u64 = OpenFlags::O_NONBLOCK.0 | 3;
    let flags = seen.flags().0 & CARRIED;
    OpenFlags(if seen.writable() { flags | OpenFlags::O_APPEND.0 } else { flags })
}

/// The refusal of an epoll instance that has such a stream: it takes no files.
pub(super) fn watched(descriptor: i32) -> Refusal {
    Refusal::new(
        format!("an epoll instance watches descriptor {descriptor}, a standard stream that would be joined to a file"),
        "Have the program remove it with EPOLL_CTL_DEL before the freeze, or redirect it to a file.",
    )
}
