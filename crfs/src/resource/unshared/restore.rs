//! From the records to namespaces that processes join.

use crate::failure::{Doing, Failure};
use crate::launch::set_names;
use crfs_tracee::Batch;
use image_format::Pid;
use image_format::files::NamespaceType;
use image_format::layout::NAMESPACES;
use image_format::namespaces::{NamespaceContent, UnsharedNamespace};
use nix::sched::{CloneFlags, setns, unshare};
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::fs::File;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::ffi::OsStrExt;

/// The namespaces of the types that processes do not all have in common, held open by the worker.
#[derive(Debug, Default)]
pub struct Made(BTreeMap<NamespaceType, OfType>);

#[derive(Debug)]
struct OfType {
    flag: CloneFlags,
    /// The container's own.
    own: File,
    /// Each of the others, and who is in it.
    others: Vec<(File, BTreeSet<Pid>)>,
}

impl Made {
    /// Makes them in the calling process, which is back in its own afterwards and must have one thread. `init` is a process (host pid) in
    /// the container's own.
    ///
    /// # Errors
    /// When one cannot be made, with its line.
    pub fn make(init: i32, records: &[UnsharedNamespace]) -> Result<Self, Failure> {
        let mut made = BTreeMap::new();
        for (index, record) in records.iter().enumerate() {
            let kind = record.kind();
            let flag = match record.content {
                NamespaceContent::Ipc => CloneFlags::CLONE_NEWIPC,
                NamespaceContent::Uts(_) => CloneFlags::CLONE_NEWUTS,
            };
            let doing = |failure: Failure| failure.within(format!("{NAMESPACES}: line {}", index + 1));
            let namespace = make_one(record, flag).map_err(doing)?;
            let of_type = match made.entry(kind) {
                std::collections::btree_map::Entry::Occupied(known) => known.into_mut(),
                std::collections::btree_map::Entry::Vacant(new) => {
                    new.insert(OfType { flag, own: open(&init.to_string(), kind)?, others: Vec::new() })
                }
            };
            of_type.others.push((namespace, record.processes.iter().copied().collect()));
        }
        Ok(Made(made))
    }

    /// The calls by which a process joins its own, whatever it was born into. `link` is its pidfd of the caller.
    pub fn join(&self, batch: &mut Batch, pid: Pid, link: u32) {
        for OfType { flag, own, others } in self.0.values() {
            let namespace = others.iter().find(|(_, members)| members.contains(&pid)).map_or(own, |(other, _)| other);
            let source = namespace.as_raw_fd();
            let pulled = batch.call(libc::SYS_pidfd_getfd, &[link.into(), source.into(), 0u32.into()], "pidfd_getfd");
            batch.call(libc::SYS_setns, &[pulled.into(), flag.bits().into()], "setns");
            batch.call(libc::SYS_close, &[pulled.into()], "close");
        }
    }
}

fn open(task: &str, kind: NamespaceType) -> Result<File, Failure> {
    let path = format!("/proc/{task}/ns/{}", kind.name());
    File::open(&path).doing(|| format!("{path}: opening"))
}

fn make_one(record: &UnsharedNamespace, flag: CloneFlags) -> Result<File, Failure> {
    let kind = record.kind();
    let back = open("self", kind)?;
    unshare(flag).doing(|| "unshare(2)")?;
    let made = fill(&record.content).and_then(|()| open("self", kind));
    setns(back.as_fd(), flag).doing(|| "going back to the own namespace")?;
    made
}

/// Gives the calling process's namespace, which is new, what it held.
fn fill(content: &NamespaceContent) -> Result<(), Failure> {
    match content {
        NamespaceContent::Ipc => Ok(()),
        NamespaceContent::Uts(names) => {
            set_names(OsStr::from_bytes(&names.hostname.0), OsStr::from_bytes(&names.domainname.0))
        }
    }
}
