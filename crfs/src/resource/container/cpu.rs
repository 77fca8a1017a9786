//! The CPU features that a program may have found and now relies on.

use crate::failure::{Doing, Failure};
use std::fs::File;
use std::io::Read;

/// Words that Linux adds to `flags` for itself: how it times, how it guards against speculation, what the machine is. No CPUID bit
/// that a program acts on stands behind them (`arch/x86/include/asm/cpufeatures.h`, v6.18, words 3, 7, 8, 11 and 21).
const LINUX_OWN: [&str; 42] = [
    "art",
    "arch_perfmon",
    "amd_dcm",
    "aperfmperf",
    "bts",
    "constant_tsc",
    "cpb",
    "cpuid",
    "cpuid_fault",
    "cqm",
    "epb",
    "extd_apicid",
    "hw_pstate",
    "hypervisor",
    "ibpb",
    "ibrs",
    "ibrs_enhanced",
    "k8",
    "nonstop_tsc",
    "nonstop_tsc_s3",
    "nopl",
    "pebs",
    "proc_feedback",
    "pti",
    "rapl",
    "rep_good",
    "retpoline",
    "rsb_ctxsw",
    "split_lock_detect",
    "ssbd",
    "stibp",
    "tpr_shadow",
    "tsc_known_freq",
    "tsc_reliable",
    "tsc_scale",
    "up",
    "vmmcall",
    "vnmi",
    "vpid",
    "xtopology",
    "flexpriority",
    "ept",
];

/// The flags of the first CPU, sorted.
///
/// # Errors
/// When /proc/cpuinfo cannot be read.
pub(super) fn flags() -> Result<Vec<String>, Failure> {
    let mut buffer = vec![0; 1 << 14];
    let mut file = File::open("/proc/cpuinfo").doing(|| "/proc/cpuinfo: opening")?;
    // The first read returns whole entries, of which one is enough; a machine has many.
    let count = file.read(&mut buffer).doing(|| "/proc/cpuinfo: reading")?;
    let text = String::from_utf8_lossy(&buffer[..count]);
    let line = text.lines().find_map(|line| line.strip_prefix("flags")?.split_once(": "));
    let words = line.map_or("", |(_, words)| words).split_ascii_whitespace();
    let mut flags: Vec<String> = words.filter(|word| !LINUX_OWN.contains(word)).map(ToOwned::to_owned).collect();
    flags.sort();
    Ok(flags)
}

#[cfg(test)]
mod tests {
    #[test]
    fn every_x86_64_has_sse2_and_linux_own_words_are_left_out() {
        let flags = super::flags().expect("readable");
        assert!(flags.iter().any(|flag| flag == "sse2"), "{flags:?}");
        assert!(!flags.iter().any(|flag| flag == "constant_tsc"));
    }
}
