//! /proc/PID/smaps: the mappings, with the flags that /proc/PID/maps does not show.
//!
//! Source: `show_smap_vma_flags` in `fs/proc/task_mmu.c`, v6.18; proc_pid_smaps(5).

use super::super::proc::Proc;
use crate::failure::{Failure, Kind};
use image_format::memory::{Backing, Protection, Segment, SegmentFlags};
use image_format::types::Address;
use std::io::BufRead;

/// One mapping as the kernel shows it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Mapping {
    pub(super) start: u64,
    pub(super) end: u64,
    pub(super) protection: u64,
    pub(super) shared: bool,
    pub(super) offset: u64,
    pub(super) device: (u32, u32),
    pub(super) inode: u64,
    /// A path, a name in brackets, or nothing; a newline in it stands as `\012`.
    pub(super) name: Vec<u8>,
    /// The two-letter flags.
    pub(super) flags: Vec<[u8; 2]>,
    pub(super) protection_key: u32,
    /// Bytes of a page: more than usual in memory from a pool of huge pages.
    pub(super) page_size: u64,
}

/// Flags that are carried, by their letters.
const CARRIED: [(&[u8; 2], SegmentFlags); 15] = [
    (b"gd", SegmentFlags::growsdown),
    (b"ac", SegmentFlags::accounted),
    (b"nr", SegmentFlags::noreserve),
    (b"lo", SegmentFlags::locked),
    (b"dc", SegmentFlags::dontfork),
    (b"dd", SegmentFlags::dontdump),
    (b"wf", SegmentFlags::wipeonfork),
    (b"hg", SegmentFlags::hugepage),
    (b"nh", SegmentFlags::nohugepage),
    (b"mg", SegmentFlags::mergeable),
    (b"sr", SegmentFlags::sequential),
    (b"rr", SegmentFlags::random),
    (b"dp", SegmentFlags::droppable),
    (b"lf", SegmentFlags::onfault),
    (b"sl", SegmentFlags::sealed),
];

impl Mapping {
    pub(super) fn has(&self, flag: &[u8; 2]) -> bool {
        self.flags.contains(flag)
    }

    /// Whether the kernel made it, and makes it again itself.
    pub(super) fn is_kernel_made(&self) -> bool {
        matches!(self.name.as_slice(), b"[vdso]" | b"[vvar]" | b"[vvar_vclock]" | b"[vsyscall]")
    }

    /// Whether it is private memory from a pool of huge pages (`hugetlb_file_setup` in `fs/hugetlbfs/inode.c`, v6.18, names it).
    pub(super) fn is_private_huge(&self) -> bool {
        self.has(b"ht") && !self.shared && self.name == b"/anon_hugepage (deleted)"
    }

    /// The record, without pages.
    pub(super) fn segment(&self, backing: Backing) -> Segment {
        let flags = CARRIED.iter().filter(|(letters, _)| self.has(letters)).fold(0, |bits, (_, flag)| bits | flag.0);
        Segment {
            start: Address(self.start),
            end: Address(self.end),
            protection: Protection(self.protection),
            shared: self.shared,
            flags: SegmentFlags(flags),
            backing,
            pages: Vec::new(),
        }
    }
}

/// The mappings of a process in the order of their addresses.
pub(super) fn read(host: i32, proc: &mut Proc) -> Result<Vec<Mapping>, Failure> {
    let mut mappings = Vec::new();
    let mut malformed = false;
    proc.lines(format_args!("{host}/smaps"), |text| malformed |= parse(text, &mut mappings).is_none())?;
    match malformed {
        true => Err(Failure::new(Kind::Unsupported, format!("/proc/{host}/smaps: malformed"))),
        false => Ok(mappings),
    }
}

