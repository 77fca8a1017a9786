//! Images of older formats: `golden-1` is the golden image as it was soon after the first programs wrote format 1.

use crate::golden::{files, files_of, sizes};
use image_format::convert::Converted;
use image_format::files::{FileKind, IfChanged, PseudoFile, PseudoFileSystem};
use image_format::image::ImageError;
use image_format::manifest::NamespaceKind;
use image_format::seccomp::Seccomp;
use image_format::timer::Timer;
use image_format::unnamed::Origin;
use image_format::{FileId, Image, Pid, check, layout};
use std::collections::BTreeMap;

type Files = BTreeMap<String, Vec<u8>>;

fn old() -> Files {
    files_of("golden-1")
}

fn converted(files: &Files) -> Result<Image, ImageError> {
    Image::parse(&Converted::new(files)?)
}

/// A text file with one place in it put otherwise.
fn edit(files: &mut Files, path: &str, from: &str, to: &str) {
    let text = String::from_utf8(files[path].clone()).unwrap();
    assert!(text.contains(from), "{path}: {from}");
    files.insert(path.to_owned(), text.replacen(from, to, 1).into_bytes());
}

/// Fails when a record was given a field that the step to its format does not add.
#[test]
fn the_first_images_are_sound_once_they_are_converted() {
    let files = old();
    let image = converted(&files).unwrap();
    assert_eq!(check::image(&image, &sizes(&image)), []);
    for &pid in image.processes.keys() {
        let page = |pid: Pid, page: u64| {
            let pages = files.get(&layout::process_file(pid, layout::MEM_PAGES))?;
            pages.chunks(4096).nth(page as usize).map(<[u8]>::to_vec)
        };
        assert_eq!(check::shown(&image, pid, &page), []);
    }
    let first = &image.processes[&Pid(1)];
    let thread = &first.threads[&Pid(1)];
    assert_eq!(thread.attr.seccomp, Seccomp::None);
    assert!(matches!(thread.timers[..], [Timer::Interval(_)]));
    let regular = image.files.values().find_map(|file| match &file.kind {
        FileKind::Regular(file) => Some(file),
        _ => None,
    });
    assert_eq!(regular.unwrap().if_changed, IfChanged::Default);
    assert!(image.queues.is_empty() && image.mounts.is_empty());
    assert!(image.manifest.paths.iter().any(|entry| entry.path == layout::POSIX_MQ));
}

#[test]
fn what_an_older_image_says_is_kept() {
    let mut files = old();
    edit(&mut files, layout::MANIFEST, "\"host_net\": false", "\"host_net\": true");
    let image = converted(&files).unwrap();
    assert_eq!(Vec::from_iter(image.manifest.container.host_namespaces), [NamespaceKind::Net]);
    // One of format 1 that was taken yesterday, and has all of it.
    let mut files = self::files();
    edit(&mut files, layout::MANIFEST, "\"format\": 2", "\"format\": 1");
    assert_eq!(converted(&files).unwrap(), Image::parse(&self::files()).unwrap());
}

#[test]
fn memfds_of_an_older_image_have_pages_of_the_usual_size() {
    let mut files = old();
    let line = r#"{"number":1,"origin":{"memfd":{"name":"x","seals":[]}},"size":1,"mode":"0600","uid":0,"gid":0,"modified":{"sec":1,"nsec":0}}"#;
    files.insert(layout::UNNAMED.to_owned(), format!("{line}\n{{\"end\":true}}\n").into_bytes());
    let image = converted(&files).unwrap();
    assert!(matches!(&image.unnamed[0].origin, Origin::Memfd(memfd) if memfd.page_size == 4096));
}

#[test]
fn files_of_proc_were_the_only_ones_of_the_kernel() {
    let mut files = old();
    edit(&mut files, "files/0x00000006", r#""eventfd": {"#, r#""proc": {"path": "/proc/stat"}, "was": {"#);
    let text = String::from_utf8(files["files/0x00000006"].clone()).unwrap();
    let (before, after) = text.split_once(r#", "was""#).unwrap();
    let (_, after) = after.split_once('}').unwrap();
    files.insert("files/0x00000006".to_owned(), format!("{before}{after}").into_bytes());
    let expected = PseudoFile { file_system: PseudoFileSystem::Proc, path: "/proc/stat".into(), at_end: false };
    assert_eq!(converted(&files).unwrap().files[&FileId(6)].kind, FileKind::Pseudo(expected));
}

#[test]
fn segments_of_an_older_image_have_pages_of_the_usual_size() {
    let mut files = old();
    let permissions = r#"{"key":"0x7","mode":"0600","uid":0,"gid":0,"creator_uid":0,"creator_gid":0}"#;
    let line = format!(r#"{{"id":3,"permissions":{permissions},"size":16,"locked":false,"destroyed":false}}"#);
    files.insert(layout::SYSV_SHM.to_owned(), format!("{line}\n{{ \"end\": true }}\n").into_bytes());
    assert_eq!(converted(&files).unwrap().sysv.segments[0].page_size, 4096);
}

#[test]
fn an_older_format_is_refused_with_the_remedy() {
    let error = Image::parse(&old()).unwrap_err().to_string();
    assert!(error.starts_with("manifest: format 1 is older than this program's 2"), "{error}");
    assert!(error.ends_with("crctl convert DIRECTORY NEW"), "{error}");
}

#[test]
fn what_is_malformed_is_told_where_it_is() {
    type Edit = fn(&mut Files);
    let cases: [(Edit, &str); 9] = [
        (|f| drop(f.remove("manifest")), "manifest: missing"),
        (|f| drop(f.insert("manifest".into(), b"7\n".to_vec())), "manifest: line 1: "),
        (|f| edit(f, "manifest", "\"format\": 1", "\"format\": 0"), "manifest: format 0 is not known here"),
        (|f| edit(f, "manifest", "\"format\": 1", "\"format\": 2"), "manifest: format 2 is that of this program"),
        (|f| edit(f, "manifest", "\"format\": 1", "\"format\": 99"), "manifest: format 99 is not known here"),
        (|f| drop(f.remove("0x00000001/fds")), "0x00000001/fds: missing"),
        (|f| edit(f, "0x00003002/fds", "{\"fd\":1,", "{\"fd\":1"), "0x00003002/fds: line 2: "),
        (|f| edit(f, "0x00000001/fds", "{\"end\":true}\n", ""), "0x00000001/fds: line 9: the file ends too early"),
        (
            |f| edit(f, "0x00000001/0x00000001/attr", "\"seccomp\": 0", "\"seccomp\": 2"),
            "0x00000001/0x00000001/attr: line ",
        ),
    ];
    for (edit, told) in cases {
        let mut files = old();
        edit(&mut files);
        let error = converted(&files).unwrap_err().to_string();
        assert!(error.starts_with(told), "{error}");
    }
}
