//! Files that are being copied in, as they stand on the disk of the registry; and when a file that is being
//! copied in is complete.

use image_format::manifest::PathKind;
use image_format::{layout, text};
use serde::de::IgnoredAny;
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

/// Everything below a directory, by path, with whether it is a directory. A symbolic link counts as what it leads to; one that leads nowhere is left out.
pub(super) fn walk(top: &Path) -> io::Result<BTreeMap<String, bool>> {
    let mut found = BTreeMap::new();
    let mut below = vec![String::new()];
    while let Some(directory) = below.pop() {
        for entry in fs::read_dir(top.join(&directory))? {
            // Names that are not UTF-8 cannot be an image's, and the tree never made one.
            let Ok(name) = entry?.file_name().into_string() else { continue };
            let path = if directory.is_empty() { name } else { format!("{directory}/{name}") };
            let Ok(metadata) = fs::metadata(top.join(&path)) else { continue };
            if metadata.is_dir() {
                below.push(path.clone());
            }
            found.insert(path, metadata.is_dir());
        }
    }
    Ok(found)
}

/// A name that copying programs and editors write under before they rename. Those that only look like one are refused.
pub(super) fn is_temporary(name: &str) -> bool {
    let hidden = name.starts_with('.')
        && !name.starts_with("._")
        && !matches!(name, "." | ".." | ".ctl" | ".snap" | ".DS_Store");
    // `sed -i`
    let random = name.strip_prefix("sed").unwrap_or_default();
    let sed = random.len() == 6 && random.bytes().all(|byte| byte.is_ascii_alphanumeric());
    // vim and others; vim tries whether it may write with the number.
    hidden || sed || name.ends_with('~') || name == "4913"
}

/// Whether such a file or directory may be made in an image.
pub(super) fn is_allowed(path: &str, directory: bool) -> bool {
    let name = path.rsplit('/').next().unwrap_or(path);
    match layout::kind(path) {
        Some(kind) => (kind == PathKind::Directory) == directory,
        None => !directory && is_temporary(name),
    }
}

/// Whether a file is page contents, shared memory, the files of a tmpfs or a file of the image's own, which may be as large as memory, or becomes that by a rename.
pub(super) fn is_bulk(path: &str) -> bool {
    const BULK: [&str; 3] = [layout::MEM_PAGES, "sysv.shm.", "unnamed."];
    let mounted = |name: &str| name.contains("mounts.") && name.contains(".data");
    path.rsplit('/').next().is_some_and(|name| mounted(name) || BULK.iter().any(|bulk| name.contains(bulk)))
}

/// Whether a text file is whole. One that is malformed counts as whole, so that the build says what is wrong with it; only
/// one that ends too early may still be on its way. A raw file is whole when it has the size the manifest says.
pub(super) fn is_whole(path: &str, file: &File) -> io::Result<bool> {
    Ok(match layout::kind(path) {
        Some(PathKind::Object) => {
            let bytes = read_all(file)?;
            match serde_json::from_slice::<IgnoredAny>(&bytes) {
                Ok(_) => true,
                Err(error) => !error.is_eof(),
            }
        }
        Some(PathKind::Lines) => ends_with_end_line(file)?,
        Some(PathKind::Raw | PathKind::Zstd) => true,
        Some(PathKind::Directory) | None => false,
    })
}

/// The whole of an open file, from its start.
pub(super) fn read_all(file: &File) -> io::Result<Vec<u8>> {
    let size = usize::try_from(file.metadata()?.len()).unwrap_or(usize::MAX);
    let mut bytes = vec![0; size];
    let mut done = 0;
    while done < bytes.len() {
        match file.read_at(&mut bytes[done..], done as u64)? {
            0 => break,
            count => done += count,
        }
    }
    bytes.truncate(done);
    Ok(bytes)
}

fn ends_with_end_line(file: &File) -> io::Result<bool> {
    let closing = format!("\n{}\n", text::END);
    let size = file.metadata()?.len();
    // The end line may be the only one.
    let len = (closing.len() as u64).min(size);
    let mut tail = vec![0; usize::try_from(len).unwrap_or(0)];
    file.read_exact_at(&mut tail, size - len)?;
    Ok(tail == closing.as_bytes() || (size + 1 == closing.len() as u64 && tail == closing.as_bytes()[1..]))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use std::io::Write;

    fn file(content: &[u8]) -> File {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(content).unwrap();
        file
    }

    #[test]
    fn whole_by_content() {
        let whole = |path: &str, content: &[u8]| is_whole(path, &file(content)).unwrap();
        assert!(!whole("manifest", b""));
        assert!(!whole("manifest", b"{\n  \"format\": 1,"));
        assert!(whole("manifest", b"{\n  \"format\": 1\n}\n"));
        assert!(whole("manifest", b"{\"format\" 1}"), "malformed: for the build to refuse");
        assert!(!whole("0x00000001/fds", b""));
        assert!(!whole("0x00000001/fds", b"{\"fd\":0}\n"));
        assert!(!whole("0x00000001/fds", b"{\"end\":true}"));
        assert!(whole("0x00000001/fds", b"{\"end\":true}\n"));
        assert!(whole("0x00000001/fds", b"{\"fd\":0}\n{\"end\":true}\n"));
        assert!(!whole("0x00000001/fds", b"{\"fd\":0}{\"end\":true}\n"));
        assert!(whole("files/pipe.3", b""));
        assert!(!whole("files/.pipe.3.x", b"abc"));
    }

    #[test]
    fn names_an_image_cannot_have() {
        for good in [
            "manifest",
            "sysv.shm",
            "files/0x00000001",
            "0x00000001/mem.pages",
            "0x00000001/.fds.aZ91x",
            "0x00000001/sedUlp9Bv",
            "0x00000001/process~",
            "4913",
        ] {
            assert!(is_allowed(good, false), "{good}");
        }
        for good in ["files", "0x00000001", "0x00000001/0x00000002"] {
            assert!(is_allowed(good, true), "{good}");
            assert!(!is_allowed(good, false), "{good}");
        }
        for bad in [
            "blockers",
            "0x1",
            "files/x",
            "._manifest",
            ".ctl",
            ".DS_Store",
            "files/..",
            "0x00000001/x",
            "pipe.1",
            "sed.file",
        ] {
            assert!(!is_allowed(bad, false), "{bad}");
        }
        assert!(!is_allowed(".partial", true));
    }
}
