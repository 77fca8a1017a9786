//! `crctl convert`.

use crate::output::{print, print_json};
use anyhow::Result;
use crfs::{copy, worker};
use std::path::Path;

pub(super) fn convert(directory: &Path, new: &Path, json: bool) -> Result<()> {
    worker::catch_signals()?;
    copy::convert(directory, new)?;
    if json {
        return print_json(&serde_json::json!({ "directory": new }));
    }
    print(&format!("{}: converted; {} is as it was\n", new.display(), directory.display()))
}
