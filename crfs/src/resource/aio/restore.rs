//! Makes contexts again.

use crate::failure::{Doing, Failure, Kind};
use crfs_tracee::{Batch, HostPid};
use image_format::aio::{AioContext, RING_HEADER, ring_places};
use image_format::memory::Segment;
use image_format::{Pid, layout};
use std::fs::File;
use std::os::unix::fs::FileExt;

/// Bytes of `struct iocb` (include/uapi/linux/aio_abi.h, v6.18).
const REQUEST: usize = 64;
/// Where its descriptor stands. A request of zeros else is a read of nothing (`IOCB_CMD_PREAD`).
const REQUEST_FD: usize = 20;
/// Requests of one call: their list lies among a batch's data.
const AT_ONCE: usize = 1024;

/// The calls that make a context with a ring where this one is mapped.
pub fn map(batch: &mut Batch, ring: &Segment) {
    let (start, length) = (ring.start.0, ring.end.0 - ring.start.0);
    // Taken first, or else the kernel could map the ring there or across, and a mapping cannot be moved onto itself.
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE | libc::MAP_FIXED_NOREPLACE;
    let args = [start.into(), length.into(), libc::PROT_NONE.into(), flags.into(), u64::MAX.into(), 0u64.into()];
    batch.call(libc::SYS_mmap, &args, "mmap in the place of a ring");
    let id = batch.data(&[0; 8]);
    let args = [requests(length).into(), id.into()];
    batch.call(libc::SYS_io_setup, &args, "io_setup, for which fs.aio-max-nr must leave enough");
    let id = crfs_tracee::Arg::Data64(id);
    let flags = libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED;
    let args = [id, length.into(), length.into(), flags.into(), start.into()];
    batch.call(
        libc::SYS_mremap,
        &args,
        "mremap of a ring of asynchronous I/O, which has another length on this machine",
    );
}

/// How many requests to ask for, so that the ring has this length (`ioctx_alloc`, `aio_setup_ring` in fs/aio.c, v6.18: twice as many
/// events, two more, and then as many as the pages hold).
fn requests(length: u64) -> u64 {
    ring_places(length).saturating_sub(2) / 2
}

/// Puts back the events of contexts that [`map`] made. `link`: the number above it is free.
///
/// # Errors
/// When the system refuses.
pub fn complete(
    process: Pid,
    host: HostPid,
    contexts: &[AioContext],
    link: u32,
    mut inject: impl FnMut(&Batch) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let path = layout::process_file(process, "aio");
    for AioContext { ring, events } in contexts.iter().filter(|context| !context.events.is_empty()) {
        let mut batch = Batch::new();
        let empty = link + 1;
        let name = batch.string(c"empty");
        let made = batch.call(libc::SYS_memfd_create, &[name.into(), 0u64.into()], "memfd_create");
        batch.call(libc::SYS_dup3, &[made.into(), empty.into(), 0u64.into()], "dup3");
        batch.call(libc::SYS_close, &[made.into()], "close");
        let mut request = [0; REQUEST];
        request[REQUEST_FD..REQUEST_FD + 4].copy_from_slice(&empty.to_ne_bytes());
        let request = batch.data(&request);
        let list = batch.space(AT_ONCE.min(events.len()) * 8);
        (0..AT_ONCE.min(events.len())).for_each(|at| batch.point(list.from(at * 8), request));
        for some in events.chunks(AT_ONCE) {
            let args = [ring.0.into(), some.len().into(), list.into()];
            batch.call(libc::SYS_io_submit, &args, "io_submit");
        }
        batch.call(libc::SYS_close, &[empty.into()], "close");
        inject(&batch)?;

        let doing = || format!("{path}: {ring}: writing");
        let memory = File::options().read(true).write(true).open(format!("/proc/{}/mem", host.raw())).doing(doing)?;
        let mut ends = [0; 8];
        memory.read_exact_at(&mut ends, ring.0 + 8).doing(doing)?;
        let expected = u64::from_ne_bytes(ends) == (events.len() as u64) << 32;
        if !expected {
            return Err(Failure::new(Kind::System, format!("{path}: the ring at {ring} does not take its events")));
        }
        let words = |event: &image_format::aio::AioEvent| {
            [event.data.0, event.obj.0, event.res.cast_unsigned(), event.res2.cast_unsigned()]
        };
        let bytes: Vec<u8> = events.iter().flat_map(words).flat_map(u64::to_ne_bytes).collect();
        memory.write_all_at(&bytes, ring.0 + RING_HEADER).doing(doing)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ring_gets_its_length_again() {
        /// What the kernel makes of it on a machine with so few processors that they do not matter.
        fn length(requests: u64) -> u64 {
            (RING_HEADER + (2 * requests + 2) * 32).div_ceil(4096) * 4096
        }
        for asked in 1..5000 {
            assert_eq!(length(requests(length(asked))), length(asked), "{asked}");
        }
    }
}
