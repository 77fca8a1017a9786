//! /proc/PID/mountinfo, as far as it is needed here. Source: proc_pid_mountinfo(5).

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

/// One mount.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Mount {
    /// The file system's device number, as text.
    pub(crate) device: Vec<u8>,
    /// Which part of the file system is mounted.
    pub(crate) root: PathBuf,
    /// Where.
    pub(crate) path: PathBuf,
    /// The file system's type: `cgroup2`, `fuse`.
    pub(crate) kind: String,
    /// What is mounted: a device, or a name the file system chose.
    pub(crate) source: Vec<u8>,
}

impl Mount {
    /// Whether this is a mount of our own server.
    pub(crate) fn is_crfs(&self) -> bool {
        self.kind.starts_with("fuse") && self.source == crate::fuse::FILE_SYSTEM.as_bytes()
    }
}

/// All mounts of a mountinfo text, in its order; lines that are none are passed over.
pub(crate) fn mounts(text: &[u8]) -> Vec<Mount> {
    text.split(|&byte| byte == b'\n').filter_map(mount).collect()
}

fn mount(line: &[u8]) -> Option<Mount> {
    // 36 35 98:0 /root /path options optional... - kind source super-options
    let mut fields = line.split(|&byte| byte == b' ');
    let device = fields.nth(2)?;
    let root = fields.next()?;
    let path = fields.next()?;
    let mut fields = fields.skip_while(|field| *field != b"-").skip(1);
    let kind = fields.next()?;
    let source = fields.next()?;
    Some(Mount {
        device: device.to_vec(),
        root: OsString::from_vec(unescape(root)).into(),
        path: OsString::from_vec(unescape(path)).into(),
        kind: String::from_utf8_lossy(kind).into_owned(),
        source: source.to_vec(),
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
        let text = b"36 35 98:0 /a\\040b /mnt/c\\134d rw,noatime master:1 shared:2 - fuse crfs rw\nnonsense\n";
        let source = b"crfs".to_vec();
        let device = b"98:0".to_vec();
        let expected = Mount { device, root: "/a b".into(), path: "/mnt/c\\d".into(), kind: "fuse".into(), source };
        assert!(expected.is_crfs());
        assert_eq!(mounts(text), [expected]);
    }
}
