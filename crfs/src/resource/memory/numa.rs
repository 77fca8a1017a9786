//! NUMA policies: mbind(2), set_mempolicy(2).

use super::super::proc::Proc;
use super::super::subject::Process;
use crate::failure::Failure;
use image_format::{Blocker, layout};

/// Finds mappings with a policy. On a machine that can have one node only there is nothing that a policy decides, and the
/// file, which walks the page tables, is not read.
///
/// # Errors
/// When the process is gone.
pub(super) fn survey(process: &Process, proc: &mut Proc) -> Result<Vec<Blocker>, Failure> {
    let nodes = std::fs::read_to_string("/sys/devices/system/node/possible");
    if nodes.map_or(true, |nodes| nodes.trim() == "0") {
        return Ok(Vec::new());
    }
    let text = String::from_utf8_lossy(proc.bytes(format_args!("{}/numa_maps", process.alive().host))?).into_owned();
    let blocker = |(address, policy)| {
        Blocker::new(
            layout::process_file(process.pid, "numa"),
            format!("memory at 0x{address} has the NUMA policy {policy}, which is not carried yet"),
            "Start it without numactl, mbind and set_mempolicy",
        )
    };
    Ok(policies(&text).map(blocker).collect())
}

fn policies(text: &str) -> impl Iterator<Item = (&str, &str)> {
    let fields = text.lines().filter_map(|line| {
        let mut words = line.split_ascii_whitespace();
        Some((words.next()?, words.next()?))
    });
    fields.filter(|(_, policy)| *policy != "default")
}

#[cfg(test)]
mod tests {
    #[test]
    fn only_policies_other_than_the_default_are_told() {
        let text = "7f00 default file=/usr/bin/cat mapped=2\n7f10 bind:0-1 anon=1\n7f20 prefer (many):1\n";
        let found: Vec<_> = super::policies(text).collect();
        assert_eq!(found, [("7f10", "bind:0-1"), ("7f20", "prefer")]);
    }
}
