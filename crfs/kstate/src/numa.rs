//! NUMA policies of threads, of mappings, and of memory in tmpfs, which whoever maps it shares.
//!
//! No file tells a thread's policy, and the one that tells those of mappings walks all page tables. So the tree of mappings is walked here:
//! its nodes, and the mappings themselves, lie densely in few pages, which are read whole.
//!
//! Source: include/linux/mempolicy.h, include/linux/mm_types.h, include/linux/maple_tree.h, mm/mempolicy.c, v6.18; mbind(2),
//! set_mempolicy(2).

use std::cell::RefCell;
use std::collections::HashMap;

use crate::error::Error;
use crate::feature::Feature;
use crate::paths::Path;
use crate::state::{KernelState, View};
use crate::tasks::{Task, word};

/// The flags of a policy that a program sets: MPOL_F_STATIC_NODES, MPOL_F_RELATIVE_NODES, MPOL_F_NUMA_BALANCING.
const MODE_FLAGS: u32 = 0xe000;
/// MPOL_F_STATIC_NODES and MPOL_F_RELATIVE_NODES: the nodes are kept as the program named them.
const KEEPS_NODES: u32 = 0xc000;
/// TMPFS_MAGIC.
const TMPFS: u64 = 0x0102_1994;
/// More nodes of a tree than an address space can have.
const MAX_NODES: usize = 16 << 20;
const PAGE: usize = 4096;
/// How many pages are kept before all are forgotten.
const KEPT_PAGES: usize = 1024;

/// A policy, as the program set it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NumaPolicy {
    /// `MPOL_` mode.
    pub mode: u32,
    /// `MPOL_F_` flags.
    pub flags: u32,
    /// The nodes, ascending.
    pub nodes: Vec<u32>,
    /// Set by set_mempolicy_home_node(2).
    pub home_node: Option<u32>,
}

/// A mapping, of which the policy is a question of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mapped {
    /// The address of its first byte.
    pub start: u64,
    /// Behind its last byte.
    pub end: u64,
    /// The page of its object that it begins with.
    pub first_page: u64,
    /// Its `struct file`; 0 for none.
    pub(crate) file: u64,
    /// Its `struct mempolicy`; 0 for none.
    pub(crate) policy: u64,
}

impl Mapped {
    /// Whether it has a policy of its own.
    #[must_use]
    pub fn has_policy(&self) -> bool {
        self.policy != 0
    }
}

/// Pages of an object in tmpfs that have a policy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SharedPolicy {
    /// The first page.
    pub first: u64,
    /// Behind the last page.
    pub end: u64,
    /// Theirs.
    pub policy: NumaPolicy,
}

impl KernelState {
    /// The policy of a thread; None for the default. A kernel without policies has none.
    ///
    /// # Errors
    /// [`Error::FeatureOff`], [`Error::Read`].
    pub fn thread_policy(&self, task: &Task) -> Result<Option<NumaPolicy>, Error> {
        if self.absent(Feature::Numa) {
            return Ok(None);
        }
        let view = self.view(Feature::Numa, task)?;
        let pointer = view.u64(&[Path::TaskMempolicy])?;
        (pointer != 0).then(|| policy(&view, pointer)).transpose()
    }

    /// The mappings of a process, in the order of their addresses.
    ///
    /// # Errors
    /// [`Error::FeatureOff`], [`Error::Gone`] for a task without an address space, [`Error::Read`]; [`Error::List`] when the tree changes
    /// meanwhile.
    pub fn mapped(&self, task: &Task) -> Result<Vec<Mapped>, Error> {
        if self.absent(Feature::Numa) {
            return Ok(Vec::new());
        }
        let view = self.view(Feature::Numa, task)?;
        Tree::new(&view)?.mappings(view.u64(&[Path::TaskMm, Path::MappingTree])?)
    }

