//! An ELF core file of a process in a checkpoint, for debuggers.
//!
//! The form is the kernel's own (`fs/binfmt_elf.c`, `include/linux/elfcore.h`, v6.18; core(5)): notes with the registers of every thread, the
//! auxiliary vector and the mapped files, then memory. Contents that are stored are written, untouched anonymous memory is a hole in the file, and
//! what a mapped file has itself is left to that file, as the kernel leaves it.

use super::Copy;
use super::space::{self, Stored};
use crate::failure::{Doing, Failure, Kind};
use crate::transport::{Progress, Source};
use image_format::Pid;
use image_format::image::{ProcessImage, ThreadImage};
use image_format::memory::{Backing, Segment};
use image_format::process::ThreadEntry;
use image_format::types::PAGE_SIZE;
use std::fs::{File, OpenOptions};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;

const HEADER: u64 = 64;
const PROGRAM_HEADER: u64 = 56;
const SECTION_HEADER: u64 = 64;
/// More program headers than this are counted in the first section header (elf(5), PN_XNUM).
const PN_XNUM: u64 = 0xffff;
const PT_LOAD: u32 = 1;
const PT_NOTE: u32 = 4;
const NT_PRSTATUS: u32 = 1;
const NT_PRFPREG: u32 = 2;
const NT_PRPSINFO: u32 = 3;
const NT_AUXV: u32 = 6;
const NT_FILE: u32 = 0x4649_4c45;
const NT_X86_XSTATE: u32 = 0x202;
/// Bytes of the FXSAVE area that an XSAVE area begins with.
const FXSAVE: usize = 512;
/// Memory is copied so many bytes at a time.
const PIECE: u64 = 1 << 20;

/// A run of addresses of one mapping: dumped, or left to the mapped file.
struct Load {
    start: u64,
    end: u64,
    /// PF_ flags.
    flags: u32,
    dumped: bool,
}

/// Writes a core file of process `pid` to `target`, which must not exist.
///
/// # Errors
/// [`Kind::NotFound`] when there is no such process, [`Kind::Exists`], what reading or writing meets. Nothing is left then.
pub fn write_core(
    source: &dyn Source,
    copy: &Copy,
    pid: Pid,
    target: &Path,
    progress: &Progress,
) -> Result<(), Failure> {
    let stored = space::stored(&copy.image, pid)?;
    let missing = || Failure::new(Kind::NotFound, format!("there is no process {pid} in it"));
    let process = copy.image.processes.get(&pid).ok_or_else(missing)?;
    let file = match OpenOptions::new().write(true).create_new(true).mode(0o600).open(target) {
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
            return Err(Failure::new(Kind::Exists, format!("{}: exists already; name another file", target.display())));
        }
        other => other.doing(|| format!("{}: making it", target.display()))?,
    };
    let notes = notes(process, copy.image.segments(pid), copy.image.manifest.cpu.xsave_size as usize);
    write(source, &notes, copy.image.segments(pid), &stored, &file, progress).inspect_err(|_| {
        // The first failure is the one that counts.
        let _ = std::fs::remove_file(target);
    })
}

fn write(
    source: &dyn Source,
    notes: &[u8],
    segments: &[Segment],
    stored: &[Stored],
    file: &File,
    progress: &Progress,
) -> Result<(), Failure> {
    let put = |bytes: &[u8], at: u64| file.write_all_at(bytes, at).doing(|| "writing the core file");
    let loads: Vec<Load> = segments.iter().flat_map(|segment| loads(segment, stored)).collect();
    let count = loads.len() as u64 + 1;
    let sections = u64::from(count >= PN_XNUM);
    let notes_at = HEADER + count * PROGRAM_HEADER + sections * SECTION_HEADER;
    let mut at = (notes_at + notes.len() as u64).next_multiple_of(PAGE_SIZE);

    let mut head = header(count);
    head.extend(program_header(PT_NOTE, 0, notes_at, 0, notes.len() as u64, 0, 4));
    progress.begin(stored.iter().map(|run| run.end - run.start).sum());
    for load in &loads {
        let length = load.end - load.start;
        let in_file = if load.dumped { length } else { 0 };
        head.extend(program_header(PT_LOAD, load.flags, at, load.start, in_file, length, PAGE_SIZE));
        if load.dumped {
            copy_memory(source, stored, load, file, at, progress)?;
        }
        at += in_file;
    }
    if sections > 0 {
        let mut section = vec![0; 64];
        // sh_info: the number of program headers.
        section[44..48].copy_from_slice(&u32::try_from(count).unwrap_or(u32::MAX).to_le_bytes());
        head.extend(section);
    }
    head.extend(notes);
    put(&head, 0)?;
    // Holes at the end belong to it.
    file.set_len(at).doing(|| "writing the core file")
}

