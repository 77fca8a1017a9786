//! Segments as processes have them mapped.

use super::super::Findings;
use super::super::container::inside::{IPC, inside};
use super::super::contents::{mapped_at, mapped_here};
use crate::failure::{Doing, Failure, Kind};
use crfs_sys::sysv::Attachment;
use image_format::layout::process_file;
use image_format::memory::{Backing, Segment, SysvShm};
use image_format::namespaces::ipc_namespaces;
use image_format::{Image, Pid};
use nix::fcntl::{Flock, FlockArg};
use std::fs::File;
use std::path::Path;

const WHOLE: &str = "Attach it again, and detach it as a whole";

/// Obstacles of attachments, once all segments are known: of which a part was unmapped, or of another namespace.
/// What [`image_format::check`] would refuse.
pub fn report(image: &Image, findings: &mut Findings) {
    for (&pid, process) in &image.processes {
        let mut pieces = process.segments.iter().filter_map(|segment| match &segment.backing {
            Backing::SysvShm(piece) => Some((segment, piece)),
            _ => None,
        });
        while let Some((first, piece)) = pieces.next() {
            let Some((_, whole)) = image.segment_of(pid, piece.segment) else {
                block(pid, first, piece, "is of another ipc namespace", findings);
                continue;
            };
            let whole = whole.attached_size();
            let mut covered = piece.offset + (first.end.0 - first.start.0);
            let mut at = first.end;
            while piece.offset == 0 && covered < whole {
                let next = pieces.clone().next();
                let Some((next, part)) = next
                    .filter(|(next, part)| next.start == at && part.segment == piece.segment && part.offset == covered)
                else {
                    break;
                };
                covered += next.end.0 - next.start.0;
                at = next.end;
                let _ = (pieces.next(), part);
            }
            if piece.offset != 0 || covered != whole {
                block(pid, first, piece, "is attached in part only", findings);
            }
        }
    }
}

/// Obstacles of attachments that are not of the segment which has that id where the image looks for it ([`Image::segment_of`]): the process has
/// left the ipc namespace of its segment. `init` (host pid) is in the container's own, and `host` gives the others.
///
/// The caller must have one thread.
///
/// # Errors
/// When a process is gone, or a segment cannot be attached.
pub fn report_others(
    image: &Image,
    init: i32,
    host: impl Fn(Pid) -> Option<i32>,
    findings: &mut Findings,
) -> Result<(), Failure> {
    // The first who is in each.
    let apart = ipc_namespaces(&image.namespaces).map(|(_, _, members)| members.first().and_then(|&pid| host(pid)));
    let members: Vec<Option<i32>> = [Some(init)].into_iter().chain(apart).collect();
    if members.len() < 2 {
        return Ok(());
    }
    for (&pid, process) in &image.processes {
        for segment in &process.segments {
            let Backing::SysvShm(piece) = &segment.backing else { continue };
            let Some((number, _)) = image.segment_of(pid, piece.segment) else { continue };
            let member = usize::try_from(number).ok().and_then(|number| *members.get(number)?);
            let Some((member, host)) = member.zip(host(pid)) else { continue };
            let doing = || format!("{}: segment {}", process_file(pid, "mem.segments"), piece.segment);
            let link = mapped_at(host, segment.start.0).doing(doing)?;
            let id = i32::try_from(piece.segment).doing(doing)?;
            if !inside(member, &[IPC], || is_segment(&link, id).map_err(|failure| failure.within(doing())))? {
                block(pid, segment, piece, "is of another ipc namespace", findings);
            }
        }
    }
    Ok(())
}

/// Whether a link of map_files leads to the segment that has this id in the caller's ipc namespace. In others its file has the same number:
/// one that is locked here is locked there only if it is the same.
fn is_segment(link: &Path, id: i32) -> Result<bool, Failure> {
    let here = Attachment::new(id, false).doing(|| "attaching it")?;
    let open = |link: &Path| File::open(link).doing(|| "opening it");
    let (own, other) = (open(&mapped_here(here.address()).doing(|| "finding it")?)?, open(link)?);
    let lock = |file| Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(|(_, errno)| errno);
    let held = lock(own).map_err(|errno| Failure::new(Kind::System, format!("locking it: {}", errno.desc())))?;
    let same = lock(other).is_err();
    drop(held);
    Ok(same)
}

fn block(pid: Pid, segment: &Segment, piece: &SysvShm, why: &str, findings: &mut Findings) {
    findings.block(
        format!("{}: {}-{}", process_file(pid, "mem.segments"), segment.start, segment.end),
        format!("the System V segment {} {why}, which is not carried", piece.segment),
        WHOLE,
    );
}
