//! Two images record by record: what differs, by file and field.

use crate::world::{files_of, read_tree};
use serde_json::{Map, Value};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::{Path, PathBuf};

/// Bytes a page.
const PAGE: u64 = 4096;

/// How the names of raw files begin, but for pages.
const RAW: [&str; 5] = ["pipe.", "posix.mq.", "sysv.shm.", "sysv.msg.", "unnamed."];

/// A field that differs between two images.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Difference {
    /// `FILE:FIELD.FIELD`; a line of a file counts from 0.
    pub place: String,
    /// In the first image.
    pub was: String,
    /// In the second.
    pub is: String,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} became {}", self.place, self.was, self.is)
    }
}

/// Every difference between two images, but for the contents of pages ([`page_differences`]). Mappings are compared by what is
/// mapped where: where the kernel cut them is nothing a program can see. Of the places of pages in `mem.pages` only the pages count.
///
/// # Panics
/// When an image cannot be read.
#[must_use]
pub fn differences(first: &Path, second: &Path) -> Vec<Difference> {
    let (first, second) = (read_tree(first), read_tree(second));
    let mut found = Vec::new();
    for path in first.keys().chain(second.keys()).collect::<BTreeSet<_>>() {
        let name = path.to_string_lossy();
        if name.ends_with("mem.pages") || name.ends_with("mem.sums") || name == "contents.sums" {
            continue;
        }
        match (first.get(path), second.get(path)) {
            (Some(was), Some(is)) if was == is => {}
            (Some(was), Some(is)) => diff(&name, &parse(path, was), &parse(path, is), &mut found),
            (Some(_), None) => found.push(Difference { place: name.into(), was: "there".into(), is: "away".into() }),
            (None, _) => found.push(Difference { place: name.into(), was: "away".into(), is: "there".into() }),
        }
    }
    found
}

/// The records of a file as one value.
fn parse(path: &Path, bytes: &[u8]) -> Value {
    let name = path.file_name().map_or(String::new(), |name| name.to_string_lossy().into_owned());
    if RAW.iter().any(|raw| name.starts_with(raw)) || [".queue", ".data"].iter().any(|end| name.ends_with(end)) {
        return Value::String(String::from_utf8_lossy(bytes).into_owned());
    }
    let values: Vec<Value> = serde_json::Deserializer::from_slice(bytes)
        .into_iter()
        .map(|value| value.unwrap_or_else(|error| panic!("parsing {}: {error}", path.display())))
        .collect();
    if name == "mem.segments" { Value::Object(mappings(&values)) } else { Value::Array(values) }
}

fn diff(place: &str, was: &Value, is: &Value, found: &mut Vec<Difference>) {
    let at = |field: &dyn fmt::Display| {
        let between = if place.contains(':') { '.' } else { ':' };
        format!("{place}{between}{field}")
    };
    match (was, is) {
        (was, is) if was == is => {}
        (Value::Object(a), Value::Object(b)) => {
            for key in a.keys().chain(b.keys()).collect::<BTreeSet<_>>() {
                diff(&at(key), a.get(key).unwrap_or(&Value::Null), b.get(key).unwrap_or(&Value::Null), found);
            }
        }
        (Value::Array(a), Value::Array(b)) if a.len() == b.len() => {
            for (index, (a, b)) in a.iter().zip(b).enumerate() {
                diff(&at(&index), a, b, found);
            }
        }
        _ => found.push(Difference { place: place.to_owned(), was: was.to_string(), is: is.to_string() }),
    }
}

/// First and last address of pages with one source.
type Run = (u64, u64, String);

/// Mappings by address, neighbours that are alike joined.
fn mappings(lines: &[Value]) -> Map<String, Value> {
    let mut joined: Vec<(u64, u64, Value, Vec<Run>)> = Vec::new();
    for line in lines.iter().filter(|line| line.get("end") != Some(&Value::Bool(true))) {
        let (start, end) = (number(&line["start"]), number(&line["end"]));
        let mut rest = line.clone();
        for moved in ["start", "end", "pages"] {
            rest.as_object_mut().and_then(|rest| rest.remove(moved));
        }
        // Told from address 0, the offset of two neighbours in one file is the same.
        for kind in ["file", "shared_anonymous", "sysv_shm", "unnamed"] {
            if let Some(offset) = rest["backing"].get_mut(kind).and_then(|backing| backing.get_mut("offset")) {
                *offset = Value::String(format!("{:#x} less the address", number(offset).wrapping_sub(start)));
            }
        }
        let pages = line["pages"].as_array().into_iter().flatten().map(|range| {
            let start = number(&range["start"]);
            let source = &range["source"];
            let source = if source.get("own").is_some() { "own".to_owned() } else { source.to_string() };
            (start, start + number(&range["count"]) * PAGE, source)
        });
        match joined.last_mut() {
            Some(last) if last.1 == start && last.2 == rest => {
                last.1 = end;
                last.3.extend(pages);
            }
            _ => joined.push((start, end, rest, pages.collect())),
        }
    }
    let entry = |(start, end, rest, pages): (u64, u64, Value, Vec<Run>)| {
        let mut runs: Vec<Run> = Vec::new();
        for (from, to, source) in pages {
            match runs.last_mut() {
                Some(last) if last.1 == from && last.2 == source => last.1 = to,
                _ => runs.push((from, to, source)),
            }
        }
        let runs: Vec<Value> =
            runs.into_iter().map(|(from, to, source)| format!("{from:#x}-{to:#x} {source}").into()).collect();
        (format!("{start:#x}"), serde_json::json!({ "end": format!("{end:#x}"), "what": rest, "pages": runs }))
    };
    joined.into_iter().map(entry).collect()
}