/// Adds what some lines tell, of which the first may belong to the last mapping so far.
fn parse(text: &[u8], mappings: &mut Vec<Mapping>) -> Option<()> {
    let mut rest = text;
    loop {
        let before = rest;
        // With the C library's memchr. The crate of that name asks the processor what it can do at first, which takes a virtual one 0.1 ms.
        let length = rest.skip_until(b'\n').ok()?;
        let Some(line) = before.get(..length).and_then(|line| line.strip_suffix(b"\n")) else { return Some(()) };
        // A mapping begins with an address in lower-case digits, all else with a capital.
        match line.first() {
            Some(b'0'..=b'9' | b'a'..=b'f') => mappings.push(header(line)?),
            Some(b'V') => {
                if let Some(flags) = line.strip_prefix(b"VmFlags:") {
                    let words = flags.split(|&b| b == b' ').filter(|word| !word.is_empty());
                    mappings.last_mut()?.flags =
                        words.map(|word| <[u8; 2]>::try_from(word).ok()).collect::<Option<_>>()?;
                }
            }
            Some(b'K') => {
                if let Some(size) = line.strip_prefix(b"KernelPageSize:") {
                    let kib: u64 = std::str::from_utf8(size.strip_suffix(b"kB")?).ok()?.trim().parse().ok()?;
                    mappings.last_mut()?.page_size = kib.checked_mul(1024)?;
                }
            }
            Some(b'P') => {
                if let Some(key) = line.strip_prefix(b"ProtectionKey:") {
                    mappings.last_mut()?.protection_key = std::str::from_utf8(key).ok()?.trim().parse().ok()?;
                }
            }
            _ => {}
        }
    }
}

/// `55568c5f0000-55568c5f2000 r--p 00000000 fe:00 1234      /usr/bin/cat`
fn header(line: &[u8]) -> Option<Mapping> {
    let mut fields = line.splitn(6, |&b| b == b' ');
    let mut text = || std::str::from_utf8(fields.next()?).ok();
    let hex = |word: &str| u64::from_str_radix(word, 16).ok();
    let (start, end) = text()?.split_once('-')?;
    let permissions = text()?.as_bytes();
    let offset = hex(text()?)?;
    let (major, minor) = text()?.split_once(':')?;
    let device = (u32::from_str_radix(major, 16).ok()?, u32::from_str_radix(minor, 16).ok()?);
    let inode = text()?.parse().ok()?;
    let name = fields.next().unwrap_or_default();
    let bits = [(b'r', 1), (b'w', 2), (b'x', 4)];
    let protection = bits.iter().filter(|(letter, _)| permissions.contains(letter)).map(|(_, bit)| bit).sum();
    Some(Mapping {
        start: hex(start)?,
        end: hex(end)?,
        protection,
        shared: *permissions.get(3)? == b's',
        offset,
        device,
        inode,
        // Padding, then the name, which may itself begin with a blank only if it is no path.
        name: name.trim_ascii_start().to_vec(),
        ..Mapping::default()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_flags_and_keys_are_read() {
        let text = b"7f0000000000-7f0000002000 rw-s 00001000 fd:01 77                         /tmp/a b (deleted)\n\
            Size:                  8 kB\nKernelPageSize:     2048 kB\nProtectionKey:         3\nVmFlags: rd wr sh mr mw me ms nh sd \n\
            7ffd00000000-7ffd00021000 rw-p 00000000 00:00 0                          [stack]\nVmFlags: rd wr mr mw me gd ac \n\
            ffffffffff600000-ffffffffff601000 --xp 00000000 00:00 0\nVmFlags: ex \n";
        let mut mappings = Vec::new();
        parse(text, &mut mappings).expect("well formed");
        assert_eq!(mappings.len(), 3);
        let file = &mappings[0];
        assert_eq!((file.start, file.end, file.protection, file.shared), (0x7f00_0000_0000, 0x7f00_0000_2000, 3, true));
        assert_eq!((file.offset, file.device, file.inode, file.protection_key), (0x1000, (0xfd, 1), 77, 3));
        assert_eq!((file.page_size, mappings[1].page_size), (2 << 20, 0));
        assert_eq!(file.name, b"/tmp/a b (deleted)");
        assert!(file.has(b"nh") && !file.has(b"gd"));
        let stack = mappings[1].segment(Backing::Anonymous);
        assert_eq!(stack.flags.0, SegmentFlags::growsdown.0 | SegmentFlags::accounted.0);
        assert_eq!((mappings[2].name.as_slice(), mappings[2].protection), (&b""[..], 4));
    }

    #[test]
    fn nonsense_is_no_mapping() {
        assert_eq!(parse(b"7f00 rw-p\n", &mut Vec::new()), None);
        assert_eq!(parse(b"VmFlags: rd\n", &mut Vec::new()), None);
    }
}
