//! The kernel an image notes, read from this machine.

use crate::failure::{Doing, Failure, Kind};
use image_format::Hex;
use image_format::manifest::Kernel;
use image_format::memory::checksum;
use std::fs::{self, File};
use std::os::unix::fs::FileExt;

/// The running kernel. Its vDSO is the same in every process, so the caller's own is looked at.
///
/// # Errors
/// When /proc/self cannot be read.
pub(super) fn kernel() -> Result<Kernel, Failure> {
    let release = nix::sys::utsname::uname().doing(|| "uname(2)")?.release().to_string_lossy().into_owned();
    let code = vdso()?;
    Ok(Kernel { release, vdso: Hex(checksum(&code)), vdso_size: code.len() as u64 })
}

/// The code of the caller's vDSO.
///
/// # Errors
/// When /proc/self cannot be read.
pub(super) fn vdso() -> Result<Vec<u8>, Failure> {
    let maps = fs::read_to_string("/proc/self/maps").doing(|| "/proc/self/maps: reading")?;
    let line = maps.lines().find(|line| line.ends_with("[vdso]"));
    let range = line.and_then(|line| line.split_whitespace().next()?.split_once('-'));
    let bounds =
        range.and_then(|(start, end)| Some((u64::from_str_radix(start, 16).ok()?, u64::from_str_radix(end, 16).ok()?)));
    let (start, end) = bounds.ok_or_else(|| Failure::new(Kind::Unsupported, "this kernel maps no vDSO (vdso=0?)"))?;
    let mut code = vec![0; usize::try_from(end - start).unwrap_or(0)];
    let memory = File::open("/proc/self/mem").doing(|| "/proc/self/mem: opening")?;
    memory.read_exact_at(&mut code, start).doing(|| "/proc/self/mem: reading the vDSO")?;
    Ok(code)
}
