//! Every descriptor of every process, and which of them name one description.

use super::TableOf;
use super::fdinfo::FdInfo;
use super::holders::Kernel;
use super::limit;
use super::seen::{Holder, Process, Seen, is_gone, there};
use crate::failure::{Doing, Failure, Kind};
use crfs_kstate::OpenDescriptor;
use crfs_sys::kcmp::compare_files;
use nix::errno::Errno;
use std::cmp::Ordering;
use std::collections::{HashMap, HashSet};
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::sync::Arc;

/// Everything that is open.
#[derive(Debug, Default)]
pub(crate) struct Table {
    /// The descriptions, in the order in which they were met.
    pub(crate) descriptions: Vec<Description>,
    /// Each descriptor, with close-on-exec and the description it names (an index), by process and descriptor.
    pub(crate) entries: Vec<(Holder, bool, usize)>,
    /// Descriptors whose file cannot be looked at: its file system does not answer.
    pub(crate) unreadable: Vec<(Holder, io::Error)>,
    /// The lock lines of fdinfo, with whose they are and the description (an index).
    pub(crate) locks: Vec<(Holder, usize, String)>,
    by_holder: HashMap<(i32, i32), usize>,
    /// Of those that processes of the container hold, by the identity that kernel memory gives them.
    by_address: HashMap<u64, usize>,
}

/// An open file description.
#[derive(Debug)]
pub(crate) struct Description {
    /// As the first of its descriptors shows it.
    pub(crate) seen: Seen,
    /// All its descriptors.
    pub(crate) holders: Vec<Holder>,
    /// The identity that kernel memory gives it.
    pub(crate) address: Option<u64>,
}

/// What two descriptors of one description certainly have in common.
type Likeness = (Vec<u8>, u64, u64, u64, u64, u64);

impl Table {
    /// Looks at every descriptor of the tables, which must be in ascending order. A task that is gone is an error unless
    /// the tasks run (no `kernel`).
    pub(crate) fn gather(tables: &[TableOf], kernel: Option<&Kernel<'_>>) -> Result<Self, Failure> {
        let mut table = Table::default();
        let mut identities = Identities::default();
        // All or none: an address and a comparison cannot tell whether they mean the same description.
        let known = kernel.and_then(|kernel| kernel.descriptors(tables));
        if let Some(known) = &known {
            limit::raise().doing(|| "raising the limit of open files")?;
            limit::make_room(known.iter().map(Vec::len).sum());
        }
        let mut known = known.map(Vec::into_iter);
        for &TableOf { process: pid, owner, host } in tables {
            let known = known.as_mut().and_then(Iterator::next);
            let process = match Process::open(host) {
                Err(error) if kernel.is_none() && is_gone(&error) => continue,
                other => Arc::new(other.doing(|| format!("process {pid}: looking at its descriptors"))?),
            };
            let mut look = |fd, known: Option<OpenDescriptor>| {
                let first = known.is_none_or(|known| identities.addresses.insert(known.address));
                Look { holder: Holder { pid, owner, host, fd }, known, first }
            };
            let looks: Vec<Look> = match known {
                Some(known) => known.into_iter().map(|open| look(open.fd, Some(open))).collect(),
                None => {
                    let fds = numbers(host, kernel.is_some());
                    let fds = fds.doing(|| format!("process {pid}: listing its descriptors"))?;
                    fds.into_iter().map(|fd| look(fd, None)).collect()
                }
            };
            let found = image_format::parallel::map(&looks, |look| look.look(&process));
            for (look, found) in looks.into_iter().zip(found) {
                match look.with_locks(found, kernel) {
                    Ok(Some(found)) => table.enter(look, found, &mut identities)?,
                    Ok(None) if kernel.is_none() => {}
                    Ok(None) => {
                        let fd = look.holder.fd;
                        return Err(Failure::new(Kind::Stale, format!("process {pid}: descriptor {fd} is gone")));
                    }
                    Err(error) => table.unreadable.push((look.holder, error)),
                }
            }
        }
        table.by_address = identities.by_address;
        Ok(table)
    }

    /// Adds a descriptor.
    fn enter(&mut self, look: Look, found: Found, identities: &mut Identities) -> Result<(), Failure> {
        let Look { holder, known, .. } = look;
        let address = known.map(|known| known.address);
        let (index, cloexec) = match found {
            Found::Known(info) => {
                let index = address.and_then(|address| identities.by_address.get(&address));
                // Its first descriptor cannot be looked at, and that is told of that one.
                let Some(&index) = index else { return Ok(()) };
                self.locks.extend(info.values("lock").map(|line| (holder, index, line.to_owned())));
                (index, info.cloexec)
            }
            Found::New(seen) => {
                let cloexec = seen.info.cloexec;
                let next = self.descriptions.len();
                let index = identities.find(&seen, address, next, &self.descriptions);
                let index = index.doing(|| format!("process {}: comparing descriptor {}", holder.pid, holder.fd))?;
                self.locks.extend(seen.info.values("lock").map(|line| (holder, index, line.to_owned())));
                if index == next {
                    self.descriptions.push(Description { seen: *seen, holders: Vec::new(), address });
                }
                (index, cloexec)
            }
        };
        self.descriptions[index].holders.push(holder);
        self.by_holder.insert((holder.host, holder.fd), index);
        self.entries.push((holder, cloexec, index));
        Ok(())
    }

