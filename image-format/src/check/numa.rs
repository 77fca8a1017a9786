//! NUMA policies: what they are for is there, and values the kernel takes.

use super::Findings;
use crate::image::ProcessImage;
use crate::layout::process_file;
use crate::numa::{NODE_LIMIT, NumaFlags, NumaMode, NumaOwner, NumaPolicy};
use crate::types::Pid;
use std::collections::BTreeSet;

pub(super) fn check(pid: Pid, process: &ProcessImage, findings: &mut Findings) {
    if process.numa.is_empty() {
        return;
    }
    let path = process_file(pid, "numa");
    let mappings: BTreeSet<_> = process.segments.iter().map(|segment| segment.start).collect();
    let mut previous = None;
    for (index, policy) in (0..).zip(&process.numa) {
        let lost = match policy.of {
            NumaOwner::Thread(tid) => {
                (!process.threads.contains_key(&tid)).then(|| format!("the process has no thread {tid}"))
            }
            NumaOwner::Mapping(start) => {
                (!mappings.contains(&start)).then(|| format!("no line of mem.segments begins at {start}"))
            }
        };
        let disorder = previous.is_some_and(|previous| previous >= policy.of);
        let disorder = disorder.then(|| "not in ascending order: threads, then mappings".to_owned());
        for problem in [lost, disorder].into_iter().flatten() {
            findings.line(&path, index, format!("of: {problem}"));
        }
        for problem in values(policy) {
            findings.line(&path, index, problem);
        }
        previous = Some(policy.of);
    }
}

/// `sanitize_mpol_flags`, `mpol_new` and `set_mempolicy_home_node` (mm/mempolicy.c, v6.18).
fn values(policy: &NumaPolicy) -> impl Iterator<Item = String> {
    let NumaPolicy { of, mode, flags, nodes, home_node } = policy;
    let has = |flag: NumaFlags| flags.contains(flag);
    let (fixed, relative) = (has(NumaFlags::MPOL_F_STATIC_NODES), has(NumaFlags::MPOL_F_RELATIVE_NODES));
    let balancing = has(NumaFlags::MPOL_F_NUMA_BALANCING);
    let known =
        NumaFlags::MPOL_F_STATIC_NODES.0 | NumaFlags::MPOL_F_RELATIVE_NODES.0 | NumaFlags::MPOL_F_NUMA_BALANCING.0;
    let binds = matches!(mode, NumaMode::Bind | NumaMode::PreferredMany);
    let local = *mode == NumaMode::Local;
    let beyond = nodes.iter().chain(home_node).find(|&&node| node >= NODE_LIMIT);
    let problems = [
        (flags.0 & !known != 0).then(|| format!("flags: {:#x} is not known here", flags.0)),
        (fixed && relative).then(|| "flags: nodes cannot be both static and relative".to_owned()),
        (balancing && !binds)
            .then(|| "flags: MPOL_F_NUMA_BALANCING goes with the modes bind and preferred_many".to_owned()),
        (local && (fixed || relative || !nodes.is_empty())).then(|| "mode: local goes without nodes".to_owned()),
        (!local && nodes.is_empty()).then(|| "nodes: none is left".to_owned()),
        (!nodes.is_sorted_by(|a, b| a < b)).then(|| "nodes: not in ascending order".to_owned()),
        beyond.map(|node| format!("nodes: no machine has a node {node}")),
        (home_node.is_some() && !(binds && matches!(of, NumaOwner::Mapping(_))))
            .then(|| "home_node: only mappings with the modes bind and preferred_many have one".to_owned()),
    ];
    problems.into_iter().flatten()
}
