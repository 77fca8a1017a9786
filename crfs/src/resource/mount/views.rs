//! The mount namespaces that some processes of a container have apart, looked into from outside.

use super::super::container::Place;
use super::super::proc::Proc;
use super::super::subject::Subjects;
use super::super::{Findings, unshared};
use super::own::owner_of_mounts;
use crate::failure::Failure;
use crate::mountinfo::{Mount, mounts};
use crate::registry::Record;
use image_format::Pid;
use image_format::files::NamespaceType;
use image_format::layout::thread_file;
use image_format::manifest::NamespaceKind;

/// The links of /proc/PID/ns of what file systems show; which pid namespace a /proc shows is told by its process 1.
const SHOWN: [(&str, &str); 2] = [("ipc", "mqueue"), ("net", "sysfs")];

/// A mount namespace of a container, as it is seen from outside.
#[derive(Debug)]
pub struct View {
    /// The processes of the container that are in it, where it is not the container's own.
    pub processes: Vec<Pid>,
    /// A process whose root directory is that of the namespace, as the host numbers it.
    pub host: i32,
    /// Its root directory.
    pub place: Place,
    /// The types of file systems that show a namespace which some process here has apart: which of them is not told.
    pub(super) ambiguous: Vec<&'static str>,
    /// The user namespace that it belongs to, by its inode.
    pub(super) owner: u64,
    /// What is mounted, but for crfs, which is in a container only until its restore.
    pub(super) mounts: Vec<Mount>,
}

impl View {
    /// What a process (host pid) sees, whose root directory is `place`.
    ///
    /// # Errors
    /// When it is gone.
    pub(super) fn of(host: i32, place: Place, proc: &mut Proc) -> Result<Self, Failure> {
        let mut mounts = mounts(proc.bytes(format_args!("{host}/mountinfo"))?);
        mounts.retain(|mount| !mount.is_crfs());
        let owner = owner_of_mounts(host)?;
        Ok(View { processes: Vec::new(), host, place, ambiguous: Vec::new(), owner, mounts })
    }
}

/// The mount namespaces apart, counted from 1 by the first process that is in each.
#[derive(Debug, Default)]
pub struct Views(Vec<View>);

impl Views {
    /// Looks into those of a container; obstacles for those that cannot be looked into.
    ///
    /// # Errors
    /// When a process is gone.
    pub fn look(
        record: &Record,
        subjects: &Subjects,
        proc: &mut Proc,
        findings: &mut Findings,
    ) -> Result<Self, Failure> {
        let mut views = Vec::new();
        for members in unshared::apart(NamespaceType::Mnt, subjects, proc, findings)? {
            let mut from_the_top = None;
            for &(_, host) in &members {
                if from_the_top.is_none() && proc.link(format_args!("{host}/root"))? == b"/" {
                    from_the_top = Some(host);
                }
            }
            let mut others = |link: &str| -> Result<bool, Failure> {
                let own = proc.link(format_args!("{}/ns/{link}", subjects.init))?;
                members.iter().try_fold(false, |found, (_, host)| {
                    Ok(found || proc.link(format_args!("{host}/ns/{link}"))? != own)
                })
            };
            let mut ambiguous = Vec::new();
            for (link, file_system) in SHOWN {
                if others(link)? {
                    ambiguous.push(file_system);
                }
            }
            let (first, _) = members[0];
            let mut refuse = |reason: &str, remedy: &str| {
                let reason = format!("is in another mount namespace than the container's first process, {reason}");
                findings.block(thread_file(first, first, "attr"), reason, remedy);
            };
            match from_the_top {
                _ if record.shares(NamespaceKind::Mnt) => {
                    refuse("which has the host's", "Start all of it by `crctl run`")
                }
                None => refuse(
                    "and all there have another root directory (chroot)",
                    "Have it call pivot_root in the place of chroot",
                ),
                Some(host) => {
                    let processes = members.iter().map(|&(pid, _)| pid).collect();
                    views.push(View { processes, ambiguous, ..View::of(host, Place::at_root_of(host), proc)? });
                }
            }
        }
        Ok(Views(views))
    }

    /// All of them, in the order of their numbers.
    pub(in crate::resource) fn all(&self) -> &[View] {
        &self.0
    }

    /// Where that of a number is looked into.
    pub(in crate::resource) fn place(&self, number: u32) -> Option<&Place> {
        (1..).zip(&self.0).find(|(known, _)| *known == number).map(|(_, view)| &view.place)
    }

    /// The place in which a process finds its paths; None: in the container's own.
    #[must_use]
    pub fn of_process(&self, process: Pid) -> Option<(u32, &View)> {
        self.find(|view| view.processes.contains(&process))
    }

    /// The one that a mount is in, by its number on this host; None: it is in the container's own, or elsewhere.
    #[must_use]
    pub fn of_mount(&self, mount: u64) -> Option<(u32, &View)> {
        self.find(|view| view.mounts.iter().any(|known| u64::from(known.id) == mount))
    }

    fn find(&self, is_it: impl Fn(&View) -> bool) -> Option<(u32, &View)> {
        (1..).zip(&self.0).find(|(_, view)| is_it(view))
    }
}
