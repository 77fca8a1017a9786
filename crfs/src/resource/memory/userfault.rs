//! Pages put into a process as they are: userfaultfd(2) makes a page of what it is given, where a write from outside has the page cleared
//! first, and looked up as after a fault. A gigabyte of small pages takes three quarters of the time.

use crate::failure::{Doing, Failure};
use crate::plan::MemoryPlan;
use crate::plan::memory::Fill;
use crfs_sys::pidfd;
use crfs_tracee::{Arg, Batch, CallId, Injector};
use image_format::memory::{Backing, Segment, SegmentFlags};
use image_format::types::PAGE_SIZE;
use image_format::{ProcessImage, layout};
use nix::errno::Errno;
use std::ops::Range;
use std::os::fd::{AsFd, OwnedFd};

/// A mapping with less to be filled is not worth the calls.
const FEWEST: u64 = 64 * PAGE_SIZE;
#[allow(clippy::cast_possible_truncation)] // 4 KiB
const PAGE: usize = PAGE_SIZE as usize;

/// `include/uapi/linux/userfaultfd.h`, v6.18.
const UFFD_USER_MODE_ONLY: i32 = 1;
const UFFD_API: u64 = 0xaa;
const UFFD_FEATURE_MOVE: u64 = 1 << 16;
const UFFDIO_REGISTER_MODE_MISSING: u64 = 1;
const UFFDIO_API: u64 = 0xc018_aa3f;
const UFFDIO_REGISTER: u64 = 0xc020_aa00;
const UFFDIO_UNREGISTER: u64 = 0x8010_aa01;

/// A userfaultfd of a process that is being filled.
#[derive(Debug)]
pub(super) struct Userfault {
    /// Its number there.
    pub(super) number: i64,
    /// Whether it moves pages (since v6.8).
    pub(super) moves: bool,
    here: OwnedFd,
    /// The mappings whose pages it makes, in order.
    mappings: Vec<Range<u64>>,
}

impl Userfault {
    /// Opens it in a process. None where the kernel cannot, and nothing is to be done then.
    pub(super) fn open(
        injector: &mut Injector,
        process: &ProcessImage,
        plan: &MemoryPlan,
    ) -> Result<Option<Self>, Failure> {
        let object = || layout::process_dir(process.process.pid);
        let wanted = mappings(process, plan);
        let mut batch = Batch::new();
        let flags = libc::O_CLOEXEC | UFFD_USER_MODE_ONLY;
        let number = batch.attempt(libc::SYS_userfaultfd, &[flags.into()], "userfaultfd");
        // The second does nothing where the first was understood.
        let [moves, plain] = [UFFD_FEATURE_MOVE, 0].map(|features| {
            let api = words(&mut batch, &[UFFD_API, features, 0]);
            batch.attempt(libc::SYS_ioctl, &[number.into(), UFFDIO_API.into(), api], "UFFDIO_API")
        });
        let registered: Vec<(CallId, Range<u64>)> =
            wanted.into_iter().map(|range| (register(&mut batch, number.into(), &range), range)).collect();
        let results = injector.run(&batch).doing(object)?;
        let result = |call: CallId| results.get(call.index()).copied().unwrap_or(-1);
        let Ok(fd) = i32::try_from(result(number)) else { return Ok(None) };
        if fd < 0 {
            return Ok(None);
        }
        let here = pidfd::open_any(injector.tid().pid()).and_then(|process| pidfd::getfd(process.as_fd(), fd));
        let userfault = Userfault {
            number: fd.into(),
            moves: result(moves) >= 0,
            here: here.doing(object)?,
            mappings: registered.into_iter().filter(|(call, _)| result(*call) >= 0).map(|(_, range)| range).collect(),
        };
        if userfault.moves || result(plain) >= 0 {
            return Ok(Some(userfault));
        }
        let mut batch = Batch::new();
        userfault.close(&mut batch);
        injector.run(&batch).doing(object)?;
        Ok(None)
    }

    /// Whether it makes the pages of a mapping.
    pub(super) fn takes(&self, address: u64) -> bool {
        let mapping = self.mappings.get(self.mappings.partition_point(|mapping| mapping.end <= address));
        mapping.is_some_and(|mapping| mapping.contains(&address))
    }

    /// Makes pages that it takes. `over` writes over one that is there already.
    pub(super) fn put(
        &self,
        address: u64,
        bytes: &[u8],
        over: impl Fn(u64, &[u8]) -> std::io::Result<()>,
    ) -> std::io::Result<()> {
        let mut done = 0;
        while done < bytes.len() {
            let (at, rest) = (address + done as u64, &bytes[done..]);
            match crfs_sys::userfault::copy(self.here.as_fd(), at, rest) {
                Ok(count) => done += count,
                Err(Errno::EEXIST) => {
                    let page = &rest[..rest.len().min(PAGE)];
                    over(at, page)?;
                    done += page.len();
                }
                Err(errno) => return Err(errno.into()),
            }
        }
        Ok(())
    }

    /// Lets go of all mappings.
    pub(super) fn close(self, batch: &mut Batch) {
        for mapping in &self.mappings {
            unregister(batch, self.number.into(), mapping);
        }
        batch.call(libc::SYS_close, &[self.number.into()], "close");
    }
}

/// Has the userfaultfd make the pages of a mapping, all of it, so that it is not divided.
pub(super) fn register(batch: &mut Batch, userfault: Arg, mapping: &Range<u64>) -> CallId {
    let range = words(batch, &[mapping.start, mapping.end - mapping.start, UFFDIO_REGISTER_MODE_MISSING, 0]);
    batch.attempt(libc::SYS_ioctl, &[userfault, UFFDIO_REGISTER.into(), range], "UFFDIO_REGISTER")
}

/// Undoes [`register`].
pub(super) fn unregister(batch: &mut Batch, userfault: Arg, mapping: &Range<u64>) {
    let range = words(batch, &[mapping.start, mapping.end - mapping.start]);
    batch.attempt(libc::SYS_ioctl, &[userfault, UFFDIO_UNREGISTER.into(), range], "UFFDIO_UNREGISTER");
}

/// Words in a row, as an argument.
pub(super) fn words(batch: &mut Batch, words: &[u64]) -> Arg {
    let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_ne_bytes()).collect();
    batch.data(&bytes).into()
}

/// The mappings that are made for this process, empty, and have much to be filled.
fn mappings(process: &ProcessImage, plan: &MemoryPlan) -> Vec<Range<u64>> {
    let made = plan.map.iter().filter_map(|&index| process.segments.get(index));
    let mut mappings: Vec<Range<u64>> = made
        .filter(|segment| takes_pages(segment))
        .map(|segment| segment.start.0..segment.end.0)
        .filter(|mapping| filled(&plan.fill, mapping) >= FEWEST)
        .collect();
    mappings.sort_unstable_by_key(|mapping| mapping.start);
    mappings
}

fn filled(fill: &[Fill], mapping: &Range<u64>) -> u64 {
    let first = fill.partition_point(|fill| fill.address + fill.length <= mapping.start);
    let inside = fill[first..].iter().take_while(|fill| fill.address < mapping.end);
    inside.map(|fill| fill.length).sum()
}

/// Huge pages are made for those that ask for them.
fn takes_pages(segment: &Segment) -> bool {
    let unsuited = [SegmentFlags::hugepage, SegmentFlags::growsdown, SegmentFlags::droppable];
    segment.backing == Backing::Anonymous
        && !segment.shared
        && !unsuited.iter().any(|&flag| segment.flags.contains(flag))
}
