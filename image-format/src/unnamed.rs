//! `files/unnamed`: files that no path leads to, which an image therefore holds itself.

use crate::flags;
use crate::memory::HugeMapping;
use crate::types::{Bytes, Octal, PAGE_SIZE, Timespec};
use serde::{Deserialize, Serialize};

/// A line of `files/unnamed`: a file that processes have open or mapped and that no path leads to. Its content lies in
/// `files/unnamed.N` (raw).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UnnamedFile {
    /// Counted from 1 inside the image: what descriptions and mappings call it.
    pub number: u32,
    /// What it is, and where it is made again.
    pub origin: Origin,
    /// Bytes.
    pub size: u64,
    /// Permission bits.
    pub mode: Octal,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Last modification.
    pub modified: Timespec,
}

/// How a file came to have no name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Origin {
    /// memfd_create(2).
    Memfd(Memfd),
    /// Deleted. Made again under this path inside the container, or beside it where that is taken, and deleted.
    Deleted(Place),
    /// O_TMPFILE: never had a name, and may be given one by linkat(2).
    Tmpfile(Place),
    /// MAP_SHARED | MAP_ANONYMOUS | MAP_HUGETLB of mmap(2): memory from a pool of huge pages.
    SharedHugePages(HugeMapping),
}

impl Origin {
    /// Bytes of its pages where it lies in a pool of huge pages.
    #[must_use]
    pub fn huge_page_size(&self) -> Option<u64> {
        match self {
            Origin::Memfd(memfd) => Some(memfd.page_size).filter(|&size| size != PAGE_SIZE),
            Origin::SharedHugePages(pages) => Some(pages.page_size),
            Origin::Deleted(_) | Origin::Tmpfile(_) => None,
        }
    }
}

/// A file in memory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Memfd {
    /// The name it was made with, which only /proc shows.
    pub name: Bytes,
    /// fcntl(2) F_GET_SEALS.
    pub seals: Seals,
    /// Bytes of a page: more than usual with MFD_HUGETLB.
    pub page_size: u64,
}

/// The path a file had, or for O_TMPFILE its directory with a number.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Place {
    /// Inside the container. May be edited.
    pub path: Bytes,
}

flags! {
    /// F_ADD_SEALS of fcntl(2).
    Seals {
        F_SEAL_SEAL = 1, F_SEAL_SHRINK = 2, F_SEAL_GROW = 4, F_SEAL_WRITE = 8, F_SEAL_FUTURE_WRITE = 0x10, F_SEAL_EXEC = 0x20,
    }
}
