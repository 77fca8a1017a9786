//! Registers that hold a known pattern while the program spins: for programs that check what happens to their registers.
//!
//! Source: Intel SDM volume 1, chapter 14 (AVX).

use std::arch::asm;

/// General registers that are held beside the vector registers: r8 to r15.
const GENERAL: usize = 8;
/// Vector registers, 256 bits each.
const VECTORS: usize = 16;

/// Loads ymm0 to ymm15 and r8 to r15 with a pattern made from `seed`, spins in user mode for `spins` rounds without touching
/// them, and says whether they still hold it. None on a CPU without AVX.
#[must_use]
pub fn hold(seed: u64, spins: u64) -> Option<bool> {
    if !std::arch::is_x86_feature_detected!("avx") {
        return None;
    }
    let mut pattern = [0u64; VECTORS * 4 + GENERAL];
    for (word, index) in pattern.iter_mut().zip(1u64..) {
        *word = seed.wrapping_add(index).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }
    let mut found = [0u64; VECTORS * 4 + GENERAL];
    // SAFETY: the CPU has AVX. The code reads `pattern` and writes `found`, both 576 bytes: sixteen times 32, then eight times
    // eight; every register it changes is named as clobbered, and the stack is not touched.
    unsafe {
        asm!(
            "vmovdqu ymm0, [rsi]", "vmovdqu ymm1, [rsi + 32]", "vmovdqu ymm2, [rsi + 64]", "vmovdqu ymm3, [rsi + 96]",
            "vmovdqu ymm4, [rsi + 128]", "vmovdqu ymm5, [rsi + 160]", "vmovdqu ymm6, [rsi + 192]", "vmovdqu ymm7, [rsi + 224]",
            "vmovdqu ymm8, [rsi + 256]", "vmovdqu ymm9, [rsi + 288]", "vmovdqu ymm10, [rsi + 320]", "vmovdqu ymm11, [rsi + 352]",
            "vmovdqu ymm12, [rsi + 384]", "vmovdqu ymm13, [rsi + 416]", "vmovdqu ymm14, [rsi + 448]", "vmovdqu ymm15, [rsi + 480]",
            "mov r8, [rsi + 512]", "mov r9, [rsi + 520]", "mov r10, [rsi + 528]", "mov r11, [rsi + 536]",
            "mov r12, [rsi + 544]", "mov r13, [rsi + 552]", "mov r14, [rsi + 560]", "mov r15, [rsi + 568]",
            "2:",
            "pause",
            "sub rcx, 1",
            "ja 2b",
            "vmovdqu [rdi], ymm0", "vmovdqu [rdi + 32], ymm1", "vmovdqu [rdi + 64], ymm2", "vmovdqu [rdi + 96], ymm3",
            "vmovdqu [rdi + 128], ymm4", "vmovdqu [rdi + 160], ymm5", "vmovdqu [rdi + 192], ymm6", "vmovdqu [rdi + 224], ymm7",
            "vmovdqu [rdi + 256], ymm8", "vmovdqu [rdi + 288], ymm9", "vmovdqu [rdi + 320], ymm10", "vmovdqu [rdi + 352], ymm11",
            "vmovdqu [rdi + 384], ymm12", "vmovdqu [rdi + 416], ymm13", "vmovdqu [rdi + 448], ymm14", "vmovdqu [rdi + 480], ymm15",
            "mov [rdi + 512], r8", "mov [rdi + 520], r9", "mov [rdi + 528], r10", "mov [rdi + 536], r11",
            "mov [rdi + 544], r12", "mov [rdi + 552], r13", "mov [rdi + 560], r14", "mov [rdi + 568], r15",
            "vzeroupper",
            in("rsi") pattern.as_ptr(),
            in("rdi") found.as_mut_ptr(),
            inout("rcx") spins.max(1) => _,
            out("r8") _, out("r9") _, out("r10") _, out("r11") _, out("r12") _, out("r13") _, out("r14") _, out("r15") _,
            out("ymm0") _, out("ymm1") _, out("ymm2") _, out("ymm3") _, out("ymm4") _, out("ymm5") _, out("ymm6") _, out("ymm7") _,
            out("ymm8") _, out("ymm9") _, out("ymm10") _, out("ymm11") _, out("ymm12") _, out("ymm13") _, out("ymm14") _,
            out("ymm15") _,
            options(nostack),
        );
    }
    Some(pattern == found)
}
