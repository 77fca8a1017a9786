//! From the clocks of processes to the records.

use crate::failure::Failure;
use crate::resource::Findings;
use crate::resource::container::Offsets;
use crate::resource::proc::Proc;
use crate::resource::subject::Subjects;
use crate::resource::unshared::apart;
use image_format::files::NamespaceType;
use image_format::layout::process_file;
use image_format::namespaces::{NamespaceContent, UnsharedNamespace};
use image_format::time_namespaces::{ClockHindrance, TimeNamespace};
use image_format::{Image, Pid, Timespec};
use std::collections::BTreeMap;

/// The records. That all threads of a process are alike is looked at elsewhere ([`crate::resource::container`]).
///
/// The caller must have one thread.
///
/// # Errors
/// When a process is gone, or a namespace cannot be joined.
pub fn capture(
    subjects: &Subjects,
    proc: &mut Proc,
    findings: &mut Findings,
) -> Result<Vec<UnsharedNamespace>, Failure> {
    let own = Offsets::of(subjects.init, proc)?;
    let mut found: BTreeMap<Vec<u8>, (Offsets, UnsharedNamespace)> = BTreeMap::new();
    for members in apart(NamespaceType::Time, subjects, proc, findings)? {
        let (_, host) = members[0];
        let [time, _] = links(host, proc)?;
        let processes = members.into_iter().map(|(pid, _)| pid).collect();
        found.insert(time, (Offsets::of(host, proc)?, line(processes)));
    }
    let [time, for_children] = links(subjects.init, proc)?;
    // Those that hang on one pointer with it have the same.
    let of_init = subjects.of_init().filter(|_| time == for_children);
    let mut children: BTreeMap<Vec<u8>, Vec<Pid>> = BTreeMap::new();
    for process in subjects.processes.iter().filter(|process| !process.alive().has_namespaces_of(of_init)) {
        let host = process.alive().host;
        let [time, for_children] = links(host, proc)?;
        if time != for_children {
            if !found.contains_key(&for_children) {
                found.insert(for_children.clone(), (Offsets::for_children(host, proc)?, line(Vec::new())));
            }
            children.entry(for_children).or_default().push(process.pid);
        }
    }
    let records = found.into_iter().map(|(link, (offsets, mut line))| {
        let added = |inner: i128, own: i128| Timespec::from_ns(inner - own);
        line.content = NamespaceContent::Time(TimeNamespace {
            monotonic: added(offsets.monotonic, own.monotonic),
            boottime: added(offsets.boottime, own.boottime),
            for_children_of: children.remove(&link).unwrap_or_default(),
        });
        line
    });
    let mut records: Vec<UnsharedNamespace> = records.collect();
    records.sort_by_key(|line| match &line.content {
        NamespaceContent::Time(time) => (line.processes.clone(), time.for_children_of.clone()),
        _ => Default::default(),
    });
    Ok(records)
}

fn line(processes: Vec<Pid>) -> UnsharedNamespace {
    UnsharedNamespace { content: NamespaceContent::Time(TimeNamespace::default()), processes, user: None }
}

/// What tells a process's own, and that of its children.
fn links(host: i32, proc: &mut Proc) -> Result<[Vec<u8>; 2], Failure> {
    let mut links = proc.links(format_args!("{host}/ns"), &["time", "time_for_children"])?.into_iter();
    Ok([links.next().unwrap_or_default(), links.next().unwrap_or_default()])
}

/// Obstacles of other records, once all are known.
pub fn report(image: &Image, findings: &mut Findings) {
    for (pid, hindrance) in image.clock_hindrances() {
        let what = match hindrance {
            ClockHindrance::SharedMemory(other) => {
                format!(
                    "shares memory with process {other}, which is in another time namespace or has another for its children"
                )
            }
            ClockHindrance::User => {
                "would have its next child in a time namespace that belongs to a user namespace inside".to_owned()
            }
            ClockHindrance::Others(maker) => {
                format!("would have its next child in the time namespace in which process {maker} would have its own")
            }
        };
        findings.block(
            process_file(pid, "process"),
            format!("{what}, and that is not carried"),
            "End it, or have it begin its time namespace otherwise (unshare --time --fork)",
        );
    }
}
