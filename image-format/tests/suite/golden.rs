//! The golden image: a small complete tree, kept as files, that shows what the format is.

use image_format::contents;
use image_format::image::{parse_file, read_content_sums, read_sums};
use image_format::layout;
use image_format::manifest::PathKind;
use image_format::memory::{CHUNK_SIZE, checksum, sums_size};
use image_format::{Image, check, render_lines, render_object};
use std::collections::BTreeMap;
use std::path::Path;

/// Every file of the golden image by its path in the tree.
pub(crate) fn files() -> BTreeMap<String, Vec<u8>> {
    files_of("golden")
}

/// Every file of an image among the tests, by its path in the tree.
pub(crate) fn files_of(name: &str) -> BTreeMap<String, Vec<u8>> {
    fn walk(directory: &Path, prefix: &str, out: &mut BTreeMap<String, Vec<u8>>) {
        for entry in std::fs::read_dir(directory).unwrap() {
            let entry = entry.unwrap();
            let path = format!("{prefix}{}", entry.file_name().to_str().unwrap());
            if entry.file_type().unwrap().is_dir() {
                walk(&entry.path(), &format!("{path}/"), out);
            } else {
                out.insert(path, std::fs::read(entry.path()).unwrap());
            }
        }
    }
    let mut out = BTreeMap::new();
    walk(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests").join(name), "", &mut out);
    out
}

/// The golden image, parsed.
pub(crate) fn image() -> Image {
    Image::parse(&files()).unwrap()
}

/// Sizes of raw files as the image's own manifest gives them.
pub(crate) fn sizes(image: &Image) -> impl Fn(&str) -> Option<u64> + use<> {
    let sizes: BTreeMap<String, u64> =
        image.manifest.paths.iter().filter_map(|entry| Some((entry.path.clone(), entry.size?))).collect();
    move |path| sizes.get(path).copied()
}

#[test]
fn is_clean() {
    let files = files();
    let image = Image::parse(&files).unwrap();
    let findings = check::image(&image, &|path| files.get(path).map(|bytes| bytes.len() as u64));
    assert_eq!(findings, []);
}

#[test]
fn renders_to_itself() {
    let mut expected = files();
    let image = Image::parse(&expected).unwrap();
    let mut rendered = image.render();
    rendered.insert(layout::MANIFEST.to_owned(), render_object(&image.manifest));
    for &pid in image.processes.keys() {
        rendered.insert(layout::process_file(pid, layout::MEM_SUMS), render_lines(&read_sums(&expected, pid).unwrap()));
    }
    let sums = read_content_sums(&expected).unwrap();
    rendered.insert(layout::CONTENTS_SUMS.to_owned(), render_lines(&sums));
    expected.retain(|path, _| layout::kind(path) != Some(PathKind::Raw));
    for (path, bytes) in &expected {
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        assert_eq!(rendered.get(path).map(|bytes| text(bytes)), Some(text(bytes)), "{path}");
    }
    assert_eq!(rendered.keys().collect::<Vec<_>>(), expected.keys().collect::<Vec<_>>());
}

#[test]
fn manifest_lists_its_files() {
    let files = files();
    let image = image();
    assert_eq!(image.manifest.paths, image.paths());
    let listed = image.manifest.paths.iter().filter(|entry| entry.kind != PathKind::Directory).map(|entry| &entry.path);
    let present = files.keys().filter(|&path| path != layout::MANIFEST);
    assert_eq!(listed.collect::<Vec<_>>(), present.collect::<Vec<_>>());
}

#[test]
fn sums_are_those_of_the_pages() {
    let files = files();
    for (&pid, process) in &image().processes {
        let pages = &files[&layout::process_file(pid, layout::MEM_PAGES)];
        assert_eq!(process.pages_size(), pages.len() as u64);
        let sums = read_sums(&files, pid).unwrap();
        assert_eq!(check::sums(pid, &sums, process.pages_size()), []);
        for (sum, chunk) in sums.iter().zip(pages.chunks(CHUNK_SIZE as usize)) {
            assert_eq!(sum.xxh3.0, checksum(chunk), "process {pid}: the sum is {:#018x}", checksum(chunk));
        }
        let bytes = files[&layout::process_file(pid, layout::MEM_SUMS)].len() as u64;
        assert_eq!(sums_size(process.pages_size()), bytes);
    }
}

#[test]
fn content_sums_are_those_of_the_contents() {
    let (files, image) = (files(), image());
    let sums = read_content_sums(&files).unwrap();
    assert_eq!(check::content_sums(&image, &sums), []);
    assert_eq!(sums.iter().map(|sum| sum.path.as_str()).collect::<Vec<_>>(), ["mounts.1.data", "sysv.shm.3"]);
    for sum in sums {
        let is = checksum(&files[&sum.path]);
        assert_eq!(sum.xxh3.0, is, "{}: the sum is {is:#018x}", sum.path);
    }
    let size = files[layout::CONTENTS_SUMS].len() as u64;
    assert_eq!(contents::sums_size(contents::summed(&image.manifest.paths)), size);
}

#[test]
fn every_file_parses_alone() {
    for (path, bytes) in files() {
        if layout::kind(&path) != Some(PathKind::Raw) {
            parse_file(&path, &bytes).unwrap();
        }
    }
    for path in ["files", "0x00000001", "files/pipe.1", "0x00000001/mem.pages", "0x00000001/maps", "Makefile", ""] {
        let error = parse_file(path, b"").unwrap_err().to_string();
        assert_eq!(error, format!("{path}: no image has a text file of this name"));
    }
}

#[test]
fn every_known_name_is_in_it() {
    let present: Vec<String> = files().into_keys().collect();
    let has = |name: &str, depth| {
        present.iter().any(|path| path.split('/').count() == depth && path.rsplit('/').next() == Some(name))
    };
    for name in layout::CONTAINER_ABSENT {
        assert!(has(name, 1), "{name}");
    }
    let process = layout::PROCESS_FILES.iter().map(|&(name, _)| name);
    for name in process.chain([layout::MEM_PAGES]) {
        assert!(has(name, 2), "{name}");
    }
    for (name, _) in layout::THREAD_FILES {
        assert!(has(name, 3), "{name}");
    }
}

#[test]
fn the_examples_of_the_format_description_are_from_it() {
    fn plain(text: &str) -> String {
        text.split_whitespace().collect()
    }
    let description = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/FORMAT.md");
    let description = std::fs::read_to_string(description).unwrap();
    let files: Vec<String> = files().values().map(|bytes| plain(&String::from_utf8_lossy(bytes))).collect();
    let mut examples = 0;
    for block in description.split("```json\n").skip(1) {
        let example = block.split("```").next().unwrap();
        assert!(files.iter().any(|text| text.contains(&plain(example))), "{example}");
        examples += 1;
    }
    assert!(examples >= 3);
}
