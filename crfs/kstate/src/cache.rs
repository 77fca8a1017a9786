//! The cache file: what was found out about this kernel, so that a worker need not parse BTF and calibrate again.
//!
//! JSON, written by us for us. It fits only the boot it was written in: kernel addresses and, with another kernel, offsets change.

use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path as FilePath, PathBuf};

use nix::unistd::geteuid;
use serde::{Deserialize, Serialize};

use crate::error::Error;
use crate::feature::Feature;
use crate::paths::Path;
use crate::state::{BTF, Knowledge};

/// More than ten times what is written.
const MAX_SIZE: u64 = 1 << 20;

/// What must be the same for the rest to hold.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Identity {
    boot: String,
    kernel: String,
    btf_size: u64,
    program: String,
    paths: Vec<String>,
    fault: Option<Feature>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Cache {
    identity: Identity,
    known: Knowledge,
}

impl Identity {
    fn current(fault: Option<Feature>) -> Result<Self, Error> {
        let text = |path: &str| match fs::read_to_string(path) {
            Ok(text) => Ok(text.trim_end().to_owned()),
            Err(source) => Err(Error::Identity { path: PathBuf::from(path), source }),
        };
        let btf_size = fs::metadata(BTF).map_err(|source| Error::NoBtf { path: BTF.into(), source })?.len();
        Ok(Self {
            boot: text("/proc/sys/kernel/random/boot_id")?,
            kernel: format!("{} {}", text("/proc/sys/kernel/osrelease")?, text("/proc/sys/kernel/version")?),
            btf_size,
            program: env!("CARGO_PKG_VERSION").to_owned(),
            paths: Path::ALL.iter().map(|path| path.names().join("|")).collect(),
            fault,
        })
    }
}

/// None when there is no cache that fits.
pub(crate) fn load(path: &FilePath, fault: Option<Feature>) -> Result<Option<Knowledge>, Error> {
    let Some(bytes) = read_own(path) else { return Ok(None) };
    let Ok(cache) = serde_json::from_slice::<Cache>(&bytes) else { return Ok(None) };
    let fits = cache.identity == Identity::current(fault)? && cache.known.is_complete();
    Ok(fits.then_some(cache.known))
}

/// The content, if nobody else could have written it: wrong offsets would be believed.
fn read_own(path: &FilePath) -> Option<Vec<u8>> {
    use io::Read;
    let file = fs::OpenOptions::new().read(true).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK).open(path).ok()?;
    let about = file.metadata().ok()?;
    if !about.is_file() || about.uid() != geteuid().as_raw() || about.mode() & 0o022 != 0 || about.len() > MAX_SIZE {
        return None;
    }
    let mut bytes = Vec::new();
    file.take(MAX_SIZE).read_to_end(&mut bytes).ok()?;
    Some(bytes)
}

pub(crate) fn save(path: &FilePath, fault: Option<Feature>, known: &Knowledge) -> Result<(), Error> {
    let failed = |source| Error::SaveCache { path: path.into(), source };
    let cache = Cache { identity: Identity::current(fault)?, known: known.clone() };
    let bytes = serde_json::to_vec(&cache).map_err(|error| failed(io::Error::other(error)))?;
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(format!(".{}", std::process::id()));
    let written = fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .custom_flags(libc::O_NOFOLLOW)
        .mode(0o600)
        .open(&temporary)
        .and_then(|mut file| file.write_all(&bytes))
        .and_then(|()| fs::rename(&temporary, path));
    if written.is_err() {
        // What is left of a write that failed is of no use to anybody.
        let _ = fs::remove_file(&temporary);
    }
    written.map_err(failed)
}
