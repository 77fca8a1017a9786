//! The cache: what it carries over, and when it is not believed.
#![allow(clippy::unwrap_used)]

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::time::Instant;

use crfs_kstate::{Error, KernelState, Status};

fn statuses(state: &KernelState) -> Vec<Status> {
    state.features().map(|(_, status)| status.clone()).collect()
}

fn believed(path: &Path) -> bool {
    KernelState::open(Some(path)).unwrap().is_calibrated()
}

#[test]
fn calibration_is_carried_over() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("kstate");
    let first = KernelState::open_calibrated(Some(&path)).unwrap();
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "no temporary file is left");
    let start = Instant::now();
    let second = KernelState::open(Some(&path)).unwrap();
    println!("opened from the cache in {:?}", start.elapsed());
    assert!(second.is_calibrated());
    assert_eq!(statuses(&second), statuses(&first));
    assert_eq!(second.tracees().unwrap().len(), 0, "and it reads");
    // Saving what was loaded gives the same file.
    let text = fs::read(&path).unwrap();
    second.save(&path).unwrap();
    assert_eq!(fs::read(&path).unwrap(), text);
}

#[test]
fn what_does_not_fit_is_not_believed() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("kstate");
    assert!(!believed(&path), "not there");
    KernelState::open_calibrated(Some(&path)).unwrap();
    assert!(believed(&path));
    let text = fs::read_to_string(&path).unwrap();

    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap();
    let other = text.replace(boot.trim(), "00000000-0000-0000-0000-000000000000");
    let renamed = text.replacen("task_struct.ptraced", "task_struct.traced", 1);
    let shorter = &text[..text.len() / 2];
    let extra = text.replacen('{', "{\"more\":1,", 1);
    for (what, changed) in
        [("another boot", other.as_str()), ("other paths", &renamed), ("cut", shorter), ("unknown field", &extra)]
    {
        assert_ne!(changed, text, "{what}");
        fs::write(&path, changed).unwrap();
        assert!(!believed(&path), "{what}");
    }
    fs::write(&path, &text).unwrap();
    assert!(believed(&path));

    fs::set_permissions(&path, Permissions::from_mode(0o620)).unwrap();
    assert!(!believed(&path), "others can write it");
    fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
    let link = dir.path().join("link");
    symlink(&path, &link).unwrap();
    assert!(!believed(&link), "a symbolic link");
    assert!(!believed(dir.path()), "a directory");
}

#[test]
fn a_cache_that_cannot_be_written_is_an_error() {
    let state = KernelState::open(None).unwrap();
    let error = state.save(Path::new("/proc/no such directory/kstate")).unwrap_err();
    assert!(matches!(&error, Error::SaveCache { .. }), "{error}");
}