    /// Adds a description that no process of the container holds, and returns its index.
    pub(crate) fn add(&mut self, seen: Seen) -> usize {
        let index = self.descriptions.len();
        self.locks.extend(seen.info.values("lock").map(|line| (seen.holder, index, line.to_owned())));
        self.descriptions.push(Description { seen, holders: Vec::new(), address: None });
        index
    }

    /// The description that a descriptor of a process (host pid) names.
    pub(crate) fn description(&self, host: i32, fd: i32) -> Option<usize> {
        self.by_holder.get(&(host, fd)).copied()
    }

    /// The description of this identity, where kernel memory tells them.
    pub(crate) fn at_address(&self, address: u64) -> Option<usize> {
        self.by_address.get(&address).copied()
    }
}

/// A descriptor that is to be looked at.
struct Look {
    holder: Holder,
    /// As kernel memory shows it.
    known: Option<OpenDescriptor>,
    /// Whether no descriptor before it is known to name the same description.
    first: bool,
}

/// What was found under a descriptor. Of a description that was seen already only the descriptor's own flag is asked, which is half the
/// work.
enum Found {
    New(Box<Seen>),
    Known(FdInfo),
}

impl Look {
    /// None when it is gone.
    fn look(&self, process: &Arc<Process>) -> io::Result<Option<Found>> {
        let seen = match self.known {
            _ if !self.first => return Ok(there(process.info(self.holder.fd))?.map(Found::Known)),
            Some(known) => Seen::look_fast(self.holder, process, known.cloexec)?,
            None => Seen::look(self.holder, process)?,
        };
        Ok(seen.map(|seen| Found::New(Box::new(seen))))
    }

    /// Looks again where fdinfo may have to tell of locks.
    fn with_locks(&self, found: io::Result<Option<Found>>, kernel: Option<&Kernel<'_>>) -> io::Result<Option<Found>> {
        match (found, kernel.zip(self.known)) {
            (Ok(Some(Found::New(seen))), Some((kernel, known)))
                if seen.is_without_locks() && kernel.may_be_locked(self.holder.host, known.address) =>
            {
                Ok(seen.again()?.map(|seen| Found::New(Box::new(seen))))
            }
            (found, _) => found,
        }
    }
}

/// The open descriptors of a process, ascending.
fn numbers(host: i32, must_be_there: bool) -> io::Result<Vec<i32>> {
    let entries = match fs::read_dir(format!("/proc/{host}/fd")) {
        Err(error) if error.kind() == io::ErrorKind::NotFound && !must_be_there => return Ok(Vec::new()),
        other => other?,
    };
    let mut numbers = Vec::new();
    for entry in entries {
        match entry {
            Ok(entry) => numbers.extend(entry.file_name().to_str().and_then(|name| name.parse::<i32>().ok())),
            Err(error) if error.raw_os_error() == Some(libc::ESRCH) && !must_be_there => break,
            Err(error) => return Err(error),
        }
    }
    numbers.sort_unstable();
    Ok(numbers)
}

/// The descriptions met so far, by what tells them apart.
#[derive(Default)]
struct Identities {
    /// Of descriptors that were, or are about to be looked at.
    addresses: HashSet<u64>,
    by_address: HashMap<u64, usize>,
    /// Those of one likeness, in the order that kcmp gives them: a new one costs a binary search.
    alike: HashMap<Likeness, Vec<usize>>,
}

impl Identities {
    /// The index of the description that `seen` belongs to; `next` when it is a new one.
    fn find(&mut self, seen: &Seen, address: Option<u64>, next: usize, known: &[Description]) -> Result<usize, Errno> {
        if let Some(address) = address {
            return Ok(*self.by_address.entry(address).or_insert(next));
        }
        let (dev, ino) = (seen.metadata.dev(), seen.metadata.ino());
        let likeness = (seen.link.clone(), dev, ino, seen.info.position, seen.info.flags, seen.info.mount);
        let alike = self.alike.entry(likeness).or_default();
        let mut failed = None;
        let place = alike.binary_search_by(|&index| {
            compare(known[index].seen.holder, seen.holder).unwrap_or_else(|errno| {
                failed = Some(errno);
                Ordering::Less
            })
        });
        match (failed, place) {
            // One of the two closed it or ended meanwhile, which only running processes can.
            (Some(Errno::EBADF | Errno::ESRCH), _) => Ok(next),
            (Some(errno), _) => Err(errno),
            (None, Ok(at)) => Ok(alike[at]),
            (None, Err(at)) => {
                alike.insert(at, next);
                Ok(next)
            }
        }
    }
}

fn compare(a: Holder, b: Holder) -> Result<Ordering, Errno> {
    let pid = nix::unistd::Pid::from_raw;
    // Two open file descriptions always have an order: only objects of different kinds do not.
    compare_files(pid(a.host), a.fd, pid(b.host), b.fd)?.ordering().ok_or(Errno::EPROTO)
}
