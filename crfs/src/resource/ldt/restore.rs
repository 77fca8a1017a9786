//! Defines segments again.

use crfs_sys::thread_area::UserDesc;
use crfs_tracee::Batch;
use image_format::ldt::LdtEntry;

/// modify_ldt(2): writes an entry with all its fields.
const WRITE: u64 = 0x11;

/// The calls.
pub fn restore(batch: &mut Batch, entries: &[LdtEntry]) {
    for LdtEntry { entry, base, limit, contents, flags } in entries {
        // The fields were checked to fit.
        let word = |value: u64| u32::try_from(value).unwrap_or(u32::MAX);
        let segment = UserDesc {
            entry_number: *entry,
            base_addr: word(base.0),
            limit: word(limit.0),
            flags: word(flags.0) | u32::from(*contents) << 1,
        };
        let bytes = segment.to_bytes();
        let segment = batch.data(&bytes);
        batch.call(libc::SYS_modify_ldt, &[WRITE.into(), segment.into(), bytes.len().into()], "modify_ldt");
    }
}
