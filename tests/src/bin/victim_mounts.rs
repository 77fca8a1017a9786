//! A process that has mounted: file systems in memory with files of every kind, parts of them elsewhere, read-only or hidden below
//! others, file systems of the kernel's, an overlay; some share what is mounted on them.

use anyhow::{Context, Result, ensure};
use crfs_tests::victim::{self, Stage, suffixed};
use nix::mount::{MntFlags, MsFlags, mount, umount, umount2};
use nix::sys::stat::{Mode, SFlag, makedev, mknod};
use nix::unistd::{Gid, Uid, chown};
use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{ErrorKind, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, symlink};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

const NONE: Option<&str> = None;
const HOLE: u64 = 1 << 30;

/// What a file system or a mount is asked for.
struct Wanted<'a> {
    kind: &'a str,
    options: &'a str,
    flags: MsFlags,
}

fn mount_new(at: &Path, wanted: &Wanted<'_>) -> Result<()> {
    fs::create_dir_all(at)?;
    mount(Some("its source"), at, Some(wanted.kind), wanted.flags, Some(wanted.options))
        .with_context(|| format!("mounting {} on {}", wanted.kind, at.display()))
}

fn bind(from: &Path, at: &Path) -> Result<()> {
    mount(Some(from), at, NONE, MsFlags::MS_BIND, NONE).with_context(|| format!("binding {}", from.display()))
}

fn change(at: &Path, flags: MsFlags) -> Result<()> {
    mount(NONE, at, NONE, flags, NONE).with_context(|| format!("changing {}", at.display()))
}

/// Files of every kind.
fn furnish(top: &Path) -> Result<()> {
    fs::create_dir(top.join("directory"))?;
    fs::create_dir(top.join("directory/deep"))?;
    fs::write(top.join("directory/deep/file"), "in the depth")?;
    let sparse = OpenOptions::new().write(true).create_new(true).open(top.join("sparse"))?;
    sparse.write_all_at(b"before the hole", 0)?;
    sparse.write_all_at(b"behind it", HOLE)?;
    sparse.set_len(HOLE + 12345)?;
    fs::write(top.join("tool"), "#!/bin/true\n")?;
    chown(&top.join("tool"), Some(Uid::from_raw(12)), Some(Gid::from_raw(34)))?;
    fs::set_permissions(top.join("tool"), Permissions::from_mode(0o6751))?;
    crfs_sys::xattr::set(&top.join("tool"), b"trusted.kind", b"\0tool")?;
    fs::hard_link(top.join("tool"), top.join("directory/same tool"))?;
    symlink("directory/deep/../deep/file", top.join("link"))?;
    chown_link(&top.join("link"))?;
    mknod(&top.join("fifo"), SFlag::S_IFIFO, Mode::from_bits_truncate(0o620), 0)?;
    mknod(&top.join("null"), SFlag::S_IFCHR, Mode::from_bits_truncate(0o666), makedev(1, 3))?;
    fs::write(top.join(std::ffi::OsStr::from_bytes(b"no\xffutf \\x41")), "")?;
    fs::set_permissions(top.join("directory"), Permissions::from_mode(0o1700))?;
    Ok(())
}

fn chown_link(path: &Path) -> Result<()> {
    Ok(std::os::unix::fs::lchown(path, Some(56), Some(78))?)
}

/// What is listed of a file: all that does not change by being looked at.
#[derive(Debug, PartialEq, Eq)]
struct Look {
    mode: u32,
    owner: (u32, u32),
    links: u64,
    size: u64,
    device: u64,
    modified: (i64, i64),
    content: Vec<u8>,
}

