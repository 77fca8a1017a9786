//! `crctl verify`.

use super::place;
use crate::exit::Unsound;
use crate::output::{print, print_json};
use anyhow::Result;
use crfs::copy;
use crfs::registry::Registry;
use crfs::transport::Progress;
use std::path::Path;

pub(super) fn verify(registry: &Registry, what: &Path, json: bool) -> Result<()> {
    let source = place::open(registry, what)?;
    let progress = Progress::default();
    let findings = copy::verify(&*source, &progress);
    let place = what.display();
    if !findings.is_empty() {
        return Err(Unsound { place: place.to_string(), findings }.into());
    }
    let bytes = progress.now().0;
    if json {
        return print_json(&serde_json::json!({ "place": what, "sound": true, "page_bytes": bytes }));
    }
    print(&format!(
        "{place}: sound, and this host could restore it ({} of pages compared)\n",
        crate::output::bytes(bytes)
    ))
}
