//! Whether this host can run an image at all, and which of its differences would show.

use super::{cpu, host};
use crate::failure::{Failure, Kind};
use image_format::layout::MANIFEST;
use image_format::manifest::Manifest;

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
