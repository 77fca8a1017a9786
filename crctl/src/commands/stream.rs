//! `crctl pack` and `crctl unpack`.

use super::place;
use crate::output::{print, print_json};
use anyhow::{Context, Result, bail};
use crfs::registry::Registry;
use crfs::transport::{Progress, packed};
use crfs::worker;
use std::io::{BufWriter, IsTerminal};
use std::path::Path;

/// Sections are gathered to so many bytes: most have a hundred.
const GATHERED: usize = 1 << 20;

pub(super) fn pack(registry: &Registry, what: &Path) -> Result<()> {
    let out = std::io::stdout();
    if out.is_terminal() {
        bail!("standard output is a terminal; send the stream to a file or a pipe: crctl pack ... > vs1.crfs");
    }
    worker::catch_signals()?;
    let source = place::open(registry, what)?;
    let mut out = BufWriter::with_capacity(GATHERED, out.lock());
    packed::pack(&*source, &mut out, &Progress::default()).with_context(|| what.display().to_string())
}

pub(super) fn unpack(directory: &Path, json: bool) -> Result<()> {
    worker::catch_signals()?;
    packed::unpack(&mut std::io::stdin().lock(), directory)?;
    if json {
        return print_json(&serde_json::json!({ "directory": directory }));
    }
    print(&format!("{}: unpacked\n", directory.display()))
}
