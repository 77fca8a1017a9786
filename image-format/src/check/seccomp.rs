//! `seccomp`: filters that the kernel takes, in an order in which they can be installed.

use super::Findings;
use crate::image::Image;
use crate::layout::{SECCOMP, thread_file};
use crate::seccomp::{Seccomp, SeccompFilter, SeccompFlags};

/// BPF_MAXINSNS.
pub(super) const INSTRUCTIONS_LIMIT: usize = 4096;
/// No thread can have more: each counts as five instructions at least of the 32768 that MAX_INSNS_PER_PATH allows
/// (kernel/seccomp.c, v6.18).
const DEPTH_LIMIT: u32 = 6553;

pub(super) fn check(image: &Image, findings: &mut Findings) {
    let filters = &image.seccomp;
    let mut depths: Vec<u32> = Vec::with_capacity(filters.len());
    for (index, filter) in (0..).zip(filters) {
        let below = match filter.after {
            None => Some(0),
            // Numbers count from 1, so that of the line before is at index `after - 1`.
            Some(after) => after.checked_sub(1).and_then(|at| depths.get(at as usize).copied()),
        };
        let depth = below.unwrap_or(0).saturating_add(1);
        let problems = [
            (u64::from(filter.filter) != index + 1)
                .then(|| format!("filter {} stands where filter {} belongs", filter.filter, index + 1)),
            below.is_none().then(|| format!("after {}: no earlier line has it", filter.after.unwrap_or(0))),
            (depth == DEPTH_LIMIT + 1).then(|| format!("a thread cannot have more than {DEPTH_LIMIT} filters")),
            (filter.flags.0 & !SeccompFlags::SECCOMP_FILTER_FLAG_LOG.0 != 0)
                .then(|| format!("flags: {:#x} is not known here", filter.flags.0)),
            program(filter),
        ];
        for problem in problems.into_iter().flatten() {
            findings.line(SECCOMP, index, problem);
        }
        depths.push(depth);
    }
    for (&pid, process) in &image.processes {
        for (&tid, thread) in &process.threads {
            if let Seccomp::Filter(number) = thread.attr.seccomp
                && !(1..=filters.len()).contains(&(number as usize))
            {
                findings.add(&thread_file(pid, tid, "attr"), format!("seccomp: there is no filter {number}"));
            }
        }
    }
}

/// What the kernel would refuse of a program (`bpf_check_classic` of net/core/filter.c and `seccomp_check_filter` of
/// kernel/seccomp.c, v6.18), but for the order in which it uses its memory.
fn program(filter: &SeccompFilter) -> Option<String> {
    let (instructions, rest) = filter.program.0.as_chunks::<8>();
    if !rest.is_empty() || instructions.is_empty() || instructions.len() > INSTRUCTIONS_LIMIT {
        let bytes = filter.program.0.len();
        return Some(format!("program: {bytes} bytes are not 1 to {INSTRUCTIONS_LIMIT} instructions of 8"));
    }
    for (at, &[code_low, code_high, jump_true, jump_false, k0, k1, k2, k3]) in (1u64..).zip(instructions) {
        let code = u16::from_ne_bytes([code_low, code_high]);
        let k = u32::from_ne_bytes([k0, k1, k2, k3]);
        if !takes(code, k) {
            return Some(format!("program: instruction {at} (code {code:#x}, k {k:#x}) is none of seccomp's"));
        }
        // How many instructions are left out.
        let jump = match code {
            0x05 => u64::from(k),
            _ if code & 7 == 5 => u64::from(jump_true.max(jump_false)),
            _ => 0,
        };
        if code & 7 == 5 && at + jump >= instructions.len() as u64 {
            return Some(format!("program: instruction {at} jumps past the end"));
        }
    }
    let returns = instructions.last().is_some_and(|last| last[0] & 7 == 6);
    (!returns).then(|| "program: it does not end with a return".to_owned())
}

/// Whether a filter may have this instruction. Codes: include/uapi/linux/bpf_common.h.
fn takes(code: u16, k: u32) -> bool {
    match code {
        // A word of struct seccomp_data.
        0x20 => k < 64 && k.is_multiple_of(4),
        // Constants and the length, returns, moves.
        0x00 | 0x01 | 0x80 | 0x81 | 0x06 | 0x16 | 0x07 | 0x87 => true,
        // The 16 words of memory.
        0x60 | 0x61 | 0x02 | 0x03 => k < 16,
        // Division and shifts by a constant.
        0x34 => k != 0,
        0x64 | 0x74 => k < 32,
        // Other arithmetic.
        0x04 | 0x0c | 0x14 | 0x1c | 0x24 | 0x2c | 0x3c | 0x44 | 0x4c | 0x54 | 0x5c | 0x6c | 0x7c | 0x84 | 0xa4
        | 0xac => true,
        // Jumps.
        0x05 | 0x15 | 0x1d | 0x25 | 0x2d | 0x35 | 0x3d | 0x45 | 0x4d => true,
        _ => false,
    }
}
