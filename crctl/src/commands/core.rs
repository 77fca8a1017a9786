//! `crctl core`.

use super::place;
use crate::output::{bytes, print, print_json};
use anyhow::Result;
use crfs::copy::{Copy, core_file};
use crfs::registry::Registry;
use crfs::transport::Progress;
use image_format::Pid;
use std::path::{Path, PathBuf};

pub(super) fn core(registry: &Registry, what: &Path, pid: u32, output: Option<&Path>, json: bool) -> Result<()> {
    let source = place::open(registry, what)?;
    let copy = Copy::of(&*source)?;
    let pid = Pid(pid);
    let target = output.map_or_else(|| PathBuf::from(core_file::core_name(&copy, pid)), Path::to_owned);
    let progress = Progress::default();
    core_file::write_core(&*source, &copy, pid, &target, &progress)?;
    let stored = progress.now().0;
    if json {
        return print_json(&serde_json::json!({ "file": target, "pid": pid, "stored_bytes": stored }));
    }
    print(&format!("{}: process {pid}, {} of its memory\n", target.display(), bytes(stored)))
}
