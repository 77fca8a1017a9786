//! The programs, instruction by instruction.
//!
//! Source: Documentation/bpf/standardization/instruction-set.rst, v6.18.

use std::os::fd::RawFd;

use super::{
    AT_ADDRESS, AT_FINAL, AT_HOPS, AT_LAST, AT_LENGTH, AT_OFFSETS, AT_POINTER, AT_STATUS, CAPACITY, DATA, MAX_HOPS,
    STATUS_NULL,
};

const BPF_PSEUDO_MAP_FD: u8 = 1;
const BPF_PSEUDO_MAP_VALUE: u8 = 2;
const HELPER_GET_CURRENT_TASK: i32 = 35;
const HELPER_PROBE_READ_KERNEL: i32 = 113;
const HELPER_MAP_LOOKUP_PERCPU_ELEM: i32 = 195;

/// One instruction, as the kernel takes it (`struct bpf_insn`).
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub(super) struct Insn {
    code: u8,
    registers: u8,
    offset: i16,
    immediate: i32,
}

const _: () = assert!(size_of::<Insn>() == 8);

const R0: u8 = 0;
const R1: u8 = 1;
const R2: u8 = 2;
const R3: u8 = 3;
/// The array's value, throughout.
const R6: u8 = 6;
/// The address reached so far.
const R7: u8 = 7;
const R9: u8 = 9;
/// The end of the stack.
const R10: u8 = 10;

fn insn(code: u8, dst: u8, src: u8, offset: i16, immediate: i32) -> Insn {
    Insn { code, registers: (src << 4) | dst, offset, immediate }
}

/// `dst = *(u64 *)(src + offset)`
fn load(dst: u8, src: u8, offset: i16) -> Insn {
    insn(0x79, dst, src, offset, 0)
}

/// `*(u64 *)(dst + offset) = src`
fn store(dst: u8, offset: i16, src: u8) -> Insn {
    insn(0x7b, dst, src, offset, 0)
}

fn mov(dst: u8, src: u8) -> Insn {
    insn(0xbf, dst, src, 0, 0)
}

fn mov_value(dst: u8, value: i32) -> Insn {
    insn(0xb7, dst, 0, 0, value)
}

fn add(dst: u8, src: u8) -> Insn {
    insn(0x0f, dst, src, 0, 0)
}

fn add_value(dst: u8, value: i32) -> Insn {
    insn(0x07, dst, 0, 0, value)
}

fn call(helper: i32) -> Insn {
    insn(0x85, 0, 0, 0, helper)
}

fn exit() -> Insn {
    insn(0x95, 0, 0, 0, 0)
}

/// `if (dst > value) skip the next `skip` instructions`, unsigned
fn skip_if_greater(dst: u8, value: i32, skip: i16) -> Insn {
    insn(0x25, dst, 0, skip, value)
}

/// `if (dst != value) skip the next `skip` instructions`
fn skip_unless(dst: u8, value: i32, skip: i16) -> Insn {
    insn(0x55, dst, 0, skip, value)
}

/// `if (dst == value) skip the next `skip` instructions`
fn skip_if(dst: u8, value: i32, skip: i16) -> Insn {
    insn(0x15, dst, 0, skip, value)
}

/// Writes the status that is in r0 and ends.
fn finish() -> [Insn; 3] {
    [store(R6, AT_STATUS, R0), mov_value(R0, 0), exit()]
}

/// The program that copies kernel memory. Straight code, one stretch for each pointer that may have to be followed: no loop for the verifier.
pub(super) fn program(array: RawFd) -> Vec<Insn> {
    // A 64-bit immediate takes two instructions; the pseudo source makes it the address of the array's value.
    let mut code = vec![insn(0x18, R6, BPF_PSEUDO_MAP_VALUE, 0, array), insn(0, 0, 0, 0, 0)];
    code.extend([load(R7, R6, AT_ADDRESS), skip_unless(R7, 0, 2), call(HELPER_GET_CURRENT_TASK), mov(R7, R0)]);
    for slot in (0i16..).take(MAX_HOPS) {
        let one_hop = [
            load(R9, R6, AT_OFFSETS + 8 * slot),
            add(R7, R9),
            store(R6, AT_FINAL, R7),
            mov(R1, R6),
            add_value(R1, i32::from(AT_POINTER)),
            mov_value(R2, 8),
            mov(R3, R7),
            call(HELPER_PROBE_READ_KERNEL),
            skip_if(R0, 0, 3),
        ];
        let after = [load(R7, R6, AT_POINTER), skip_unless(R7, 0, 4), mov_value(R0, STATUS_NULL)];
        let length = i16::try_from(one_hop.len() + after.len()).unwrap_or(0) + 6;
        code.push(load(R9, R6, AT_HOPS));
        // `hops > slot` or this stretch is not wanted.
        code.push(skip_if_greater(R9, i32::from(slot), 1));
        code.push(insn(0x05, 0, 0, length, 0));
        code.extend(one_hop);
        code.extend(finish());
        code.extend(after);
        code.extend(finish());
    }
    code.extend([
        load(R9, R6, AT_LAST),
        add(R7, R9),
        store(R6, AT_FINAL, R7),
        load(R2, R6, AT_LENGTH),
        mov_value(R0, -libc::E2BIG),
        // The verifier wants to see the bound.
        skip_if_greater(R2, i32::try_from(CAPACITY).unwrap_or(0), 5),
        mov(R1, R6),
        add_value(R1, i32::try_from(DATA).unwrap_or(0)),
        mov(R3, R7),
        call(HELPER_PROBE_READ_KERNEL),
        // Lands on finish() either way.
        mov(R9, R9),
    ]);
    code.extend(finish());
    code
}

/// The program that tells where a processor has its copy of the first element of `map`: 0 where there is no such processor.
pub(super) fn locate(array: RawFd, map: RawFd) -> Vec<Insn> {
    const KEY: i16 = -4;
    vec![
        insn(0x18, R6, BPF_PSEUDO_MAP_VALUE, 0, array),
        insn(0, 0, 0, 0, 0),
        load(R3, R6, AT_ADDRESS),
        // `*(u32 *)(r10 + KEY) = 0`
        insn(0x62, R10, 0, KEY, 0),
        insn(0x18, R1, BPF_PSEUDO_MAP_FD, 0, map),
        insn(0, 0, 0, 0, 0),
        mov(R2, R10),
        add_value(R2, KEY.into()),
        call(HELPER_MAP_LOOKUP_PERCPU_ELEM),
        store(R6, AT_FINAL, R0),
        mov_value(R0, 0),
        exit(),
    ]
}
