//! Sets NUMA policies again.

use crate::plan::MemoryPlan;
use crfs_tracee::{Arg, Batch};
use image_format::memory::Backing;
use image_format::numa::{NODE_LIMIT, NumaFlags, NumaMode, NumaOwner, NumaPolicy};
use image_format::{Image, Pid, ProcessImage, layout};
use std::collections::{BTreeMap, BTreeSet};

const MPOL_DEFAULT: u64 = 0;
/// Kernels that can have several nodes can at least name these.
const EVERY_KERNELS: u32 = 64;
/// Bytes of a mask of all nodes.
const MASK: usize = NODE_LIMIT as usize / 8;

/// The policies of an image as this host can have them.
#[derive(Debug, Default)]
pub struct Policies(BTreeMap<(Pid, NumaOwner), NumaPolicy>);

impl Policies {
    /// Drops nodes that this host lacks, and tells of it.
    #[must_use]
    pub fn of(image: &Image, notes: &mut Vec<String>) -> Self {
        if image.processes.values().all(|process| process.numa.is_empty()) {
            return Policies::default();
        }
        let here = std::fs::read_to_string("/sys/devices/system/node/has_memory").unwrap_or_default();
        Policies::on(&nodes(&here), image, notes)
    }

    fn on(here: &BTreeSet<u32>, image: &Image, notes: &mut Vec<String>) -> Self {
        let mut policies = BTreeMap::new();
        for (&pid, process) in &image.processes {
            let mut lost = BTreeSet::new();
            for (index, policy) in process.numa.iter().enumerate() {
                let (policy, left) = fitted(policy, here);
                let at = format!("{}: line {}", layout::process_file(pid, "numa"), index + 1);
                lost.extend(left.map(|left| format!("{at}: {left}")));
                policies.extend(policy.map(|policy| ((pid, policy.of), policy)));
            }
            notes.extend(lost);
        }
        Policies(policies)
    }

    /// The calls for a process whose memory is mapped and not filled.
    pub fn of_mappings(&self, batch: &mut Batch, process: &ProcessImage, plan: &MemoryPlan) {
        if self.0.is_empty() {
            return;
        }
        let pid = process.process.pid;
        let inherited: BTreeSet<usize> = plan.keep.iter().copied().collect();
        for (index, segment) in process.segments.iter().enumerate() {
            let (start, length) = (segment.start.0, segment.end.0 - segment.start.0);
            let range = [start.into(), length.into()];
            if let Some(policy) = self.0.get(&(pid, NumaOwner::Mapping(segment.start))) {
                let set = set(batch, policy);
                batch.call(libc::SYS_mbind, &[&range[..], &set, &[0u64.into()]].concat(), "mbind");
                if let Some(node) = policy.home_node {
                    let args = [&range[..], &[u64::from(node).into(), 0u64.into()]].concat();
                    batch.call(libc::SYS_set_mempolicy_home_node, &args, "set_mempolicy_home_node");
                }
            } else if inherited.contains(&index) && !segment.shared && segment.backing != Backing::Vsyscall {
                // Whoever it was inherited from may have one.
                let none = [MPOL_DEFAULT, 0, 0, 0].map(Arg::Value);
                batch.call(libc::SYS_mbind, &[&range[..], &none].concat(), "mbind");
            }
        }
    }

    /// The call of a thread that makes no more children.
    pub fn of_thread(&self, batch: &mut Batch, pid: Pid, tid: Pid) {
        if let Some(policy) = self.0.get(&(pid, NumaOwner::Thread(tid))) {
            let set = set(batch, policy);
            batch.call(libc::SYS_set_mempolicy, &set, "set_mempolicy");
        }
    }
}

