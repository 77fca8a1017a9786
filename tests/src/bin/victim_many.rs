//! As many of one kind of object as are asked for: `descriptors N` (open files), `pipes N` (with bytes in them), `pairs N` (connected
//! Unix sockets with a message on its way) or `mappings N` (of a page, every other of them read-only). Each is used in turn, and all are looked at in the end.

use anyhow::{Context, Result, bail, ensure};
use crfs_sys::anonymous::{Kind, Region};
use crfs_tests::victim::{self, Stage};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::FileExt;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::ExitCode;

/// Words of a page.
const PAGE: usize = 512;
/// How many are used a round.
const A_ROUND: usize = 16;

/// One of them: what was put in last comes out, and the next is put in.
enum Object {
    File { file: File, number: u64 },
    Pipe { out: std::io::PipeReader, into: std::io::PipeWriter, number: u64 },
    Pair { one: UnixStream, other: UnixStream, number: u64 },
    Mappings { pages: Region, number: u64 },
}

impl Object {
    fn new(kind: &str, number: u64, file: &Path) -> Result<Self> {
        let mut object = match kind {
            "descriptors" => Object::File { file: File::open(file)?, number },
            "pipes" => {
                let (out, into) = std::io::pipe()?;
                Object::Pipe { out, into, number }
            }
            "pairs" => {
                let (one, other) = UnixStream::pair()?;
                Object::Pair { one, other, number }
            }
            "mappings" => {
                let pages = Region::new(2 * PAGE * 8, Kind::default())?;
                // So that the kernel keeps it apart from its neighbours.
                pages.protect(PAGE, PAGE, libc::PROT_READ)?;
                Object::Mappings { pages, number }
            }
            _ => bail!("{kind}: descriptors, pipes, pairs or mappings"),
        };
        object.put()?;
        Ok(object)
    }

    fn put(&mut self) -> Result<()> {
        match self {
            Object::File { file, number } => ensure!(file.seek(SeekFrom::Start(*number))? == *number),
            Object::Pipe { into, number, .. } => into.write_all(&number.to_le_bytes())?,
            Object::Pair { one, number, .. } => one.write_all(&number.to_le_bytes())?,
            Object::Mappings { pages, number } => pages.set(0, *number),
        }
        Ok(())
    }

    fn take(&mut self) -> Result<()> {
        let mut found = [0; 8];
        let (found, number) = match self {
            Object::File { file, number } => (file.stream_position()?, number),
            Object::Pipe { out, number, .. } => {
                out.read_exact(&mut found)?;
                (u64::from_le_bytes(found), number)
            }
            Object::Pair { other, number, .. } => {
                other.read_exact(&mut found)?;
                (u64::from_le_bytes(found), number)
            }
            Object::Mappings { pages, number } => (pages.get(0), number),
        };
        ensure!(found == *number, "{found} in the place of {number}");
        *number += 1;
        Ok(())
    }
}

fn run(stage: &mut Stage) -> Result<()> {
    let [kind, count] = stage.arguments() else { bail!("arguments: KIND N") };
    let (kind, count): (String, u64) = (kind.clone(), count.parse()?);
    let (_, limit) = getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, limit, limit)?;
    let path = victim::suffixed(stage.path(), "many");
    File::create(&path)?.write_all_at(b"content", 0)?;
    let mut objects = Vec::new();
    // Mappings come in twos.
    let count = if kind == "mappings" { count / 2 } else { count };
    for number in 0..count {
        objects.push(Object::new(&kind, number, &path).with_context(|| format!("number {number}"))?);
    }
    let mut turn = 0;
    loop {
        for _ in 0..A_ROUND {
            objects[turn].take()?;
            objects[turn].put()?;
            turn = (turn + 1) % objects.len();
        }
        if !stage.end_round_and_rest()? {
            break;
        }
    }
    objects.iter_mut().try_for_each(Object::take)
}

fn main() -> ExitCode {
    victim::main(run)
}
