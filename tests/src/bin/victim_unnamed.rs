//! Files without a name: a deleted one through three descriptions, a deleted one that is only mapped, and one
//! that never had a name and gets one at last; and a mapped one that has lost its first name only (as sem_open(3) leaves it).

use anyhow::{Result, ensure};
use crfs_sys::anonymous::Region;
use crfs_tests::victim::{self, Stage, suffixed};
use nix::fcntl::AT_FDCWD;
use nix::fcntl::AtFlags;
use nix::unistd::linkat;
use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::process::ExitCode;

const LINE: u64 = 21;

fn line(number: u64) -> String {
    format!("{number:020}\n")
}

fn run(stage: &mut Stage) -> Result<()> {
    let path = suffixed(stage.path(), "deleted");
    let mut appending = File::options().append(true).create(true).open(&path)?;
    let mut reading = File::open(&path)?;
    let both = File::options().read(true).write(true).open(&path)?;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o604))?;
    fs::remove_file(&path)?;

    let path = suffixed(stage.path(), "mapped");
    let file = File::options().read(true).write(true).create_new(true).open(&path)?;
    file.set_len(5000)?;
    let memory = Region::of_file(file.as_fd(), 4096)?;
    fs::remove_file(&path)?;
    drop(file);

    let first = suffixed(stage.path(), "first");
    let named = suffixed(stage.path(), "second");
    let file = File::options().read(true).write(true).create_new(true).open(&first)?;
    file.set_len(4096)?;
    let semaphore = Region::of_file(file.as_fd(), 4096)?;
    fs::hard_link(&first, &named)?;
    fs::remove_file(&first)?;

    let directory = stage.path().parent().unwrap_or_else(|| "/".as_ref()).to_owned();
    let tmpfile = File::options().read(true).write(true).custom_flags(libc::O_TMPFILE).mode(0o640).open(directory)?;
    tmpfile.write_all_at(b"at last", 3)?;

    let mut written = 0;
    loop {
        appending.write_all(line(written).as_bytes())?;
        written += 1;
        let mut text = String::new();
        reading.read_to_string(&mut text)?;
        ensure!(text == line(written - 1), "read {text:?} in place of line {}", written - 1);
        ensure!(memory.get(7) == written - 1, "the mapping has {} after {written} rounds", memory.get(7));
        memory.set(7, written);
        if !stage.end_round_and_rest()? {
            break;
        }
    }
    let (open, there) = (file.metadata()?, fs::metadata(&named)?);
    ensure!((open.ino(), open.nlink()) == (there.ino(), 1), "the linked one is another: {open:?} {there:?}");
    semaphore.set(0, u64::from_ne_bytes(*b"semaphor"));
    let content = fs::read(&named)?;
    ensure!(content.starts_with(b"semaphor"), "what is written to the mapping does not arrive in the linked one");
    fs::remove_file(&named)?;
    let found = both.metadata()?;
    ensure!((found.len(), found.nlink()) == (written * LINE, 0), "{} bytes, {} links", found.len(), found.nlink());
    ensure!(found.mode() & 0o7777 == 0o604, "its mode is {:o}", found.mode());
    reading.seek(SeekFrom::Start(0))?;
    let mut all = String::new();
    reading.read_to_string(&mut all)?;
    ensure!(all == (0..written).map(line).collect::<String>(), "its content is another");
    let name = suffixed(stage.path(), "named");
    let link = format!("/proc/self/fd/{}", tmpfile.as_raw_fd());
    linkat(AT_FDCWD, link.as_str(), AT_FDCWD, &name, AtFlags::AT_SYMLINK_FOLLOW)?;
    let content = fs::read(&name)?;
    fs::remove_file(&name)?;
    ensure!(content == b"\0\0\0at last", "the file that got a name has {content:?}");
    Ok(())
}

fn main() -> ExitCode {
    victim::main(run)
}
