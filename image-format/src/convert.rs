//! Images of older formats, read as if they were of today's: one step a format, each from one to the next.
//!
//! A step works on the JSON of each text file and on nothing else of it: raw files are the same in all formats so far. What comes out
//! is parsed and checked as any image, so a step need not look at what it does not change.

use crate::check::read_format;
use crate::image::{ImageError, TextSource, bytes};
use crate::layout::{self, MANIFEST};
use crate::manifest::{FORMAT_VERSION, PathKind};
use crate::process::Absent;
use crate::text::{is_end, parse_object, render_lines, render_object};
use serde_json::{Map, Value};

mod from_1;

/// How an image of one format becomes one of the next.
struct Step {
    /// Text files that the next format has and this one had not always: they hold no record.
    new_files: &'static [&'static str],
    /// Changes a record of the file at this path; of a file of lines each by itself.
    change: fn(&str, &mut Value),
}

/// From format 1 on.
const STEPS: [Step; 1] = [from_1::STEP];
const _: () = assert!(STEPS.len() + 1 == FORMAT_VERSION as usize, "a new format needs a step to it");

/// Why an image of this format, which is not [`FORMAT_VERSION`], is not read as it is, and what to do about it.
pub(crate) fn unknown(format: u32) -> String {
    if (1..FORMAT_VERSION).contains(&format) {
        format!(
            "format {format} is older than this program's {FORMAT_VERSION}; make a copy of today's format: crctl convert DIRECTORY NEW"
        )
    } else {
        format!(
            "format {format} is not known here: this program reads format {FORMAT_VERSION}; use one that reads format {format}"
        )
    }
}

/// The text files of an image of an older format, as those of an image of [`FORMAT_VERSION`]. Fields stand in no particular order.
pub struct Converted<'a> {
    source: &'a dyn TextSource,
    steps: &'static [Step],
}

impl<'a> Converted<'a> {
    /// The text files of `source`, whose format its manifest tells.
    ///
    /// # Errors
    /// When it has no manifest, or is of this format already, or of one that is not known here.
    pub fn new(source: &'a dyn TextSource) -> Result<Self, ImageError> {
        let format = read_format(&bytes(source, MANIFEST)?)?;
        let refuse = |reason| Err(ImageError::Content { path: MANIFEST.to_owned(), reason });
        if format == FORMAT_VERSION {
            return refuse(format!("format {format} is that of this program: there is nothing to convert"));
        }
        let first = usize::try_from(format).ok().and_then(|format| format.checked_sub(1));
        match first.and_then(|first| STEPS.get(first..)) {
            Some(steps) => Ok(Converted { source, steps }),
            None => refuse(unknown(format)),
        }
    }

    fn new_files(&self) -> impl Iterator<Item = &'static str> {
        self.steps.iter().flat_map(|step| step.new_files).copied()
    }

    /// The manifest with the format and the files that it has now.
    fn manifest(&self, manifest: &mut Value) {
        if let Some(format) = manifest.get_mut("format") {
            *format = FORMAT_VERSION.into();
        }
        let Some(paths) = manifest.get_mut("paths").and_then(Value::as_array_mut) else { return };
        for path in self.new_files() {
            if paths.iter().all(|entry| entry["path"] != path) {
                paths.push(serde_json::json!({ "path": path, "kind": "lines", "size": null }));
            }
        }
        paths.sort_by(|one, other| one["path"].as_str().cmp(&other["path"].as_str()));
    }

    fn change(&self, path: &str, record: &mut Value) {
        self.steps.iter().for_each(|step| (step.change)(path, record));
        if path == MANIFEST {
            self.manifest(record);
        }
    }
}

impl TextSource for Converted<'_> {
    fn read(&self, path: &str) -> Result<Option<Vec<u8>>, String> {
        let Some(bytes) = self.source.read(path)? else {
            let added = self.new_files().any(|new| new == path);
            return Ok(added.then(|| render_lines::<Absent>(&[])));
        };
        // What is malformed stays as it is, where it is: whoever parses it tells the line and the reason.
        if layout::kind(path) != Some(PathKind::Lines) {
            let Ok(mut record) = parse_object(&bytes) else { return Ok(Some(bytes)) };
            self.change(path, &mut record);
            return Ok(Some(render_object(&record)));
        }
        let mut changed = Vec::with_capacity(bytes.len());
        for line in bytes.split_inclusive(|&byte| byte == b'\n') {
            // The line that ends the file is no record.
            let ends = std::str::from_utf8(line).is_ok_and(|line| is_end(line.trim_end()));
            let Some(mut record) = serde_json::from_slice(line).ok().filter(|_| !ends) else {
                changed.extend_from_slice(line);
                continue;
            };
            self.change(path, &mut record);
            changed.extend_from_slice(record.to_string().as_bytes());
            changed.extend(line.strip_suffix(b"\n").map(|_| b'\n'));
        }
        Ok(Some(changed))
    }
}

/// Gives an object the fields that it lacks; what is no object is left as it is.
fn add(fields: &str, object: Option<&mut Value>) {
    let (Ok(fields), Some(object)) = (serde_json::from_str::<Map<_, _>>(fields), object.and_then(Value::as_object_mut))
    else {
        return;
    };
    for (name, value) in fields {
        object.entry(name).or_insert(value);
    }
}