/// A mapping as program headers: anonymous memory whole, of a mapped file what differs from it.
fn loads(segment: &Segment, stored: &[Stored]) -> Vec<Load> {
    // PF_X, PF_W, PF_R are the reverse of PROT_.
    let protection = segment.protection.0;
    let flags = [(1, 4), (2, 2), (4, 1)].into_iter().filter(|(prot, _)| protection & prot != 0).map(|(_, pf)| pf).sum();
    let load = |start, end, dumped| Load { start, end, flags, dumped };
    let (start, end) = (segment.start.0, segment.end.0);
    match segment.backing {
        Backing::Vvar | Backing::VvarVclock | Backing::Vsyscall => Vec::new(),
        Backing::File(_) | Backing::Vdso => {
            let mut loads = Vec::new();
            let mut at = start;
            for run in stored.iter().filter(|run| run.start < end && run.end > start) {
                let (from, to) = (run.start.max(start), run.end.min(end));
                if at < from {
                    loads.push(load(at, from, false));
                }
                loads.push(load(from, to, true));
                at = to;
            }
            if at < end {
                loads.push(load(at, end, false));
            }
            loads
        }
        _ => vec![load(start, end, true)],
    }
}

fn copy_memory(
    source: &dyn Source,
    stored: &[Stored],
    load: &Load,
    file: &File,
    at: u64,
    progress: &Progress,
) -> Result<(), Failure> {
    let mut buffer = Vec::new();
    for run in stored.iter().filter(|run| run.start < load.end && run.end > load.start) {
        let (mut address, end) = (run.start.max(load.start), run.end.min(load.end));
        while address < end {
            let length = PIECE.min(end - address);
            buffer.resize(usize::try_from(length).unwrap_or(0), 0);
            space::read(source, run, address, &mut buffer)?;
            file.write_all_at(&buffer, at + (address - load.start)).doing(|| "writing the core file")?;
            progress.advance(length);
            address += length;
        }
    }
    Ok(())
}

