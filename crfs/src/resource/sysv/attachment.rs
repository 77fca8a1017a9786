//! Segments as processes have them mapped.

use super::super::Findings;
use image_format::layout::process_file;
use image_format::memory::{Backing, Segment, SysvShm};
use image_format::sysv::SharedSegment;
use image_format::{Image, Pid};
use std::collections::BTreeMap;

const WHOLE: &str = "Attach it again, and detach it as a whole";

/// Obstacles of attachments, once all segments are known: of which a part was unmapped, or of another namespace.
/// What [`image_format::check`] would refuse.
pub fn report(image: &Image, findings: &mut Findings) {
    let segments: BTreeMap<u32, &SharedSegment> = image.sysv.segments.iter().map(|s| (s.id, s)).collect();
    for (&pid, process) in &image.processes {
        let mut pieces = process.segments.iter().filter_map(|segment| match &segment.backing {
            Backing::SysvShm(piece) => Some((segment, piece)),
            _ => None,
        });
        while let Some((first, piece)) = pieces.next() {
            let Some(whole) = segments.get(&piece.segment) else {
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

fn block(pid: Pid, segment: &Segment, piece: &SysvShm, why: &str, findings: &mut Findings) {
    findings.block(
        format!("{}: {}-{}", process_file(pid, "mem.segments"), segment.start, segment.end),
        format!("the System V segment {} {why}, which is not carried", piece.segment),
        WHOLE,
    );
}
