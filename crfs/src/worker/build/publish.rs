//! Making what was copied in the container's frozen tree.

use crate::captured;
use crate::copy::{Contents, KeptFiles};
use crate::failure::{Doing, Failure};
use crate::registry::{Container, Live};
use image_format::manifest::PathKind;
use image_format::{Image, layout};
use std::borrow::Cow;
use std::collections::BTreeSet;
use std::fs;
use std::io::Read;
use std::path::Path;

/// Writes the staged `texts`, and what was queued in pipes, as the records that the tree of a frozen container is served from.
///
/// # Errors
/// When it cannot be read or written; what stood there before stands there still.
pub(super) fn publish(
    image: &Image,
    texts: Option<&KeptFiles>,
    (from, contents): (&Path, &Contents<'_>),
    container: &Container,
    live: &Live,
) -> Result<(), Failure> {
    let elsewhere: BTreeSet<&str> = live.contents.iter().map(|content| content.path.as_str()).collect();
    let named = image.manifest.paths.iter().map(|entry| (entry.path.as_str(), entry.kind));
    let mut named = Vec::from_iter(named.chain([(layout::MANIFEST, PathKind::Object)]));
    named.sort_unstable_by_key(|&(path, _)| path);
    // Both are sorted, and may be many.
    let mut texts = texts.into_iter().flatten().peekable();
    let mut entries: Vec<(&str, Option<Cow<'_, [u8]>>)> = Vec::with_capacity(named.len());
    for (path, kind) in named {
        while texts.next_if(|(name, _)| name.as_str() < path).is_some() {}
        let name = path.rsplit('/').next().unwrap_or(path);
        let content = match kind {
            PathKind::Directory => None,
            _ if elsewhere.contains(path) => continue,
            // Page contents and all sums come from the processes themselves now.
            _ if name == layout::MEM_PAGES || name == layout::MEM_SUMS || name == layout::CONTENTS_SUMS => continue,
            _ => Some(match texts.next_if(|(name, _)| *name == path) {
                Some((_, text)) => text.into(),
                // What nobody holds open, and that no process can be asked for.
                None if layout::is_content(path) => {
                    let mut bytes = Vec::new();
                    contents
                        .open(path)?
                        .read_to_end(&mut bytes)
                        .doing(|| format!("{path}: reading what was copied in"))?;
                    bytes.into()
                }
                None => fs::read(from.join(path)).doing(|| format!("{path}: reading what was copied in"))?.into(),
            }),
        };
        entries.push((path, content));
    }
    captured::write(&container.image_file(), entries.iter().map(|(path, content)| (*path, content.as_deref())))
}