fn header(program_headers: u64) -> Vec<u8> {
    let extended = program_headers >= PN_XNUM;
    let mut bytes = vec![0x7f, b'E', b'L', b'F', 2, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    bytes.extend(4u16.to_le_bytes()); // ET_CORE
    bytes.extend(62u16.to_le_bytes()); // EM_X86_64
    bytes.extend(1u32.to_le_bytes());
    bytes.extend(0u64.to_le_bytes()); // no entry
    bytes.extend(HEADER.to_le_bytes());
    let sections = if extended { HEADER + program_headers * PROGRAM_HEADER } else { 0 };
    bytes.extend(sections.to_le_bytes());
    bytes.extend(0u32.to_le_bytes());
    let halves = |values: [u64; 6]| values.map(|value| u16::try_from(value).unwrap_or(u16::MAX).to_le_bytes());
    let shown = program_headers.min(PN_XNUM);
    let (size, count) = if extended { (SECTION_HEADER, 1) } else { (0, 0) };
    bytes.extend(halves([HEADER, PROGRAM_HEADER, shown, size, count, 0]).concat());
    bytes
}

fn program_header(
    kind: u32,
    flags: u32,
    offset: u64,
    address: u64,
    in_file: u64,
    in_memory: u64,
    align: u64,
) -> Vec<u8> {
    let mut bytes = kind.to_le_bytes().to_vec();
    bytes.extend(flags.to_le_bytes());
    for value in [offset, address, 0, in_file, in_memory, align] {
        bytes.extend(value.to_le_bytes());
    }
    bytes
}

/// All notes: of the process, and of each thread, the leader first, with extended states of so many bytes.
fn notes(process: &ProcessImage, segments: &[Segment], xsave_size: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (index, ThreadEntry { tid }) in process.thread_list().into_iter().enumerate() {
        let Some(thread) = process.threads.get(&tid) else { continue };
        note(&mut bytes, "CORE", NT_PRSTATUS, &status(process, tid, thread));
        if index == 0 {
            note(&mut bytes, "CORE", NT_PRPSINFO, &information(process, thread));
            note(&mut bytes, "CORE", NT_AUXV, &process.process.layout.auxv.0);
            note(&mut bytes, "CORE", NT_FILE, &files(segments));
        }
        let xstate = thread.fpu.xstate.area(xsave_size);
        if let Some(fxsave) = xstate.get(..FXSAVE) {
            note(&mut bytes, "CORE", NT_PRFPREG, fxsave);
            note(&mut bytes, "LINUX", NT_X86_XSTATE, &xstate);
        }
    }
    bytes
}

fn note(bytes: &mut Vec<u8>, name: &str, kind: u32, content: &[u8]) {
    // The name counts with the zero byte that ends it.
    for value in [name.len() + 1, content.len()] {
        bytes.extend(u32::try_from(value).unwrap_or(u32::MAX).to_le_bytes());
    }
    bytes.extend(kind.to_le_bytes());
    bytes.extend(name.as_bytes());
    bytes.resize((bytes.len() + 1).next_multiple_of(4), 0);
    bytes.extend(content);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
}

/// `struct elf_prstatus`, 336 bytes.
fn status(process: &ProcessImage, tid: Pid, thread: &ThreadImage) -> Vec<u8> {
    let record = &process.process;
    let r = &thread.frame.registers;
    // No signal, nothing pending of interest to a debugger.
    let mut bytes = vec![0; 32];
    for id in [tid, record.parent, record.group, record.session] {
        bytes.extend(id.0.to_le_bytes());
    }
    // Times, which a checkpoint does not keep.
    bytes.extend([0; 64]);
    for value in [
        r.r15, r.r14, r.r13, r.r12, r.rbp, r.rbx, r.r11, r.r10, r.r9, r.r8, r.rax, r.rcx, r.rdx, r.rsi, r.rdi,
        r.orig_rax, r.rip, r.cs, r.eflags, r.rsp, r.ss,
    ] {
        bytes.extend(value.0.to_le_bytes());
    }
    for value in [thread.tls.fs_base.0, thread.tls.gs_base.0, r.ds.0, r.es.0, r.fs.0, r.gs.0] {
        bytes.extend(value.to_le_bytes());
    }
    // pr_fpvalid
    bytes.extend(1u64.to_le_bytes());
    bytes
}

/// `struct elf_prpsinfo`, 136 bytes.
fn information(process: &ProcessImage, leader: &ThreadImage) -> Vec<u8> {
    let record = &process.process;
    let mut bytes = vec![0, b'S', 0, leader.attr.scheduling.nice.to_le_bytes()[0], 0, 0, 0, 0];
    bytes.extend(0u64.to_le_bytes());
    bytes.extend(leader.attr.credentials.uid[0].to_le_bytes());
    bytes.extend(leader.attr.credentials.gid[0].to_le_bytes());
    for id in [record.pid, record.parent, record.group, record.session] {
        bytes.extend(id.0.to_le_bytes());
    }
    let mut text = |content: &[u8], length: usize| {
        let cut = &content[..content.len().min(length - 1)];
        bytes.extend(cut);
        bytes.resize(bytes.len() + length - cut.len(), 0);
    };
    text(&leader.attr.name.0, 16);
    let arguments: Vec<&[u8]> = record.arguments.iter().map(|argument| argument.0.as_slice()).collect();
    text(&arguments.join(&b' '), 80);
    bytes
}

/// Which file is mapped where, `fill_files_note` in `fs/binfmt_elf.c`.
fn files(segments: &[Segment]) -> Vec<u8> {
    let mapped = segments.iter().filter_map(|segment| match &segment.backing {
        Backing::File(file) => Some((segment, file)),
        _ => None,
    });
    let mapped: Vec<_> = mapped.collect();
    let mut bytes = (mapped.len() as u64).to_le_bytes().to_vec();
    bytes.extend(PAGE_SIZE.to_le_bytes());
    for (segment, file) in &mapped {
        for value in [segment.start.0, segment.end.0, file.offset / PAGE_SIZE] {
            bytes.extend(value.to_le_bytes());
        }
    }
    for (_, file) in &mapped {
        bytes.extend(&file.path.0);
        bytes.push(0);
    }
    bytes
}

/// A name for a core file: `core.NAME.PID`.
#[must_use]
pub fn core_name(copy: &Copy, pid: Pid) -> String {
    format!("core.{}.{pid}", copy.image.manifest.name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn notes_are_filled_to_four_bytes() {
        let mut bytes = Vec::new();
        note(&mut bytes, "CORE", 6, &[1, 2, 3, 4, 5]);
        let expected: [&[u8]; 4] =
            [&[5, 0, 0, 0, 5, 0, 0, 0, 6, 0, 0, 0], b"CORE\0\0\0\0", &[1, 2, 3, 4, 5], &[0, 0, 0]];
        assert_eq!(bytes, expected.concat());
    }
}
