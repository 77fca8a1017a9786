//! `manifest.paths`: exactly the files that the records lead to, and raw files of the size both say.

use super::Findings;
use crate::image::Image;
use crate::layout::{self, MANIFEST};
use crate::manifest::{PathEntry, PathKind};
use std::collections::{BTreeMap, BTreeSet};

pub(super) fn check(image: &Image, sizes: &dyn Fn(&str) -> Option<u64>, findings: &mut Findings) {
    let expected = image.paths();
    if image.manifest.paths == expected {
        for PathEntry { path, size, .. } in &expected {
            size.iter().for_each(|&size| staged(path, size, sizes, findings));
        }
        return;
    }
    let mut unmet: BTreeMap<&str, &PathEntry> = expected.iter().map(|entry| (entry.path.as_str(), entry)).collect();
    let mut seen = BTreeSet::new();
    let mut previous = None;
    for entry in &image.manifest.paths {
        let path = entry.path.as_str();
        let mut refuse = |reason: &str| findings.add(MANIFEST, format!("paths: {path:?} {reason}"));
        if !seen.insert(path) {
            refuse("is listed twice");
            continue;
        }
        if previous.is_some_and(|previous| previous > path) {
            refuse("is not in its sorted place");
        }
        previous = Some(path);
        let Some(kind) = layout::kind(path).filter(|_| path != MANIFEST) else {
            refuse("is no path of an image");
            continue;
        };
        let Some(record) = unmet.remove(path) else {
            refuse("is a file that no record leads to");
            continue;
        };
        if entry.kind != kind {
            refuse(&format!("is of kind {:?}, listed as {:?}", kind, entry.kind));
            continue;
        }
        match (kind, entry.size) {
            (PathKind::Raw, None) => refuse("is a raw file and has no size"),
            (PathKind::Raw, Some(size)) if record.size != Some(size) => {
                let needed = record.size.unwrap_or(0);
                refuse(&format!("has {size} bytes, but its records need {needed}"));
            }
            (PathKind::Raw, Some(size)) => staged(path, size, sizes, findings),
            (_, Some(_)) => refuse("has a size, which only raw files have"),
            (_, None) => {}
        }
    }
    for path in unmet.into_keys() {
        findings.add(MANIFEST, format!("paths: {path:?} is missing"));
    }
}

fn staged(path: &str, size: u64, sizes: &dyn Fn(&str) -> Option<u64>, findings: &mut Findings) {
    match sizes(path) {
        None => findings.missing(path),
        Some(found) if found != size => {
            findings.add(path, format!("holds {found} bytes where the manifest says {size}"));
        }
        Some(_) => {}
    }
}
