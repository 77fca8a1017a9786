//! NUMA policies of the child that has everything, in memory that the others do not have.

use crfs_sys::puppet::{Arg, Step};

use super::Trouble;
use super::actor::Script;
use super::checks::same;
use super::scene::{Roles, Scene};
use crate::error::Error;
use crate::numa::{Mapped, NumaPolicy, SharedPolicy};
use crate::state::KernelState;

const PAGE: u64 = 4096;
/// Each mapping has one page with the policy, between two without.
const PAGES: u64 = 3;
/// MPOL_BIND, MPOL_F_STATIC_NODES: the nodes are kept as they were named.
const BIND: u32 = 2;
const STATIC: u32 = 0x8000;
/// MPOL_INTERLEAVE.
const INTERLEAVE: u32 = 3;
const PRIVATE: &str = "mmap of private memory";
const SHARED: &str = "mmap of shared memory";

/// The first node that the caller may use, and with it the children.
fn node() -> u32 {
    let status = std::fs::read_to_string("/proc/thread-self/status").unwrap_or_default();
    let allowed = status.lines().find_map(|line| line.strip_prefix("Mems_allowed_list:")).unwrap_or_default();
    allowed.trim().split(['-', ',']).next().and_then(|first| first.parse().ok()).filter(|&node| node < 64).unwrap_or(0)
}

/// The calls.
pub(super) fn set(s: &mut Script) -> Result<(), Error> {
    let mask = s.words(&[1 << node()])?;
    let flags = |flags: i32| u64::from(flags.unsigned_abs());
    // Readable only: nothing of it is locked into memory later on, since nothing is there.
    let map = |s: &mut Script, name, kind: i32| {
        let kind = flags(kind | libc::MAP_ANONYMOUS);
        let args = [0, PAGES * PAGE, flags(libc::PROT_READ), kind, u64::MAX, 0];
        Arg::Result { step: s.call(name, libc::SYS_mmap, args), plus: PAGE }
    };
    let private = map(s, PRIVATE, libc::MAP_PRIVATE);
    let shared = map(s, SHARED, libc::MAP_SHARED);
    let bind = |s: &mut Script, at, mode: u32| {
        let args = [at, PAGE.into(), u64::from(mode).into(), mask.into(), 65.into(), 0.into()];
        s.step("mbind", Step::call_with(libc::SYS_mbind, args));
    };
    bind(s, private, BIND | STATIC);
    bind(s, shared, INTERLEAVE);
    let args = [private, PAGE.into(), u64::from(node()).into(), 0.into()];
    s.step("set_mempolicy_home_node", Step::call_with(libc::SYS_set_mempolicy_home_node, args));
    s.call("set_mempolicy", libc::SYS_set_mempolicy, [u64::from(INTERLEAVE), mask, 65]);
    Ok(())
}

pub(super) fn check(state: &KernelState, scene: &Scene, roles: &Roles) -> Result<(), Trouble> {
    let set = |name| scene.full.outcome(name);
    for name in ["mbind", "set_mempolicy_home_node", "set_mempolicy"] {
        set(name)?;
    }
    let nodes = vec![node()];
    let interleave = NumaPolicy { mode: INTERLEAVE, flags: 0, nodes: nodes.clone(), home_node: None };
    let bind = NumaPolicy { mode: BIND, flags: STATIC, nodes, home_node: Some(node()) };
    same("a thread's policy", state.thread_policy(&roles.full)?, Some(interleave.clone()))?;
    same("no policy of a thread", state.thread_policy(&roles.bare)?, None)?;
    let mapped = state.mapped(&roles.full)?;
    let lines = scene.full.proc("maps").map_err(|error| Trouble::Wrong(format!("reading a child's maps: {error}")))?;
    let starts = lines.lines().filter(|line| !line.ends_with("[vsyscall]")).filter_map(|line| line.split('-').next());
    let starts = starts.filter_map(|start| u64::from_str_radix(start, 16).ok());
    same("mappings", mapped.iter().map(|mapping| mapping.start).collect::<Vec<_>>(), starts.collect())?;
    let at = |start: u64| mapped.iter().find(|mapping| mapping.start == start).copied().unwrap_or(NOTHING);
    let policy = |start: u64| state.mapping_policy(&roles.full, &at(start));
    let (private, shared) = (set(PRIVATE)?, set(SHARED)?);
    same("a mapping's end", at(private + PAGE).end, private + 2 * PAGE)?;
    same("a mapping's policy", policy(private + PAGE)?, Some(bind))?;
    same("no policy of a mapping", policy(private)?, None)?;
    let of_object = |start: u64| state.shared_policies(&roles.full, &at(start));
    let expected = SharedPolicy { first: 1, end: 2, policy: interleave };
    same("policies of shared memory", of_object(shared + PAGE)?.map(|(_, policies)| policies), Some(vec![expected]))?;
    same("no shared memory", of_object(private)?, None)?;
    same("mappings without a policy", state.mapped(&roles.bare)?.iter().any(Mapped::has_policy), false)
}

/// What is not found.
const NOTHING: Mapped = Mapped { start: 0, end: 0, first_page: 0, file: 0, policy: 0 };
