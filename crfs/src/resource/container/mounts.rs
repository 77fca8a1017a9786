//! Mounts: a restore makes a copy of the host's, as `crctl run` did. What was mounted inside since then would be missing.

use super::super::Findings;
use super::super::proc::Proc;
use crate::failure::Failure;
use crate::registry::Record;
use image_format::Bytes;
use std::collections::BTreeSet;
use std::os::unix::ffi::OsStrExt;

/// A mount as mountinfo writes it, fields still escaped: proc_pid_mountinfo(5).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Mount {
    device: Vec<u8>,
    root: Vec<u8>,
    path: Vec<u8>,
    kind: Vec<u8>,
    /// Of our own server.
    is_crfs: bool,
}

/// Compares the container's mounts with the host's.
///
/// # Errors
/// When the first process is gone.
pub(super) fn survey(record: &Record, init: i32, proc: &mut Proc, findings: &mut Findings) -> Result<(), Failure> {
    let host = parse(proc.bytes(format_args!("self/mountinfo"))?);
    let own = parse(proc.bytes(format_args!("{init}/mountinfo"))?);
    let root = record.root.as_deref().map(|root| escape(root.as_os_str().as_bytes()));
    for mount in foreign(&host, &own, root.as_deref()) {
        findings.block(
            "manifest",
            format!(
                "{} is mounted on {} inside the container, which a restore would not do",
                String::from_utf8_lossy(&mount.kind),
                Bytes(mount.path.clone())
            ),
            "Unmount it, or mount it on the host before `crctl run`",
        );
    }
    Ok(())
}

fn parse(text: &[u8]) -> Vec<Mount> {
    text.split(|&b| b == b'\n').filter_map(mount).collect()
}

fn mount(line: &[u8]) -> Option<Mount> {
    let mut fields = line.split(|&b| b == b' ');
    let device = fields.nth(2)?.to_vec();
    let root = fields.next()?.to_vec();
    let path = fields.next()?.to_vec();
    let mut fields = fields.skip_while(|field| *field != b"-").skip(1);
    let kind = fields.next()?.to_vec();
    let is_crfs = kind.starts_with(b"fuse") && fields.next()? == crate::fuse::FILE_SYSTEM.as_bytes();
    Some(Mount { device, root, path, kind, is_crfs })
}

/// As the kernel writes blank, tab, newline and backslash in this file (`mangle` in `fs/proc_namespace.c`).
fn escape(path: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(path.len());
    for &byte in path {
        match byte {
            b' ' | b'\t' | b'\n' | b'\\' => out.extend_from_slice(format!("\\{byte:03o}").as_bytes()),
            _ => out.push(byte),
        }
    }
    out
}

/// The mounts that a fresh container would not have.
fn foreign(host: &[Mount], own: &[Mount], root: Option<&[u8]>) -> Vec<Mount> {
    let known: BTreeSet<&Mount> = host.iter().collect();
    let mut proc_seen = false;
    let mut foreign = Vec::new();
    // A server that was mounted after the container began shows in it too; nothing inside depends on it, or its descriptors
    // tell, and a restore detaches it.
    for mount in own.iter().filter(|mount| !mount.is_crfs) {
        // The container's own /proc, once.
        if mount.path == b"/proc" && mount.kind == b"proc" && mount.root == b"/" && !proc_seen && !known.contains(mount)
        {
            proc_seen = true;
            continue;
        }
        let is_known = match root {
            None => known.contains(mount),
            Some(root) => {
                // The directory itself; what the host has mounted below it; the host's devices.
                let inside = if mount.path == b"/" { &[][..] } else { &mount.path };
                let same = Mount { path: [root, inside].concat(), ..mount.clone() };
                let devices = mount.path == b"/dev" || mount.path.starts_with(b"/dev/");
                mount.path == b"/" || known.contains(&same) || (devices && known.contains(mount))
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
        let root = root.map(|root| escape(root.as_bytes()));
        let found = foreign(&parse(HOST), &parse(own), root.as_deref());
        found.into_iter().map(|mount| String::from_utf8(mount.path).expect("text")).collect()
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