    /// The policy of a mapping.
    ///
    /// # Errors
    /// As [`KernelState::mapped`].
    pub fn mapping_policy(&self, task: &Task, mapped: &Mapped) -> Result<Option<NumaPolicy>, Error> {
        let view = self.view(Feature::Numa, task)?;
        (mapped.policy != 0).then(|| policy(&view, mapped.policy)).transpose()
    }

    /// The policies of the object in tmpfs that is mapped there, in the order of pages, with what tells that object from
    /// others. None where it is nothing in tmpfs.
    ///
    /// # Errors
    /// As [`KernelState::mapped`].
    pub fn shared_policies(&self, task: &Task, mapped: &Mapped) -> Result<Option<(u64, Vec<SharedPolicy>)>, Error> {
        let view = self.view(Feature::Numa, task)?;
        if mapped.file == 0 {
            return Ok(None);
        }
        let inode = view.u64_from(mapped.file, &[Path::FileInode])?;
        if view.u64_from(inode, &[Path::InodeSuper, Path::SuperMagic])? != TMPFS {
            return Ok(None);
        }
        let info = inode.wrapping_sub(view.offset(Path::ShmemInode)?);
        Ok(Some((inode, in_tmpfs(&view, info)?)))
    }
}

fn policy(view: &View<'_>, at: u64) -> Result<NumaPolicy, Error> {
    let small = |path| -> Result<u32, Error> {
        let mut bytes = [0; 2];
        view.bytes_from(at, &[path], &mut bytes)?;
        Ok(u16::from_ne_bytes(bytes).into())
    };
    let flags = small(Path::PolicyFlags)?;
    let mask = if flags & KEEPS_NODES == 0 { Path::PolicyNodes } else { Path::PolicyNamedNodes };
    let mut bits = vec![0; view.resolved(mask)?.field.size as usize];
    view.bytes_from(at, &[mask], &mut bits)?;
    let is_set = |node: &u32| bits.get(*node as usize / 8).is_some_and(|byte| byte >> (node % 8) & 1 == 1);
    let home = view.u32_from(at, &[Path::PolicyHome])?.cast_signed();
    Ok(NumaPolicy {
        mode: small(Path::PolicyMode)?,
        flags: flags & MODE_FLAGS,
        nodes: (0..u32::try_from(bits.len() * 8).unwrap_or(0)).filter(is_set).collect(),
        home_node: u32::try_from(home).ok(),
    })
}

/// Goes through the tree from left to right.
fn in_tmpfs(view: &View<'_>, info: u64) -> Result<Vec<SharedPolicy>, Error> {
    let links = view.offset(Path::SharedPolicyLinks)?;
    let (mut policies, mut open) = (Vec::new(), Vec::new());
    let mut next = view.u64_from(info, &[Path::SharedPolicies])?;
    while next != 0 || !open.is_empty() {
        if policies.len() + open.len() > MAX_NODES {
            return Err(Error::List { tid: view.tid(), list: "shared_policy" });
        }
        if next != 0 {
            open.push(next);
            next = view.u64_from(next, &[Path::NodeLeft])?;
        } else if let Some(links_at) = open.pop() {
            let node = links_at.wrapping_sub(links);
            policies.push(SharedPolicy {
                first: view.u64_from(node, &[Path::SharedPolicyFirst])?,
                end: view.u64_from(node, &[Path::SharedPolicyEnd])?,
                policy: policy(view, view.u64_from(node, &[Path::SharedPolicy])?)?,
            });
            next = view.u64_from(links_at, &[Path::NodeRight])?;
        }
    }
    Ok(policies)
}

/// What a node of the tree looks like.
#[derive(Clone, Copy)]
struct NodeShape {
    pivots: u64,
    pivot_count: u64,
    slots: u64,
    slot_count: u64,
}

/// The tree of an address space: a maple tree, whose entries are mappings.
struct Tree<'a> {
    view: &'a View<'a>,
    range: NodeShape,
    allocation: NodeShape,
    members: [u64; 5],
    pages: RefCell<HashMap<u64, Box<[u8]>>>,
}

