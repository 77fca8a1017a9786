//! Policies of shared memory against those of its mappings, by whose calls they are made again.

use super::super::Findings;
use super::super::kernel::Kernel;
use crate::failure::Failure;
use crfs_kstate::{Mapped, NumaPolicy, SharedPolicy};
use image_format::types::{Address, PAGE_SIZE};
use std::collections::BTreeMap;

/// The objects in tmpfs that are mapped, by what tells them apart.
#[derive(Default)]
pub(super) struct Objects(BTreeMap<u64, Object>);

struct Object {
    policies: Vec<SharedPolicy>,
    /// What its mappings say of its pages.
    told: Vec<SharedPolicy>,
    /// Who met it first, and where.
    path: String,
    address: Address,
}

impl Objects {
    /// Looks at an object through one of its mappings, with the policy of that.
    ///
    /// # Errors
    /// When the process is gone.
    pub(super) fn meet(
        &mut self,
        host: i32,
        path: &str,
        mapped: &Mapped,
        own: Option<NumaPolicy>,
        kernel: &mut Kernel,
    ) -> Result<(), Failure> {
        let read = kernel.ask(host, path, |state, task| state.shared_policies(task, mapped))?.flatten();
        let Some((id, policies)) = read else { return Ok(()) };
        let object = self.0.entry(id).or_insert_with(|| Object {
            policies,
            told: Vec::new(),
            path: path.to_owned(),
            address: Address(mapped.start),
        });
        let first = mapped.first_page;
        let end = first + (mapped.end - mapped.start) / PAGE_SIZE;
        object.told.extend(own.map(|policy| SharedPolicy { first, end, policy }));
        Ok(())
    }

    /// Adds an obstacle for each object whose policies its mappings do not tell.
    pub(super) fn report(self, findings: &mut Findings) {
        for Object { policies, told, path, address } in self.0.into_values() {
            if !agree(&policies, &told) {
                findings.block(
                    path,
                    format!("the shared memory at {address} has NUMA policies that its mappings do not tell, which are not carried yet"),
                    "Have the program set them (mbind) through mappings that stay",
                );
            }
        }
    }
}

/// Whether a page has the one policy that its mappings tell, or none where they tell none.
fn agree(policies: &[SharedPolicy], told: &[SharedPolicy]) -> bool {
    covers(policies, told) && covers(told, policies)
}

/// Whether all of `inner` lies in parts of `outer` with the same policy.
fn covers(outer: &[SharedPolicy], inner: &[SharedPolicy]) -> bool {
    inner.iter().all(|part| {
        let mut same: Vec<_> = outer.iter().filter(|other| other.policy == part.policy).collect();
        same.sort_by_key(|other| other.first);
        let reached = same.iter().fold(part.first, |at, other| if other.first <= at { at.max(other.end) } else { at });
        reached >= part.end
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part(first: u64, end: u64, node: u32) -> SharedPolicy {
        SharedPolicy { first, end, policy: NumaPolicy { mode: 2, flags: 0, nodes: vec![node], home_node: None } }
    }

    #[test]
    fn shared_memory_has_what_its_mappings_tell() {
        let policies = [part(0, 4, 0), part(4, 8, 1)];
        assert!(agree(&[], &[]));
        assert!(agree(&policies, &[part(4, 8, 1), part(0, 4, 0), part(2, 4, 0)]));
        assert!(agree(&[part(0, 8, 1)], &[part(3, 8, 1), part(0, 3, 1)]));
        assert!(!agree(&policies, &[part(0, 4, 0)]), "set by a mapping that is gone");
        assert!(!agree(&policies, &[part(0, 8, 0), part(4, 8, 1)]), "set anew by another process");
        assert!(!agree(&[], &[part(0, 1, 0)]), "taken off by another process");
        assert!(!agree(&policies, &[part(0, 4, 0), part(5, 8, 1)]));
    }
}
