//! How the threads of a process come to be, so that they share the system call filters that they shared.
//!
//! A thread is born with the filters of whoever clones it, and that is the only way in which two threads come to have the same
//! filter rather than two equal ones. It matters: SECCOMP_FILTER_FLAG_TSYNC works only where the filters of all other threads
//! are among the caller's. So a thread is cloned by one that has installed just what both have in common.

use image_format::seccomp::{Seccomp, SeccompFilter};
use image_format::{Pid, ProcessImage};
use std::collections::BTreeMap;

/// A part of making the threads of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ThreadStep {
    /// A thread installs a filter.
    Filter {
        /// Who.
        thread: Pid,
        /// Its number in `seccomp`.
        filter: u32,
    },
    /// A thread clones another.
    Clone {
        /// Who is there.
        by: Pid,
        /// Who is made.
        thread: Pid,
    },
}

/// Threads that have the same filters so far.
struct Group {
    /// The one of them that is there.
    first: Pid,
    /// How many filters those are.
    depth: usize,
    /// The others, not yet made.
    others: Vec<Pid>,
}

/// The steps from the leader alone, without filters, to all threads with theirs.
pub(super) fn steps(process: &ProcessImage, filters: &[SeccompFilter]) -> Vec<ThreadStep> {
    let leader = process.process.pid;
    let chains = chains(process, filters);
    let next = |tid: Pid, depth: usize| {
        let newest = process.threads.get(&tid).map(|thread| thread.attr.seccomp);
        newest.and_then(|newest| chains.get(&newest)).and_then(|chain| chain.get(depth).copied())
    };
    let others = process.threads.keys().copied().filter(|&tid| tid != leader).collect();
    let mut steps = Vec::new();
    let mut groups = vec![Group { first: leader, depth: 0, others }];
    while let Some(Group { first, mut depth, mut others }) = groups.pop() {
        loop {
            let mut by_next: BTreeMap<Option<u32>, Vec<Pid>> = BTreeMap::new();
            for tid in others {
                by_next.entry(next(tid, depth)).or_default().push(tid);
            }
            let own = next(first, depth);
            others = by_next.remove(&own).unwrap_or_default();
            // Those that go another way leave here, one for each way, which then makes the rest.
            for mut apart in by_next.into_values() {
                let thread = apart.remove(0);
                steps.push(ThreadStep::Clone { by: first, thread });
                groups.push(Group { first: thread, depth, others: apart });
            }
            let Some(filter) = own else { break };
            steps.push(ThreadStep::Filter { thread: first, filter });
            depth += 1;
        }
        steps.extend(others.into_iter().map(|thread| ThreadStep::Clone { by: first, thread }));
    }
    steps
}

/// The filters that threads of the process have, the oldest first, by what their `attr` says.
fn chains(process: &ProcessImage, filters: &[SeccompFilter]) -> BTreeMap<Seccomp, Vec<u32>> {
    let after: BTreeMap<u32, Option<u32>> = filters.iter().map(|filter| (filter.filter, filter.after)).collect();
    let mut chains = BTreeMap::new();
    for thread in process.threads.values() {
        chains.entry(thread.attr.seccomp).or_insert_with_key(|seccomp| {
            let mut newest = match seccomp {
                Seccomp::Filter(number) => Some(*number),
                Seccomp::None | Seccomp::Strict => None,
            };
            let mut chain = Vec::new();
            // A filter stands after an earlier line, so this ends.
            while let Some(number) = newest {
                chain.push(number);
                newest = after.get(&number).copied().flatten();
            }
            chain.reverse();
            chain
        });
    }
    chains
}
