//! /proc/PID/mountinfo. Source: proc_pid_mountinfo(5); `show_mountinfo` in `fs/proc_namespace.c`, v6.18.

pub(crate) mod overlay;

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

/// One mount.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Mount {
    /// Its number on this host.
    pub(crate) id: u32,
    /// That of the mount it is mounted on.
    pub(crate) parent: u32,
    /// The file system's device number, as text.
    pub(crate) device: Vec<u8>,
    /// Which part of the file system is mounted.
    pub(crate) root: PathBuf,
    /// Where.
    pub(crate) path: PathBuf,
    /// Its own attributes: `rw`, `nosuid`.
    pub(crate) attributes: Vec<String>,
    /// The peer group it belongs to.
    pub(crate) peers: Option<u32>,
    /// The peer group it receives from.
    pub(crate) master: Option<u32>,
    /// It cannot be bound elsewhere.
    pub(crate) unbindable: bool,
    /// The file system's type: `cgroup2`, `fuse`.
    pub(crate) kind: String,
    /// What is mounted: a device, or a name the file system chose.
    pub(crate) source: Vec<u8>,
    /// The file system's options.
    pub(crate) options: Vec<Vec<u8>>,
}

impl Mount {
    /// Whether this is a mount of our own server.
    pub(crate) fn is_crfs(&self) -> bool {
        self.kind.starts_with("fuse") && self.source == crate::fuse::FILE_SYSTEM.as_bytes()
    }

    /// What is mounted where: the same for a mount and its copy in another mount namespace.
    pub(crate) fn what(&self) -> (&[u8], &Path, &Path, &str, &[u8]) {
        (&self.device, &self.root, &self.path, &self.kind, &self.source)
    }
}

/// The paths at which these mounts show what another mount of the same file system shows, in their order.
pub(crate) fn paths_of<'a>(mounts: &'a [Mount], shown: &'a Mount) -> impl Iterator<Item = PathBuf> + 'a {
    mounts.iter().filter(|mount| mount.device == shown.device).filter_map(|mount| {
        let below = shown.root.strip_prefix(&mount.root).ok()?;
        // Without the slash that joining nothing would leave: a file has none.
        Some(if below.as_os_str().is_empty() { mount.path.clone() } else { mount.path.join(below) })
    })
}

/// All mounts of a mountinfo text, in its order; lines that are none are passed over.
pub(crate) fn mounts(text: &[u8]) -> Vec<Mount> {
    text.split(|&byte| byte == b'\n').filter_map(mount).collect()
}

fn mount(line: &[u8]) -> Option<Mount> {
    // 36 35 98:0 /root /path attributes optional... - kind source options
    let mut fields = line.split(|&byte| byte == b' ');
    let number = |field: &[u8]| std::str::from_utf8(field).ok()?.parse().ok();
    let (id, parent) = (number(fields.next()?)?, number(fields.next()?)?);
    let device = fields.next()?;
    let root = fields.next()?;
    let path = fields.next()?;
    let attributes = String::from_utf8_lossy(fields.next()?).split(',').map(ToOwned::to_owned).collect();
    let optional: Vec<&[u8]> = fields.by_ref().take_while(|field| *field != b"-").collect();
    let tagged = |tag: &[u8]| optional.iter().find_map(|field| number(field.strip_prefix(tag)?));
    let kind = fields.next()?;
    let source = fields.next()?;
    // An option's own comma is escaped.
    let options = fields.next().unwrap_or_default().split(|&byte| byte == b',').map(unescape).collect();
    Some(Mount {
        id,
        parent,
        device: device.to_vec(),
        root: OsString::from_vec(unescape(root)).into(),
        path: OsString::from_vec(unescape(path)).into(),
        attributes,
        peers: tagged(b"shared:"),
        master: tagged(b"master:"),
        unbindable: optional.contains(&b"unbindable".as_slice()),
        kind: String::from_utf8_lossy(kind).into_owned(),
        source: unescape(source),
        options,
    })
}

/// Undoes `\040` and the like: the kernel writes blank, tab, newline and backslash so.
fn unescape(field: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((&first, tail)) = rest.split_first() {
        let digits = tail.get(..3).and_then(|digits| std::str::from_utf8(digits).ok());
        match digits.and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
            Some(byte) if first == b'\\' => {
                bytes.push(byte);
                rest = &tail[3..];
            }
            _ => {
                bytes.push(first);
                rest = tail;
            }
        }
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_with_escapes_and_optional_fields() {
        let text =
            b"36 35 98:0 /a\\040b /mnt/c\\134d rw,noatime master:1 shared:2 - fuse crfs rw,x=a\\054b\nnonsense\n";
        let expected = Mount {
            id: 36,
            parent: 35,
            device: b"98:0".to_vec(),
            root: "/a b".into(),
            path: "/mnt/c\\d".into(),
            attributes: vec!["rw".into(), "noatime".into()],
            peers: Some(2),
            master: Some(1),
            unbindable: false,
            kind: "fuse".into(),
            source: b"crfs".to_vec(),
            options: vec![b"rw".to_vec(), b"x=a,b".to_vec()],
        };
        assert!(expected.is_crfs());
        assert_eq!(mounts(text), [expected]);
    }
}
