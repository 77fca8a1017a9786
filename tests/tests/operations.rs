//! The table "Each operation" of docs/SEMANTICS.md: what each file operation answers in each state.

use crfs_tests::world::{PATIENCE, Program, World, wait_for};
use nix::errno::Errno;
use nix::sys::stat::Mode;
use std::fs::{self, OpenOptions, Permissions};
use std::io::{Result, Write};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

/// What is done in a directory, how, and what it answers.
type Case<'a> = (&'a str, &'a dyn Fn(&Path) -> Result<()>, Option<Errno>);

/// None: it worked.
fn answer<T>(result: Result<T>) -> Option<Errno> {
    result.err().map(|error| Errno::from_raw(error.raw_os_error().expect("an errno")))
}

fn write(path: &Path, create: bool, truncate: bool) -> Result<()> {
    OpenOptions::new().write(true).create(create).truncate(truncate).open(path)?.write_all(b"x")
}

/// Does `operations` in a directory, and compares.
fn expect(state: &str, directory: &Path, operations: &[Case<'_>]) {
    for (what, operation, expected) in operations {
        assert_eq!(answer(operation(directory)), *expected, "{what}, {state}");
    }
}

/// What no state allows.
fn expect_no_special_files(state: &str, directory: &Path) {
    let fifo = |at: &Path| nix::unistd::mkfifo(&at.join("link"), Mode::S_IRUSR).map_err(Into::into);
    let operations: [Case<'_>; 3] = [
        ("symlink", &|at| symlink("x", at.join("link")), Some(Errno::EPERM)),
        ("mknod", &fifo, Some(Errno::EPERM)),
        ("making a file in .ctl", &|at| write(&at.join(".ctl/x"), true, false), Some(Errno::EPERM)),
    ];
    expect(state, directory, &operations);
}

#[test]
fn on_a_running_container() {
    let world = World::new();
    let victim = Program::victim(&world, "data", &["1"]);
    world.start("vs1", &victim);
    let directory = world.tree("vs1");
    expect(
        "running",
        &directory,
        &[
            ("read", &|at| fs::read(at.join("blockers")).map(drop), None),
            ("open for writing", &|at| write(&at.join("blockers"), false, false), Some(Errno::EBADF)),
            ("create", &|at| write(&at.join("sysv.msg"), true, true), Some(Errno::EPERM)),
            ("mkdir", &|at| fs::create_dir(at.join("files")), Some(Errno::EPERM)),
            ("rename", &|at| fs::rename(at.join("blockers"), at.join("sysv.msg")), Some(Errno::EPERM)),
            ("unlink", &|at| fs::remove_file(at.join("blockers")), Some(Errno::EPERM)),
            ("rmdir of the container", &|at| fs::remove_dir(at), Some(Errno::EPERM)),
            ("chmod", &|at| fs::set_permissions(at, Permissions::from_mode(0o700)), Some(Errno::EPERM)),
            ("writing the status", &|at| write(&at.join(".ctl/status"), false, false), Some(Errno::EACCES)),
            ("a command that is none", &|at| fs::write(at.join(".ctl/state"), "melted\n"), Some(Errno::EINVAL)),
            ("thawing what runs", &|at| fs::write(at.join(".ctl/state"), "running\n"), Some(Errno::EPERM)),
        ],
    );
    expect_no_special_files("running", &directory);
    victim.passes();
}

#[test]
fn on_a_frozen_container() {
    let world = World::new();
    let victim = Program::victim(&world, "data", &["1"]);
    world.start("vs1", &victim);
    world.freeze("vs1");
    let directory = world.tree("vs1");
    expect(
        "frozen",
        &directory,
        &[
            ("read", &|at| fs::read(at.join("manifest")).map(drop), None),
            ("open for writing", &|at| write(&at.join("manifest"), false, false), Some(Errno::EROFS)),
            ("truncate", &|at| write(&at.join("manifest"), false, true), Some(Errno::EROFS)),
            ("create", &|at| write(&at.join("0x00000002"), true, true), Some(Errno::EROFS)),
            ("mkdir", &|at| fs::create_dir(at.join("0x00000002")), Some(Errno::EROFS)),
            ("rename", &|at| fs::rename(at.join("manifest"), at.join("x")), Some(Errno::EROFS)),
            ("renaming a directory", &|at| fs::rename(at.join("files"), at.join("x")), Some(Errno::EROFS)),
            ("unlink", &|at| fs::remove_file(at.join("manifest")), Some(Errno::EPERM)),
            ("rmdir", &|at| fs::remove_dir(at.join("files")), Some(Errno::EPERM)),
            ("rmdir of the container", &|at| fs::remove_dir(at), Some(Errno::EPERM)),
            ("chmod", &|at| fs::set_permissions(at.join("manifest"), Permissions::from_mode(0o640)), None),
            ("what is kept for later", &|at| fs::read_dir(at.join(".snap")).map(drop), Some(Errno::ENOENT)),
            ("freezing what is frozen", &|at| fs::write(at.join(".ctl/state"), "frozen\n"), Some(Errno::EPERM)),
        ],
    );
    expect_no_special_files("frozen", &directory);
    world.thaw("vs1");
    victim.goes_on(1);
    victim.passes();
}

#[test]
fn on_incoming_and_exited_containers_and_at_the_root() {
    let world = World::new();
    let root = world.mount();
    expect(
        "at the root",
        &root,
        &[
            ("a file", &|at| write(&at.join("file"), true, true), Some(Errno::EPERM)),
            ("a name that cannot be", &|at| fs::create_dir(at.join(".hidden")), Some(Errno::EINVAL)),
            ("mkdir", &|at| fs::create_dir(at.join("a")), None),
            ("a name in use", &|at| fs::create_dir(at.join("a")), Some(Errno::EEXIST)),
            ("another", &|at| fs::create_dir(at.join("b")), None),
            ("renaming a container", &|at| fs::rename(at.join("a"), at.join("c")), Some(Errno::EPERM)),
        ],
    );
    expect(
        "incoming",
        &root.join("a"),
        &[
            ("a name no image has", &|at| write(&at.join("nonsense"), true, true), Some(Errno::EINVAL)),
            ("a temporary name", &|at| write(&at.join(".sysv.msg.Xy12"), true, true), None),
            ("a temporary directory", &|at| fs::create_dir(at.join(".files")), Some(Errno::EINVAL)),
            ("what only looks temporary", &|at| write(&at.join("._manifest"), true, true), Some(Errno::EINVAL)),
            ("to a name no image has", &|at| fs::rename(at.join(".sysv.msg.Xy12"), at.join("x")), Some(Errno::EINVAL)),
            ("rename", &|at| fs::rename(at.join(".sysv.msg.Xy12"), at.join("sysv.msg")), None),
            ("append", &|at| write(&at.join("sysv.msg"), false, false), None),
            ("read", &|at| fs::read(at.join("sysv.msg")).map(drop), None),
            ("mkdir", &|at| fs::create_dir(at.join("files")), None),
            ("renaming a directory", &|at| fs::rename(at.join("files"), at.join("0x00000001")), Some(Errno::EPERM)),
            (
                "into another container",
                &|at| fs::rename(at.join("sysv.msg"), at.with_file_name("b").join("sysv.msg")),
                Some(Errno::EXDEV),
            ),
            ("rmdir while files are there", &|at| fs::remove_dir(at), Some(Errno::ENOTEMPTY)),
            ("chmod", &|at| fs::set_permissions(at.join("sysv.msg"), Permissions::from_mode(0o640)), None),
        ],
    );
    expect_no_special_files("incoming", &root.join("a"));
    expect(
        "incoming",
        &root.join("a"),
        &[
            ("unlink", &|at| fs::remove_file(at.join("sysv.msg")), None),
            ("rmdir", &|at| fs::remove_dir(at.join("files")), None),
            ("rmdir of the container", &|at| fs::remove_dir(at), None),
        ],
    );
    world.crctl(["run", "gone", "--", "/bin/true"]).expect_success();
    assert!(wait_for(PATIENCE, || world.state("gone") == "exited"));
    expect(
        "exited",
        &root.join("gone"),
        &[
            ("read", &|at| fs::read(at.join("manifest")).map(drop), Some(Errno::ENOENT)),
            ("unlink", &|at| fs::remove_file(at.join("manifest")), Some(Errno::ENOENT)),
            ("chmod", &|at| fs::set_permissions(at, Permissions::from_mode(0o700)), None),
        ],
    );
    expect_no_special_files("exited", &root.join("gone"));
    expect("exited", &root.join("gone"), &[("create", &|at| write(&at.join("sysv.msg"), true, true), None)]);
    assert_eq!(world.state("gone"), "incoming");
}
