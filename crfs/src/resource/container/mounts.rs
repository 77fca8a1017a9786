//! Mounts: a restore makes a copy of the host's, as `crctl run` did. What was mounted inside since then would be missing.

use super::super::Findings;
use super::super::proc::Proc;
use crate::failure::Failure;
use crate::mountinfo::{Mount, mounts};
use crate::registry::Record;
use image_format::Bytes;
use image_format::manifest::NamespaceKind;
use std::collections::BTreeSet;
use std::os::unix::ffi::OsStringExt;
use std::path::Path;

/// Compares the mounts of a container that has its own with the host's.
///
/// # Errors
/// When the first process is gone.
pub(super) fn survey(record: &Record, init: i32, proc: &mut Proc, findings: &mut Findings) -> Result<(), Failure> {
    let host = mounts(proc.bytes(format_args!("self/mountinfo"))?);
    let own = mounts(proc.bytes(format_args!("{init}/mountinfo"))?);
    let prefix = proc.link(format_args!("{init}/root"))?;
    if record.root.is_none() && prefix != b"/" {
        findings.block(
            "manifest",
            format!("the container's first process has {} for its root directory (chroot)", Bytes(prefix)),
            "Start it with `crctl run --root`",
        );
    }
    for mount in foreign(&host, &own, record.root.as_deref(), !record.shares(NamespaceKind::Pid)) {
        let path = Bytes(mount.path.into_os_string().into_vec());
        findings.block(
            "manifest",
            format!("{} is mounted on {path} inside the container, which a restore would not do", mount.kind),
            "Unmount it, or mount it on the host before `crctl run`",
        );
    }
    Ok(())
}

/// The mounts that a fresh container would not have. One with a pid namespace of its own has a /proc of its own.
fn foreign(host: &[Mount], own: &[Mount], root: Option<&Path>, own_pids: bool) -> Vec<Mount> {
    let known: BTreeSet<&Mount> = host.iter().collect();
    let mut expected: BTreeSet<&str> = BTreeSet::from(["/proc", "/dev/pts"]);
    let mut foreign = Vec::new();
    // A server that was mounted after the container began shows in it too; nothing inside depends on it, or its descriptors
    // tell, and a restore detaches it.
    for mount in own.iter().filter(|mount| !mount.is_crfs()) {
        // The container's own /proc and terminals, once.
        let fresh = match mount.kind.as_str() {
            "proc" if own_pids => Some("/proc"),
            "devpts" => Some("/dev/pts"),
            _ => None,
        };
        let is_fresh = fresh.is_some_and(|path| mount.path == Path::new(path)) && mount.root == Path::new("/");
        if is_fresh && !known.contains(mount) && fresh.is_some_and(|path| expected.remove(path)) {
            continue;
        }
        let is_known = match root {
            None => known.contains(mount),
            Some(root) => {
                // The directory itself; what the host has mounted below it; the host's devices.
                let inside = mount.path.strip_prefix("/").unwrap_or(&mount.path);
                let same = Mount { path: root.join(inside), ..mount.clone() };
                let devices = mount.path.starts_with("/dev");
                mount.path == Path::new("/") || known.contains(&same) || (devices && known.contains(mount))
            }
        };
        if !is_known {
            foreign.push(mount.clone());
        }
    }
    foreign
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOST: &[u8] = b"27 1 254:0 / / rw - ext4 /dev/vda rw\n22 27 0:21 / /proc rw - proc proc rw\n\
        24 27 0:6 / /dev rw - devtmpfs devtmpfs rw\n30 27 0:30 / /srv/a\\040b/data rw - tmpfs tmpfs rw\n";

    fn paths(own: &[u8], root: Option<&str>) -> Vec<String> {
        let found = foreign(&mounts(HOST), &mounts(own), root.map(Path::new), true);
        found.into_iter().map(|mount| mount.path.to_string_lossy().into_owned()).collect()
    }

    #[test]
    fn a_copy_of_the_host_with_its_own_proc_is_as_expected() {
        let own = [HOST, b"90 22 0:70 / /proc rw - proc proc rw\n"].concat();
        assert!(paths(&own, None).is_empty());
    }

    #[test]
    fn what_was_mounted_inside_is_found_also_over_an_old_mount() {
        let own = [
            HOST,
            b"90 22 0:70 / /proc rw - proc proc rw\n91 27 0:71 / /dev rw - tmpfs t rw\n",
            b"92 27 0:72 / /proc rw - proc proc rw\n",
        ]
        .concat();
        assert_eq!(paths(&own, None), ["/dev", "/proc"]);
    }

    #[test]
    fn below_another_root_the_host_is_seen_from_there() {
        let own = b"80 1 254:0 /srv/a\\040b / rw - ext4 /dev/vda rw\n81 80 0:30 / /data rw - tmpfs tmpfs rw\n\
            82 80 0:70 / /proc rw - proc proc rw\n83 80 0:6 / /dev rw - devtmpfs devtmpfs rw\n84 80 0:99 / /mnt rw - tmpfs t rw\n";
        assert_eq!(paths(own, Some("/srv/a b")), ["/mnt"]);
    }
}
