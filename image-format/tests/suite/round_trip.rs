//! `parse(render(r)) == r`, for every record.

use crate::arbitrary::any;
use image_format::image::Image;
use image_format::memory::{CHUNK_SIZE, ChunkSum, Fixed, sums_size};
use image_format::{layout, parse_lines, parse_object, render_lines, render_object};
use proptest::prelude::*;

macro_rules! round_trips {
    ($($name:ident: $type:ty),* $(,)?) => { proptest! { $(
        #[test]
        fn $name(record in any::<$type>(), others in any::<Vec<$type>>()) {
            prop_assert_eq!(parse_object::<$type>(&render_object(&record)), Ok(record));
            let text = render_lines(&others);
            prop_assert_eq!(text.iter().filter(|&&byte| byte == b'\n').count(), others.len() + 1);
            prop_assert_eq!(parse_lines::<$type>(&text), Ok(others));
        }
    )* } };
}

round_trips! {
    blocker: image_format::Blocker,
    timespec: image_format::Timespec,
    bytes: image_format::Bytes,
    blob: image_format::Blob,
    octal: image_format::Octal,
    manifest: image_format::manifest::Manifest,
    file: image_format::files::File,
    stdio: image_format::files::Stdio,
    segment: image_format::memory::Segment,
    chunk_sum: image_format::memory::ChunkSum,
    process: image_format::process::Process,
    process_attr: image_format::process::ProcessAttr,
    fd: image_format::process::Fd,
    thread_entry: image_format::process::ThreadEntry,
    zombie: image_format::process::Zombie,
    aio_context: image_format::aio::AioContext,
    ldt_entry: image_format::ldt::LdtEntry,
    numa_policy: image_format::numa::NumaPolicy,
    seccomp_filter: image_format::seccomp::SeccompFilter,
    signal_mask: image_format::signal::SignalMask,
    altstack: image_format::signal::AltStack,
    signal_action: image_format::signal::SignalAction,
    pending_signal: image_format::signal::PendingSignal,
    thread_attr: image_format::thread::ThreadAttr,
    fpu_state: image_format::thread::FpuState,
    frame: image_format::thread::Frame,
    timer: image_format::timer::Timer,
    tls: image_format::thread::Tls,
    pty: image_format::tty::Pty,
}

proptest! {
    /// Any records, once they stand where an image has them.
    #[test]
    fn image(mut image in any::<Image>()) {
        image.manifest.format = image_format::manifest::FORMAT_VERSION;
        image.manifest.architecture = "x86_64".to_owned();
        image.manifest.page_size = 4096;
        image.manifest.parent = None;
        for (&pid, process) in &mut image.processes {
            process.process.pid = pid;
            if let Some((_, leader)) = process.threads.pop_last() {
                process.threads.insert(pid, leader);
            }
        }
        image.processes.retain(|_, process| !process.threads.is_empty());
        image.manifest.paths = image.paths();
        let mut files = image.render();
        files.insert(layout::MANIFEST.to_owned(), render_object(&image.manifest));
        prop_assert_eq!(Image::parse(&files), Ok(image));
    }

    #[test]
    fn sums_have_the_size_foretold(size in 0..40 * CHUNK_SIZE) {
        let chunks = size.div_ceil(CHUNK_SIZE);
        let sums: Vec<_> = (0..chunks).map(|n| ChunkSum { chunk: Fixed(n), xxh3: Fixed(n << 60 | n) }).collect();
        prop_assert_eq!(render_lines(&sums).len() as u64, sums_size(size));
    }
}
