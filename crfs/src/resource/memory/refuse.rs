//! Mappings that cannot be carried because of their flags; those refused for what they map are in `backing.rs`.

use super::super::Findings;
use super::smaps::Mapping;
use image_format::memory::Backing;
use image_format::{Pid, layout};

/// Where a mapping stands in the tree.
pub(super) fn object(pid: Pid, mapping: &Mapping) -> String {
    let path = layout::process_file(pid, "mem.segments");
    format!("{path}: {:#x}-{:#x}", mapping.start, mapping.end)
}

/// Flags that follow from the protection and the backing, or that say nothing a program could see.
const IMPLIED: [&[u8; 2]; 15] =
    [b"rd", b"wr", b"ex", b"sh", b"mr", b"mw", b"me", b"ms", b"sd", b"ac", b"nr", b"gd", b"lo", b"dc", b"gu"];
/// Further flags that are carried.
const CARRIED: [&[u8; 2]; 10] = [b"dd", b"wf", b"hg", b"nh", b"mg", b"sr", b"rr", b"sl", b"dp", b"lf"];
/// What memory from a pool of huge pages always has (`hugetlbfs_file_mmap` in `fs/hugetlbfs/inode.c`, v6.18).
const HUGE: [&[u8; 2]; 2] = [b"ht", b"de"];

/// Flags with words of their own.
const REFUSED: [(&[u8; 2], &str); 8] = [
    (b"ht", "maps huge pages of hugetlbfs"),
    (b"um", "is registered with userfaultfd"),
    (b"uw", "is registered with userfaultfd for write protection"),
    (b"ui", "is registered with userfaultfd for minor faults"),
    (b"ss", "is a shadow stack"),
    (b"io", "maps the memory of a device"),
    (b"pf", "maps pages of a driver"),
    (b"mm", "maps pages of a driver"),
];

/// Adds an obstacle for every flag in the way. What has no `backing` was refused for what it maps, and one obstacle is enough.
pub(super) fn mapping(pid: Pid, mapping: &Mapping, backing: Option<&Backing>, findings: &mut Findings) {
    let Some(backing) = backing.filter(|_| !mapping.is_kernel_made()) else { return };
    let huge = mapping.has(b"ht")
        && match backing {
            Backing::HugePages(_) | Backing::SysvShm(_) => true,
            // A private one has pages of its own beside the file's.
            Backing::Unnamed(_) => mapping.shared,
            _ => false,
        };
    let is_rings = |flag: &[u8; 2]| match backing {
        Backing::AioRing => flag == b"de",
        // Pages of the kernel's own (`io_uring_mmap` in io_uring/memmap.c, v6.18).
        Backing::IoUring(_) => [b"de", b"mm"].contains(&flag),
        _ => false,
    };
    for flag in &mapping.flags {
        if IMPLIED.contains(&flag) || CARRIED.contains(&flag) || huge && HUGE.contains(&flag) || is_rings(flag) {
            continue;
        }
        let known = REFUSED.iter().find(|(letters, _)| *letters == flag).map(|(_, words)| (*words).to_owned());
        let unknown =
            || format!("has the flag {:?} in smaps, which this version does not know", String::from_utf8_lossy(flag));
        findings.block(
            object(pid, mapping),
            format!("{}; not carried yet", known.unwrap_or_else(unknown)),
            "Unmap it before the checkpoint",
        );
    }
    if mapping.protection_key != 0 {
        findings.block(
            object(pid, mapping),
            format!("has protection key {}; not carried yet", mapping.protection_key),
            "Use mprotect in place of pkey_mprotect",
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn blockers(flags: &[&[u8; 2]], name: &str) -> Vec<String> {
        let subject = Mapping {
            start: 0x1000,
            end: 0x2000,
            flags: flags.iter().map(|flag| **flag).collect(),
            name: name.into(),
            ..Mapping::default()
        };
        let mut findings = Findings::default();
        mapping(Pid(7), &subject, Some(&Backing::Anonymous), &mut findings);
        findings.blockers.into_iter().map(|blocker| format!("{}: {}", blocker.object, blocker.reason)).collect()
    }

    #[test]
    fn ordinary_flags_pass_and_others_are_named() {
        assert!(blockers(&[b"rd", b"wr", b"mr", b"mw", b"me", b"gd", b"ac", b"sd", b"nh"], "[stack]").is_empty());
        assert_eq!(
            blockers(&[b"rd", b"um", b"zz"], ""),
            [
                "0x00000007/mem.segments: 0x1000-0x2000: is registered with userfaultfd; not carried yet",
                "0x00000007/mem.segments: 0x1000-0x2000: has the flag \"zz\" in smaps, which this version does not know; not carried yet",
            ]
        );
        assert!(blockers(&[b"rd", b"pf", b"io", b"de"], "[vvar]").is_empty());
    }
}
