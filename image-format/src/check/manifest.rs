//! `manifest`: whether this crate understands it, and what a user may have edited there.

use super::{Findings, absolute, content, time};
use crate::convert::unknown;
use crate::image::ImageError;
use crate::layout::MANIFEST;
use crate::manifest::{FORMAT_VERSION, Manifest, NamespaceKind};
use crate::text::{TextError, parse_object};
use crate::types::{Bytes, PAGE_SIZE};
use serde::Deserialize;

/// The legacy region and the header of an XSAVE area: no area is smaller.
pub(super) const XSAVE_MIN: u32 = 576;
/// Several times what the largest processor of today has.
const XSAVE_MAX: u32 = 1 << 16;

/// The format that a manifest announces.
///
/// # Errors
/// When it is no JSON object that tells one.
pub fn read_format(bytes: &[u8]) -> Result<u32, ImageError> {
    #[derive(Deserialize)]
    struct Announced {
        format: u32,
    }
    parse_object(bytes).map(|Announced { format }| format).map_err(malformed)
}

/// Parses a manifest. What another format calls its fields is not known here: of one that cannot be read, the format is looked at first.
///
/// # Errors
/// When it is of another format, malformed, or announces what this crate does not understand.
pub fn read_manifest(bytes: &[u8]) -> Result<Manifest, ImageError> {
    match parse_object(bytes) {
        Ok(read) => manifest(&read).map(|()| read),
        Err(error) => Err(read_format(bytes).and_then(known).err().unwrap_or_else(|| malformed(error))),
    }
}

fn malformed(source: TextError) -> ImageError {
    ImageError::Text { path: MANIFEST.to_owned(), source }
}

fn known(format: u32) -> Result<(), ImageError> {
    if format == FORMAT_VERSION { Ok(()) } else { Err(content(MANIFEST, unknown(format))) }
}

/// Checks that this crate understands what the manifest announces.
///
/// # Errors
/// Names the field that does not fit.
pub fn manifest(manifest: &Manifest) -> Result<(), ImageError> {
    let refuse = |reason: String| Err(content(MANIFEST, reason));
    known(manifest.format)?;
    if manifest.architecture != "x86_64" {
        return refuse(format!(
            "architecture {:?}: an image can only be restored on its own, and this is x86_64",
            manifest.architecture
        ));
    }
    if manifest.page_size != PAGE_SIZE {
        return refuse(format!(
            "page_size {}: format {FORMAT_VERSION} has pages of {PAGE_SIZE} bytes",
            manifest.page_size
        ));
    }
    if let Some(parent) = &manifest.parent {
        return refuse(format!("parent {parent:?}: this program reads no incremental images"));
    }
    Ok(())
}

/// The container's surroundings.
pub(super) fn container(manifest: &Manifest, findings: &mut Findings) {
    let mut field = |name: &str, problem: Option<String>| {
        if let Some(problem) = problem {
            findings.add(MANIFEST, format!("{name}: {problem}"));
        }
    };
    let clocks = &manifest.clocks;
    field("clocks.realtime", time(clocks.realtime));
    field("clocks.monotonic", time(clocks.monotonic));
    field("clocks.boottime", time(clocks.boottime));
    field("container.root", manifest.container.root.as_ref().and_then(absolute));
    // It would become the host's own root.
    let bare = manifest.container.root.is_some() && manifest.container.shares(NamespaceKind::Mnt);
    let reason = "mnt: with a root of its own it must have mounts of its own";
    field("container.host_namespaces", bare.then(|| reason.to_owned()));
    field("container.hostname", node_name(&manifest.container.hostname));
    field("container.domainname", node_name(&manifest.container.domainname));
    let no_own = manifest.container.shares(NamespaceKind::Net) && !manifest.container.loopback;
    field("container.loopback", no_own.then(|| "false, and `net` is shared with the host".to_owned()));
    let size = manifest.cpu.xsave_size;
    let known = XSAVE_MIN..=XSAVE_MAX;
    let impossible = (!known.contains(&size))
        .then(|| format!("{size} bytes: an extended state area has {XSAVE_MIN} to {XSAVE_MAX}"));
    field("cpu.xsave_size", impossible);
}

/// sethostname(2): at most __NEW_UTS_LEN bytes.
pub(super) fn node_name(name: &Bytes) -> Option<String> {
    let bad = name.0.len() > 64 || name.0.contains(&0);
    bad.then(|| format!("{name:?} is not at most 64 bytes without NUL"))
}
