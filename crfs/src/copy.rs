//! A checkpoint as a plain directory: read, parsed and checked as a whole.

use crate::failure::{Failure, Kind};
use image_format::image::{ImageError, TextSource, read_sums};
use image_format::memory::ChunkSum;
use image_format::types::PAGE_SIZE;
use image_format::{Image, Pid, check, layout};
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// Findings of an image that are told at once; beyond them only their number is.
const MOST_FINDINGS: usize = 20;

/// The records of an image that is sound in itself. Page contents stay where they are.
#[derive(Debug)]
pub struct Copy {
    /// Every record.
    pub image: Image,
    /// `mem.sums` of every process.
    pub sums: BTreeMap<Pid, Vec<ChunkSum>>,
}

struct Directory(PathBuf);

impl TextSource for Directory {
    fn read(&self, path: &str) -> Result<Option<Vec<u8>>, String> {
        match fs::read(self.0.join(path)) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error.to_string()),
        }
    }
}

impl Copy {
    /// Parses and checks a directory.
    ///
    /// # Errors
    /// [`Kind::BadImage`] with every finding: file, line, reason.
    pub fn load(directory: &Path) -> Result<Self, Failure> {
        let source = Directory(directory.to_owned());
        let image = Image::parse(&source).map_err(|error| refuse(&[error]))?;
        let size = |path: &str| fs::metadata(source.0.join(path)).ok().map(|metadata| metadata.len());
        let mut findings = check::image(&image, &size);
        let mut sums = BTreeMap::new();
        for (&pid, process) in &image.processes {
            match read_sums(&source, pid) {
                Ok(lines) => {
                    findings.extend(check::sums(pid, &lines, process.pages_size()));
                    sums.insert(pid, lines);
                }
                Err(error) => findings.push(error),
            }
        }
        if findings.is_empty() {
            let page =
                |pid: Pid, page: u64| read_page(&source.0.join(layout::process_file(pid, layout::MEM_PAGES)), page);
            findings.extend(image.processes.keys().flat_map(|&pid| check::shown(&image, pid, &page)));
        }
        if findings.is_empty() { Ok(Copy { image, sums }) } else { Err(refuse(&findings)) }
    }
}

/// One page of a `mem.pages`; what cannot be read is told when it is needed.
fn read_page(path: &Path, page: u64) -> Option<Vec<u8>> {
    let mut bytes = vec![0; usize::try_from(PAGE_SIZE).ok()?];
    fs::File::open(path).ok()?.read_exact_at(&mut bytes, page.checked_mul(PAGE_SIZE)?).ok()?;
    Some(bytes)
}

fn refuse(findings: &[ImageError]) -> Failure {
    let mut told: Vec<String> = findings.iter().take(MOST_FINDINGS).map(ToString::to_string).collect();
    if findings.len() > MOST_FINDINGS {
        told.push(format!("and {} more", findings.len() - MOST_FINDINGS));
    }
    Failure::new(Kind::BadImage, told.join("; "))
}