impl<'a> Tree<'a> {
    /// `enum maple_type`.
    const LEAF: u64 = 1;
    const RANGE: u64 = 2;
    const ALLOCATION: u64 = 3;

    fn new(view: &'a View<'a>) -> Result<Self, Error> {
        let shape = |pivots, slots| -> Result<NodeShape, Error> {
            let count = |path| -> Result<u64, Error> { Ok(u64::from(view.resolved(path)?.field.size) / 8) };
            Ok(NodeShape {
                pivots: view.offset(pivots)?,
                pivot_count: count(pivots)?,
                slots: view.offset(slots)?,
                slot_count: count(slots)?,
            })
        };
        let at = |path| view.offset(path);
        Ok(Tree {
            view,
            range: shape(Path::RangePivots, Path::RangeSlots)?,
            allocation: shape(Path::AllocationPivots, Path::AllocationSlots)?,
            members: [
                at(Path::MappingStart)?,
                at(Path::MappingEnd)?,
                at(Path::MappingPage)?,
                at(Path::MappingFile)?,
                at(Path::MappingPolicy)?,
            ],
            pages: RefCell::default(),
        })
    }

    fn changed(&self) -> Error {
        Error::List { tid: self.view.tid(), list: "mm_mt" }
    }

    /// Eight aligned bytes of kernel memory.
    fn word(&self, address: u64) -> Result<u64, Error> {
        let within = usize::try_from(address).unwrap_or(0) % PAGE;
        let page = address - within as u64;
        let mut pages = self.pages.borrow_mut();
        if let Some(bytes) = pages.get(&page) {
            return Ok(word(bytes, within));
        }
        if pages.len() >= KEPT_PAGES {
            pages.clear();
        }
        let mut bytes = vec![0; PAGE].into_boxed_slice();
        self.view.bytes_at(page, Path::MappingTree, &mut bytes)?;
        let value = word(&bytes, within);
        pages.insert(page, bytes);
        Ok(value)
    }

    /// What hangs below an entry of `ma_root`. Low bits tell a node, and of which type, from an entry.
    fn mappings(&self, root: u64) -> Result<Vec<Mapped>, Error> {
        let mut mappings = Vec::new();
        // Each node with the last address it is about.
        let mut open = if root & 3 == 2 { vec![(root, u64::MAX)] } else { Vec::new() };
        if root != 0 && root & 3 == 0 {
            mappings.push(self.mapping(root)?);
        }
        let mut seen = 0;
        while let Some((node, max)) = open.pop() {
            seen += 1;
            let (address, kind) = (node & !0xff, node >> 3 & 0xf);
            let shape = match kind {
                Self::LEAF | Self::RANGE => self.range,
                Self::ALLOCATION => self.allocation,
                _ => return Err(self.changed()),
            };
            for index in 0..shape.slot_count {
                // Behind the last entry, pivots are 0 and slots are anything.
                let pivot = match index < shape.pivot_count {
                    true => self.word(address + shape.pivots + index * 8)?,
                    false => max,
                };
                let last = if pivot == 0 && index > 0 { max } else { pivot.min(max) };
                let entry = self.word(address + shape.slots + index * 8)?;
                match (kind == Self::LEAF, entry) {
                    (true, 0) => {}
                    (true, entry) if entry & 3 == 0 => mappings.push(self.mapping(entry)?),
                    (false, entry) if entry != 0 => open.push((entry, last)),
                    _ => return Err(self.changed()),
                }
                if seen + mappings.len() > MAX_NODES {
                    return Err(self.changed());
                }
                if last == max {
                    break;
                }
            }
        }
        mappings.sort_unstable_by_key(|mapping| mapping.start);
        Ok(mappings)
    }

    fn mapping(&self, address: u64) -> Result<Mapped, Error> {
        let [start, end, first_page, file, policy] = self.members;
        let member = |offset: u64| self.word(address.wrapping_add(offset));
        Ok(Mapped {
            start: member(start)?,
            end: member(end)?,
            first_page: member(first_page)?,
            file: member(file)?,
            policy: member(policy)?,
        })
    }
}
