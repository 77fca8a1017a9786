//! `ldt`: segments that a process defined for itself.

use crate::flags;
use crate::types::Hex;
use serde::{Deserialize, Serialize};

/// A line of `ldt`: an entry that is in use, by the fields of `struct user_desc` (modify_ldt(2)).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LdtEntry {
    /// Its index, below 8192.
    pub entry: u32,
    /// Where the segment begins.
    pub base: Hex,
    /// Its last offset, in bytes or pages.
    pub limit: Hex,
    /// 0 data, 1 data that grows down, 2 code, 3 conforming code.
    pub contents: u8,
    /// The fields of one bit.
    pub flags: LdtFlags,
}

flags! {
    /// `struct user_desc` (arch/x86/include/uapi/asm/ldt.h, v6.18), the bits as they lie there.
    LdtFlags {
        seg_32bit = 1, read_exec_only = 8, limit_in_pages = 0x10, seg_not_present = 0x20, useable = 0x40,
    }
}

impl LdtEntry {
    /// The entry that the processor's descriptor describes; None for an empty one.
    #[must_use]
    pub fn from_descriptor(entry: u32, descriptor: u64) -> Option<Self> {
        let bits = |from: u32, count: u32| descriptor >> from & ((1 << count) - 1);
        let flag = |set: bool, flag: LdtFlags| if set { flag.0 } else { 0 };
        (descriptor != 0).then(|| LdtEntry {
            entry,
            base: Hex(bits(16, 24) | bits(56, 8) << 24),
            limit: Hex(bits(0, 16) | bits(48, 4) << 16),
            contents: (bits(42, 2) & 3) as u8,
            flags: LdtFlags(
                flag(bits(54, 1) == 1, LdtFlags::seg_32bit)
                    | flag(bits(41, 1) == 0, LdtFlags::read_exec_only)
                    | flag(bits(55, 1) == 1, LdtFlags::limit_in_pages)
                    | flag(bits(47, 1) == 0, LdtFlags::seg_not_present)
                    | flag(bits(52, 1) == 1, LdtFlags::useable),
            ),
        })
    }
}
