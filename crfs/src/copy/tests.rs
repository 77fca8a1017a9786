use super::*;
use image_format::parse_object;
use std::fs;
use std::path::PathBuf;

/// A directory with the text files of the golden image, and raw files of the size its manifest says.
fn whole() -> tempfile::TempDir {
    let golden = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../image-format/tests/golden"));
    let copy = tempfile::tempdir().unwrap();
    let manifest: Manifest = parse_object(&fs::read(golden.join(layout::MANIFEST)).unwrap()).unwrap();
    fs::copy(golden.join(layout::MANIFEST), copy.path().join(layout::MANIFEST)).unwrap();
    for entry in &manifest.paths {
        let path = copy.path().join(&entry.path);
        match entry.kind {
            PathKind::Directory => fs::create_dir_all(path).unwrap(),
            PathKind::Raw | PathKind::Zstd => fs::File::create(path).unwrap().set_len(entry.size.unwrap()).unwrap(),
            PathKind::Object | PathKind::Lines => drop(fs::copy(golden.join(&entry.path), path).unwrap()),
        }
    }
    copy
}

#[test]
fn what_is_awaited_is_told_with_line_and_reason() {
    let copy = whole();
    let at = |path: &str| copy.path().join(path);
    assert_eq!(awaited(copy.path(), &[]), "every file of the manifest is there");

    let fds = fs::read(at("0x00000001/fds")).unwrap();
    fs::write(at("0x00000001/fds"), &fds[..fds.len() - 5]).unwrap();
    let line = fds.iter().filter(|byte| **byte == b'\n').count();
    fs::remove_file(at("0x00000001/numa")).unwrap();
    let pages = fs::OpenOptions::new().write(true).open(at("0x00000001/mem.pages")).unwrap();
    let size = pages.metadata().unwrap().len();
    pages.set_len(size + 1).unwrap();
    let told = awaited(copy.path(), &["0x00000001/attr".to_owned()]);
    assert!(told.starts_with("missing or not whole: 0x00000001/attr: open for writing; "), "{told}");
    assert!(told.contains(&format!("0x00000001/fds: line {line}: the file ends too early")), "{told}");
    assert!(told.contains(&format!("0x00000001/mem.pages: has {} bytes, and the manifest says {size}", size + 1)));
    assert!(told.ends_with("; 0x00000001/numa: missing"), "{told}");

    fs::write(at("manifest"), b"{\n  \"format\": 1,").unwrap();
    let told = awaited(copy.path(), &[]);
    assert!(told.starts_with("awaiting the manifest: manifest: line 2: the file ends too early"), "{told}");
    fs::remove_file(at("manifest")).unwrap();
    assert_eq!(awaited(copy.path(), &[]), "awaiting the manifest");
}

#[test]
fn many_that_are_awaited_are_counted() {
    let copy = whole();
    for name in ["aio", "attr", "fds", "ldt", "numa", "process", "sysv.semadj"] {
        fs::remove_file(copy.path().join("0x00000001").join(name)).unwrap();
    }
    let told = awaited(copy.path(), &[]);
    assert!(told.ends_with("0x00000001/numa: missing; and 2 more"), "{told}");
}

#[test]
fn what_the_system_does_not_let_be_read_is_not_damaged() {
    let copy = whole();
    let fds = copy.path().join("0x00000001/fds");
    fs::remove_file(&fds).unwrap();
    assert_eq!(Copy::load(copy.path()).unwrap_err().kind, Kind::BadImage);
    // ELOOP, which root gets too.
    std::os::unix::fs::symlink("fds", &fds).unwrap();
    let failure = Copy::load(copy.path()).unwrap_err();
    assert_eq!(failure.kind, Kind::System, "{failure}");
    assert!(failure.to_string().starts_with("0x00000001/fds: opening"), "{failure}");
}