/// A number as images write them.
fn number(value: &Value) -> u64 {
    let text = value.as_str().and_then(|text| u64::from_str_radix(text.strip_prefix("0x")?, 16).ok());
    text.or_else(|| value.as_u64()).unwrap_or_else(|| panic!("{value} is no number"))
}

/// Addresses of eight bytes that differ between two images, by process directory. A page that only one of them has counts as
/// zeros in the other.
///
/// # Panics
/// When an image cannot be read.
#[must_use]
pub fn page_differences(first: &Path, second: &Path) -> BTreeMap<String, Vec<u64>> {
    let (first_pages, second_pages) = (Pages::read(first), Pages::read(second));
    let zeros = vec![0; usize::try_from(PAGE).unwrap_or(0)];
    let mut found = BTreeMap::new();
    for process in first_pages.0.keys() {
        let (a, b) = (first_pages.of(process), second_pages.of(process));
        let mut differ = Vec::new();
        for &address in a.keys().chain(b.keys()).collect::<BTreeSet<_>>() {
            let page =
                |pages: &BTreeMap<u64, &'_ [u8]>| pages.get(&address).map_or_else(|| zeros.clone(), |p| p.to_vec());
            let (a, b) = (page(&a), page(&b));
            if a != b {
                let words = (address..).step_by(8).zip(a.chunks(8).zip(b.chunks(8)));
                differ.extend(words.filter(|(_, (a, b))| a != b).map(|(address, _)| address));
            }
        }
        if !differ.is_empty() {
            found.insert(process.clone(), differ);
        }
    }
    found
}

/// The contents of every process, and where they belong.
struct Pages(BTreeMap<String, (Vec<Value>, Vec<u8>)>);

impl Pages {
    fn read(image: &Path) -> Self {
        let mut all = BTreeMap::new();
        for segments in files_of(image).into_iter().filter(|file| file.ends_with("mem.segments")) {
            let process = segments.parent().unwrap_or(Path::new("")).to_owned();
            let read = |name: &str| {
                let path: PathBuf = image.join(&process).join(name);
                std::fs::read(&path).unwrap_or_else(|error| panic!("reading {}: {error}", path.display()))
            };
            let text = read("mem.segments");
            let lines = serde_json::Deserializer::from_slice(&text).into_iter().map_while(Result::ok).collect();
            all.insert(process.to_string_lossy().into_owned(), (lines, read("mem.pages")));
        }
        Pages(all)
    }

    /// The pages of a process by address, those it shares with others among them.
    fn of(&self, process: &str) -> BTreeMap<u64, &[u8]> {
        let Some((segments, contents)) = self.0.get(process) else { return BTreeMap::new() };
        let page = usize::try_from(PAGE).unwrap_or(0);
        let mut others: BTreeMap<u64, BTreeMap<u64, &[u8]>> = BTreeMap::new();
        let mut pages = BTreeMap::new();
        for range in segments.iter().flat_map(|segment| segment["pages"].as_array().into_iter().flatten()) {
            let (start, source) = (number(&range["start"]), &range["source"]);
            for index in 0..number(&range["count"]) {
                let address = start + index * PAGE;
                let bytes = if let Some(first) = source.get("own") {
                    let at = usize::try_from(number(first) + index).unwrap_or(usize::MAX).saturating_mul(page);
                    contents.get(at..at.saturating_add(page))
                } else {
                    let other = number(&source["process"]);
                    others.entry(other).or_insert_with(|| self.of(&format!("0x{other:08x}"))).get(&address).copied()
                };
                let bytes = bytes.unwrap_or_else(|| panic!("{process}: the page at {address:#x} is nowhere"));
                pages.insert(address, bytes);
            }
        }
        pages
    }
}
