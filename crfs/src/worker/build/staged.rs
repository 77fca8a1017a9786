//! What was copied in, parsed and checked.

use crate::failure::{Doing, Failure, Kind};
use crate::registry::{Container, create_dir};
use image_format::image::{ImageError, TextSource, read_sums};
use image_format::manifest::PathKind;
use image_format::memory::ChunkSum;
use image_format::{Image, Pid, check, layout};
use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

/// Findings of an image that are told at once; more only say that there are more.
const MOST_FINDINGS: usize = 20;

/// A staged image that is sound in itself.
#[derive(Debug)]
pub(super) struct Staged {
    pub(super) image: Image,
    pub(super) sums: BTreeMap<Pid, Vec<ChunkSum>>,
}

/// A plain directory as a source of text files.
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

impl Staged {
    /// Parses and checks what is staged.
    ///
    /// # Errors
    /// [`Kind::BadImage`] with every finding.
    pub(super) fn load(container: &Container) -> Result<Self, Failure> {
        let source = Directory(container.staging_dir());
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
        if findings.is_empty() { Ok(Staged { image, sums }) } else { Err(refuse(&findings)) }
    }

    /// Makes the staged text, and what was queued in pipes, the container's frozen tree.
    pub(super) fn publish(&self, container: &Container) -> Result<(), Failure> {
        let (from, new, to) = (container.staging_dir(), container.dir().join("image.new"), container.image_dir());
        let clear = |path: &PathBuf| match fs::remove_dir_all(path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        };
        clear(&new).doing(|| format!("{}: clearing", new.display()))?;
        create_dir(&new)?;
        let manifest =
            image_format::manifest::PathEntry { path: layout::MANIFEST.to_owned(), kind: PathKind::Object, size: None };
        for entry in self.image.manifest.paths.iter().chain([&manifest]) {
            let name = entry.path.rsplit('/').next().unwrap_or(&entry.path);
            let target = new.join(&entry.path);
            match entry.kind {
                PathKind::Directory => create_dir(&target)?,
                // Page contents and their sums come from the processes themselves now.
                _ if name == layout::MEM_PAGES || name == layout::MEM_SUMS => {}
                _ => {
                    fs::copy(from.join(&entry.path), &target).doing(|| format!("{}: copying", target.display()))?;
                }
            }
        }
        clear(&to).doing(|| format!("{}: clearing", to.display()))?;
        fs::rename(&new, &to).doing(|| format!("{}: publishing", to.display()))
    }
}

fn refuse(findings: &[ImageError]) -> Failure {
    let mut told: Vec<String> = findings.iter().take(MOST_FINDINGS).map(ToString::to_string).collect();
    if findings.len() > MOST_FINDINGS {
        told.push(format!("and {} more", findings.len() - MOST_FINDINGS));
    }
    Failure::new(Kind::BadImage, told.join("; "))
}
