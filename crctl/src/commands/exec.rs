//! `crctl exec`.

use crate::cli::Exec;
use crate::output::{print, print_json};
use anyhow::Result;
use crfs::failure::{Failure, Kind};
use crfs::launch::exec::{self, PassedOn};
use crfs::registry::Registry;

pub(super) fn exec(registry: &Registry, arguments: &Exec, json: bool) -> Result<u8> {
    let Exec { name, detach, command } = arguments;
    let signals = PassedOn::new()?;
    let started = exec::exec(registry, name, command, *detach)?;
    if *detach {
        let pid = started.pid();
        if json {
            print_json(&serde_json::json!({ "name": name, "pid": pid }))?;
        } else {
            let pid = pid.map_or_else(|| "ended already".to_owned(), |pid| format!("pid {pid}"));
            print(&format!("{name}: executed ({pid}); crctl logs {name} shows its output\n"))?;
        }
        return Ok(0);
    }
    let status = started.wait(&signals)?.ok_or_else(|| {
        let reason =
            format!("{name}: the command has ended, and this kernel does not tell how; Linux 6.15 or later does");
        Failure::new(Kind::Unsupported, reason)
    })?;
    // wait(2): the killing signal in the low seven bits, or the exit code in the second byte.
    let code = if status & 0x7f == 0 { status >> 8 & 0xff } else { 128 + (status & 0x7f) };
    Ok(u8::try_from(code)?)
}