/// Mode with flags, nodes, and how many bits those have.
fn set(batch: &mut Batch, policy: &NumaPolicy) -> [Arg; 3] {
    let mode = policy.mode as u64 | policy.flags.0;
    if policy.nodes.is_empty() {
        return [mode.into(), 0u64.into(), 0u64.into()];
    }
    let mut mask = [0u8; MASK];
    for &node in &policy.nodes {
        if let Some(byte) = mask.get_mut(node as usize / 8) {
            *byte |= 1 << (node % 8);
        }
    }
    let mask = batch.data(&mask);
    // The kernel takes one bit off.
    [mode.into(), mask.into(), u64::from(NODE_LIMIT + 1).into()]
}

/// A policy with what of it a host with these nodes can have, and what was left out.
fn fitted(policy: &NumaPolicy, here: &BTreeSet<u32>) -> (Option<NumaPolicy>, Option<String>) {
    let mut policy = policy.clone();
    let mut left = None;
    // Relative nodes are counted among those that there are.
    if policy.mode != NumaMode::Local && !policy.flags.contains(NumaFlags::MPOL_F_RELATIVE_NODES) {
        let count = policy.nodes.len();
        // Static ones stay named, in case they come.
        let named = policy.flags.contains(NumaFlags::MPOL_F_STATIC_NODES);
        let any = policy.nodes.iter().any(|node| here.contains(node));
        policy.nodes.retain(|node| here.contains(node) || named && *node < EVERY_KERNELS);
        if !any {
            return (None, Some("names only nodes that this host does not have; the policy is not set".to_owned()));
        }
        left = (policy.nodes.len() < count)
            .then(|| "names nodes that this host does not have; the others are kept".to_owned());
    }
    if policy.home_node.is_some_and(|node| !here.contains(&node)) {
        policy.home_node = None;
        left = Some("has a home node that this host does not have; it is not set".to_owned());
    }
    (Some(policy), left)
}

/// `0-2,5`
fn nodes(list: &str) -> BTreeSet<u32> {
    let ranges = list.trim().split(',').filter_map(|range| {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        Some(first.parse().ok()?..=last.parse().ok()?)
    });
    ranges.flatten().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(mode: NumaMode, flags: NumaFlags, nodes: &[u32], home_node: Option<u32>) -> NumaPolicy {
        NumaPolicy { of: NumaOwner::Thread(Pid(1)), mode, flags, nodes: nodes.to_vec(), home_node }
    }

    #[test]
    fn nodes_that_a_host_lacks_are_left_out_and_told() {
        let here = nodes("0-1,4\n");
        assert_eq!(here, BTreeSet::from([0, 1, 4]));
        let fit = |policy: &NumaPolicy| {
            let (fitted, left) = fitted(policy, &here);
            (fitted.map(|fitted| (fitted.nodes, fitted.home_node)), left)
        };
        let bind = |nodes: &[u32], home| policy(NumaMode::Bind, NumaFlags(0), nodes, home);
        assert_eq!(fit(&bind(&[0, 4], Some(1))), (Some((vec![0, 4], Some(1))), None));
        let (kept, left) = fit(&bind(&[0, 3], None));
        assert_eq!(kept, Some((vec![0], None)));
        assert_eq!(left.unwrap(), "names nodes that this host does not have; the others are kept");
        let (kept, left) = fit(&bind(&[3], None));
        assert_eq!(kept, None);
        assert_eq!(left.unwrap(), "names only nodes that this host does not have; the policy is not set");
        let (kept, left) = fit(&bind(&[1], Some(3)));
        assert_eq!(kept, Some((vec![1], None)));
        assert_eq!(left.unwrap(), "has a home node that this host does not have; it is not set");
        let fixed = policy(NumaMode::Bind, NumaFlags::MPOL_F_STATIC_NODES, &[0, 63], None);
        assert_eq!(fit(&fixed), (Some((vec![0, 63], None)), None));
        let relative = policy(NumaMode::Interleave, NumaFlags::MPOL_F_RELATIVE_NODES, &[3], None);
        assert_eq!(fit(&relative), (Some((vec![3], None)), None));
        assert_eq!(fit(&policy(NumaMode::Local, NumaFlags(0), &[], None)), (Some((vec![], None)), None));
        assert!(nodes("").is_empty());
    }
}
