//! A program that gave up root: ids, groups, capabilities, and what they allow.

use anyhow::{Result, ensure};
use crfs_tests::victim::{self, Stage};
use nix::unistd::{Gid, Uid, getgroups, getresgid, getresuid, setgroups, setresgid, setresuid};
use std::process::ExitCode;

const NOBODY: u32 = 65534;

/// The lines of /proc/self/status that say who one is.
fn identity() -> Result<Vec<String>> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let about = ["Uid:", "Gid:", "Groups:", "Cap", "NoNewPrivs:"];
    Ok(status.lines().filter(|line| about.iter().any(|key| line.starts_with(key))).map(str::to_owned).collect())
}

fn run(stage: &mut Stage) -> Result<()> {
    let groups = [Gid::from_raw(1000), Gid::from_raw(2000), Gid::from_raw(70_000)];
    setgroups(&groups)?;
    let (gid, saved_gid) = (Gid::from_raw(NOBODY), Gid::from_raw(100));
    setresgid(gid, gid, saved_gid)?;
    let uid = Uid::from_raw(NOBODY);
    setresuid(uid, uid, uid)?;
    let identity_then = identity()?;
    loop {
        let ids = getresuid()?;
        ensure!([ids.real, ids.effective, ids.saved] == [uid; 3], "the user ids are {ids:?}");
        let ids = getresgid()?;
        ensure!([ids.real, ids.effective, ids.saved] == [gid, gid, saved_gid], "the group ids are {ids:?}");
        ensure!(getgroups()? == groups, "the groups are {:?}", getgroups()?);
        ensure!(std::fs::File::open("/etc/shadow").is_err(), "can read what only root may");
        if !stage.end_round_and_rest()? {
            break;
        }
    }
    // At the end only: a freeze that met an open file of /proc would be refused.
    let now = identity()?;
    ensure!(now == identity_then, "was {identity_then:?} and is {now:?}");
    ensure!(setresuid(Uid::from_raw(0), Uid::from_raw(0), Uid::from_raw(0)).is_err(), "can become root again");
    Ok(())
}

fn main() -> ExitCode {
    victim::main(run)
}
