//! Whether this host can run an image at all, and which of its differences would show.

use super::{cpu, host};
use crate::failure::{Doing, Failure, Kind};
use crfs_sys::HostPid;
use crfs_sys::sockets::take_loopback_down;
use image_format::layout::MANIFEST;
use image_format::manifest::Manifest;
use nix::sched::{CloneFlags, setns};
use std::fs::File;

/// Refuses an image whose programs would execute what this kernel or CPU does not have.
///
/// # Errors
/// [`Kind::Incompatible`] with every difference.
pub fn check_host(manifest: &Manifest) -> Result<(), Failure> {
    let mut differences = Vec::new();
    let kernel = host::kernel()?;
    if (manifest.kernel.vdso, manifest.kernel.vdso_size) != (kernel.vdso, kernel.vdso_size) {
        differences.push(format!(
            "kernel: the image was taken on {} and this is {}, whose vDSO is another; restore it on the same kernel build",
            manifest.kernel.release, kernel.release
        ));
    }
    let flags = cpu::flags()?;
    let missing: Vec<&str> =
        manifest.cpu.flags.iter().filter(|flag| !flags.contains(flag)).map(String::as_str).collect();
    if !missing.is_empty() {
        let list = missing.join(" ");
        differences.push(format!("cpu: this machine lacks {list}; restore it on a machine that has them"));
    }
    if differences.is_empty() {
        return Ok(());
    }
    Err(Failure::new(Kind::Incompatible, format!("{MANIFEST}: {}", differences.join("; "))))
}

/// The container's network, if `lo` is to be down in it once all connections stand.
///
/// # Errors
/// When the first process is gone.
pub fn without_loopback(manifest: &Manifest, first: HostPid) -> Result<Option<File>, Failure> {
    let path = format!("/proc/{}/ns/net", first.raw());
    let open = || File::open(&path).doing(|| format!("{path}: opening"));
    (!manifest.container.loopback).then(open).transpose()
}

/// Takes `lo` down in a network, of which the caller, who has one thread, is no part afterwards.
///
/// # Errors
/// When the system refuses.
pub fn take_down(network: &File) -> Result<(), Failure> {
    let own = File::open("/proc/self/ns/net").doing(|| "/proc/self/ns/net: opening")?;
    setns(network, CloneFlags::CLONE_NEWNET).doing(|| "joining the container's network")?;
    let taken = take_loopback_down().doing(|| "taking lo down");
    setns(&own, CloneFlags::CLONE_NEWNET).doing(|| "going back to the own network")?;
    taken
}