fn look(directory: &Path, found: &mut BTreeMap<PathBuf, Look>) -> Result<()> {
    let mut names = vec![directory.to_owned()];
    for entry in fs::read_dir(directory)? {
        names.push(entry?.path());
    }
    for path in names {
        let metadata = fs::symlink_metadata(&path)?;
        if metadata.is_dir() && path != directory {
            look(&path, found)?;
            continue;
        }
        let content = match metadata.file_type() {
            kind if kind.is_symlink() => fs::read_link(&path)?.as_os_str().as_bytes().to_vec(),
            kind if kind.is_file() && metadata.len() < 1 << 20 => fs::read(&path)?,
            _ => Vec::new(),
        };
        let look = Look {
            mode: metadata.mode(),
            owner: (metadata.uid(), metadata.gid()),
            links: metadata.nlink(),
            size: metadata.size(),
            device: metadata.rdev(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            content,
        };
        found.insert(path, look);
    }
    Ok(())
}

/// The mounts below a directory, with peer groups numbered in the order in which they appear.
fn mounted(below: &Path) -> Result<Vec<String>> {
    let text = victim::steady(|| Ok(fs::read_to_string("/proc/self/mountinfo")?))?;
    let mut groups: Vec<String> = Vec::new();
    let mut lines = Vec::new();
    for line in text.lines() {
        let words: Vec<&str> = line.split(' ').collect();
        if !words.get(4).is_some_and(|path| Path::new(path).starts_with(below)) {
            continue;
        }
        let word = |word: &&str| {
            let Some((tag, group)) = word.split_once(':').filter(|(tag, _)| ["shared", "master"].contains(tag)) else {
                return (*word).to_owned();
            };
            let at = groups.iter().position(|known| known == group).unwrap_or(groups.len());
            if at == groups.len() {
                groups.push(group.to_owned());
            }
            format!("{tag}:{at}")
        };
        // Its number, its parent's and its device are others after a restore.
        lines.push(words[3..].iter().map(word).collect::<Vec<_>>().join(" "));
    }
    Ok(lines)
}

struct Places {
    top: PathBuf,
    tmpfs: PathBuf,
    shared: PathBuf,
    peer: PathBuf,
    slave: PathBuf,
}

fn set_up(top: &Path) -> Result<Places> {
    let at = |name: &str| top.join(name);
    fs::create_dir(top)?;
    fs::set_permissions(top, Permissions::from_mode(0o755))?;
    let tmpfs = at("tmpfs");
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NOATIME;
    mount_new(&tmpfs, &Wanted { kind: "tmpfs", options: "size=4m,nr_inodes=500,mode=710,uid=7", flags })?;
    furnish(&tmpfs)?;
    // One on top of a directory of another, hiding a file.
    fs::create_dir(tmpfs.join("covered"))?;
    fs::write(tmpfs.join("covered/hidden"), "found again below")?;
    mount_new(&tmpfs.join("covered"), &Wanted { kind: "tmpfs", options: "", flags: MsFlags::MS_NODEV })?;
    fs::write(tmpfs.join("covered/shown"), "above")?;
    // Parts of it and of the host's, elsewhere.
    for name in ["bound", "host directory", "kept"] {
        fs::create_dir(at(name))?;
    }
    for name in ["bound file", "host file"] {
        fs::write(at(name), "covered")?;
    }
    fs::write(at("kept/file"), "of the host")?;
    bind(&tmpfs.join("directory"), &at("bound"))?;
    change(&at("bound"), MsFlags::MS_REMOUNT | MsFlags::MS_BIND | MsFlags::MS_RDONLY | MsFlags::MS_NOEXEC)?;
    bind(&tmpfs.join("directory/deep/file"), &at("bound file"))?;
    bind(&at("kept"), &at("host directory"))?;
    bind(&at("kept/file"), &at("host file"))?;
    // The kernel's.
    let none = MsFlags::empty();
    let nosuid = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    for (kind, options, flags) in [("proc", "", nosuid), ("sysfs", "", nosuid), ("mqueue", "", none)] {
        mount_new(&at(kind), &Wanted { kind, options, flags })?;
    }
    mount_new(&at("devpts"), &Wanted { kind: "devpts", options: "mode=600,ptmxmode=666", flags: none })?;
    for name in ["lower", "upper", "work"] {
        fs::create_dir(at(name))?;
    }
    fs::write(at("lower/one"), "one")?;
    fs::write(at("lower/two"), "two")?;
    let [lower, upper, work] = ["lower", "upper", "work"].map(|name| at(name).display().to_string());
    let options = format!("lowerdir={lower},upperdir={upper},workdir={work}");
    mount_new(&at("overlay"), &Wanted { kind: "overlay", options: &options, flags: none })?;
    fs::write(at("overlay/two"), "another two")?;
    fs::remove_file(at("overlay/one"))?;
    // Peers.
    let (shared, peer, slave) = (at("shared"), at("peer"), at("slave"));
    mount_new(&shared, &Wanted { kind: "tmpfs", options: "", flags: none })?;
    change(&shared, MsFlags::MS_SHARED)?;
    fs::create_dir(shared.join("below"))?;
    for other in [&peer, &slave] {
        fs::create_dir(other)?;
        bind(&shared, other)?;
    }
    change(&slave, MsFlags::MS_SLAVE)?;
    mount_new(&at("alone"), &Wanted { kind: "tmpfs", options: "", flags: MsFlags::MS_STRICTATIME })?;
    change(&at("alone"), MsFlags::MS_UNBINDABLE)?;
    // All of it read-only, not only the mount.
    mount_new(&at("sealed"), &Wanted { kind: "tmpfs", options: "", flags: none })?;
    fs::write(at("sealed/file"), "for good")?;
    change(&at("sealed"), MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY)?;
    Ok(Places { top: top.to_owned(), tmpfs, shared, peer, slave })
}

/// What is mounted on one shows on its peer and its slave, and what is mounted on the slave does not.
fn peers_share(places: &Places) -> Result<()> {
    let count = |what: &str, expected: usize| -> Result<()> {
        let found = mounted(&places.top)?.iter().filter(|line| line.contains("/below ")).count();
        ensure!(found == expected, "{what}: {found} mounts");
        Ok(())
    };
    for (on, expected) in [(&places.shared, 3), (&places.peer, 3), (&places.slave, 1)] {
        let below = on.join("below");
        mount(Some("t"), &below, Some("tmpfs"), MsFlags::empty(), NONE)?;
        count("mounted on one of the peers", expected)?;
        umount(&below)?;
        count("and unmounted", 0)?;
    }
    Ok(())
}

fn contents(places: &Places) -> Result<()> {
    let top = &places.top;
    let is = |name: &str, expected: &str| -> Result<()> {
        let found = fs::read_to_string(top.join(name)).with_context(|| name.to_owned())?;
        ensure!(found == expected, "{name} says {found:?}");
        Ok(())
    };
    is("bound file", "in the depth")?;
    is("bound/deep/file", "in the depth")?;
    is("tmpfs/link", "in the depth")?;
    is("tmpfs/covered/shown", "above")?;
    is("host directory/file", "of the host")?;
    is("host file", "of the host")?;
    is("overlay/two", "another two")?;
    is("sealed/file", "for good")?;
    ensure!(!top.join("overlay/one").exists(), "what was removed from the overlay is there");
    let own = top.join("proc/self/status");
    ensure!(own.exists(), "the other proc shows another pid namespace");
    for (place, error) in [("bound/new", ErrorKind::ReadOnlyFilesystem), ("sealed/new", ErrorKind::ReadOnlyFilesystem)]
    {
        let made = File::create(top.join(place));
        ensure!(made.is_err_and(|refused| refused.kind() == error), "{place}: was made");
    }
    let sparse = File::open(places.tmpfs.join("sparse"))?;
    let mut bytes = [0; 9];
    sparse.read_exact_at(&mut bytes, HOLE)?;
    ensure!(&bytes == b"behind it", "behind the hole stands {bytes:?}");
    ensure!(sparse.metadata()?.blocks() * 512 < 1 << 20, "the hole takes room");
    let value = crfs_sys::xattr::value(&places.tmpfs.join("tool"), b"trusted.kind")?;
    ensure!(value == b"\0tool", "the attribute says {value:?}");
    let (first, second) = (places.tmpfs.join("tool"), places.tmpfs.join("directory/same tool"));
    ensure!(fs::metadata(first)?.ino() == fs::metadata(second)?.ino(), "two names are two files");
    Ok(())
}

fn run(stage: &mut Stage) -> Result<()> {
    let places = set_up(&suffixed(stage.path(), "mounts"))?;
    // In use: a working directory, an open file, one that grows, one that was deleted, a socket.
    std::env::set_current_dir(places.tmpfs.join("directory/deep"))?;
    let open = File::open("file")?;
    let mut log = OpenOptions::new().append(true).create(true).open(places.tmpfs.join("covered/log"))?;
    let gone = OpenOptions::new().read(true).write(true).create_new(true).open("gone")?;
    fs::remove_file("gone")?;
    gone.write_all_at(b"not listed", 0)?;
    let _listener = UnixListener::bind(places.tmpfs.join("socket"))?;
    let expected = mounted(&places.top)?;
    let mut before = BTreeMap::new();
    look(&places.tmpfs.join("directory"), &mut before)?;
    for name in ["sparse", "tool", "link", "fifo", "null", "socket", "shared", "sealed"] {
        let path =
            if name.starts_with('s') && name.ends_with("ed") { places.top.join(name) } else { places.tmpfs.join(name) };
        let modified = fs::symlink_metadata(&path)?;
        before.insert(
            path,
            Look {
                mode: modified.mode(),
                owner: (modified.uid(), modified.gid()),
                links: modified.nlink(),
                size: modified.size(),
                device: modified.rdev(),
                modified: (modified.mtime(), modified.mtime_nsec()),
                content: Vec::new(),
            },
        );
    }
    log.write_all(b"a line\n")?;
    loop {
        let found = mounted(&places.top)?;
        ensure!(found == expected, "mounted is\n{}\nand was\n{}", found.join("\n"), expected.join("\n"));
        let mut now = BTreeMap::new();
        look(&places.tmpfs.join("directory"), &mut now)?;
        for (path, look) in &before {
            let metadata = fs::symlink_metadata(path).with_context(|| path.display().to_string())?;
            let modified = (metadata.mtime(), metadata.mtime_nsec());
            ensure!(modified == look.modified, "{}: modified {modified:?}, was {look:?}", path.display());
            let rest =
                (metadata.mode(), (metadata.uid(), metadata.gid()), metadata.nlink(), metadata.size(), metadata.rdev());
            let was = (look.mode, look.owner, look.links, look.size, look.device);
            ensure!(rest == was, "{}: {rest:?}, was {was:?}", path.display());
            if let Some(now) = now.get(path) {
                ensure!(now.content == look.content, "{}: {now:?}, was {look:?}", path.display());
            }
        }
        contents(&places)?;
        ensure!(std::env::current_dir()? == places.tmpfs.join("directory/deep"), "it is elsewhere");
        let mut bytes = [0; 12];
        open.read_exact_at(&mut bytes, 0)?;
        ensure!(&bytes == b"in the depth", "the open file says {bytes:?}");
        gone.read_exact_at(&mut bytes[..10], 0)?;
        ensure!(&bytes[..10] == b"not listed", "the deleted file says {bytes:?}");
        if !stage.end_round_and_rest()? {
            peers_share(&places)?;
            log.write_all(b"another\n")?;
            let log = fs::read_to_string(places.tmpfs.join("covered/log"))?;
            ensure!(log == "a line\nanother\n", "the log says {log:?}");
            // What was covered is still there.
            umount2(&places.tmpfs.join("covered"), MntFlags::MNT_DETACH)?;
            let hidden = fs::read_to_string(places.tmpfs.join("covered/hidden"))?;
            ensure!(hidden == "found again below", "below stands {hidden:?}");
            return Ok(());
        }
    }
}

fn main() -> ExitCode {
    victim::main(run)
}
