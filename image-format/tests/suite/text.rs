//! The text form: what is refused, and with which line.

use crate::golden::files;
use image_format::files::{File, FileKind, Namespace, NamespaceType, OpenFlags};
use image_format::image::{ImageError, parse_file};
use image_format::layout;
use image_format::manifest::{Manifest, PathKind};
use image_format::memory::{ChunkSum, Segment};
use image_format::process::{Absent, Fd, Process};
use image_format::signal::{Signal, SignalSet};
use image_format::text::{END, TextError};
use image_format::{Bytes, Hex, Image, Octal, Pid, parse_lines, parse_object, render_lines, render_object};

/// Line and reason of an error in text, for comparing.
fn told<T: std::fmt::Debug>(result: Result<T, TextError>) -> String {
    result.unwrap_err().to_string()
}

#[test]
fn cut_at_any_byte_is_refused_with_its_line() {
    for (path, whole) in files() {
        if layout::kind(&path) == Some(PathKind::Raw) {
            continue;
        }
        for length in 0..whole.len() {
            let cut = &whole[..length];
            let line = match parse_file(&path, cut) {
                Err(ImageError::Text { path: told, source: TextError::Cut { line } }) if told == path => line,
                other => panic!("{path} cut to {length} bytes: {other:?}"),
            };
            // Where the text ends; an object is missed on its last line, a further line on the line after.
            let newlines = cut.iter().filter(|&&byte| byte == b'\n').count();
            assert!(line == newlines + 1 || line == newlines.max(1), "{path} cut to {length} bytes: line {line}");
        }
    }
}

#[test]
fn a_cut_file_is_refused_by_name_with_the_image() {
    for path in files().into_keys().filter(|path| layout::kind(path) != Some(PathKind::Raw)) {
        let mut files = files();
        let bytes = files.get_mut(&path).unwrap();
        bytes.truncate(bytes.len() - 1);
        if path.ends_with(layout::MEM_SUMS) || path == layout::CONTENTS_SUMS {
            continue; // is read apart from the image
        }
        let error = Image::parse(&files).unwrap_err();
        assert!(matches!(&error, ImageError::Text { path: told, .. } if *told == path), "{path}: {error}");
        files.remove(&path);
        assert_eq!(Image::parse(&files).unwrap_err(), ImageError::Missing { path });
    }
}

#[test]
fn wrong_fields_are_told_with_their_line() {
    let path = "0x00000001/process";
    let whole = String::from_utf8(files()[path].clone()).unwrap();
    let line_of = |text: &str, needle: &str| 1 + text[..text.find(needle).unwrap()].matches('\n').count();
    // what is replaced, by what, what the message says
    let edits = [
        ("\"umask\"", "\"umaks\"", "unknown field `umaks`"),
        ("\"0022\"", "22", "invalid type: integer `22`, expected a string"),
        ("\"0022\"", "\"0x22\"", "\"0x22\" is no number of the form 0..."),
        ("\"parent\": 0", "\"parent\": \"0\"", "invalid type: string \"0\", expected u32"),
        ("\"parent\": 0", "\"parent\": -1", "invalid value: integer `-1`, expected u32"),
        ("\"parent\": 0", "\"parent\": 0, \"parent\": 0", "duplicate field `parent`"),
        ("\"RLIMIT_CORE\"", "\"RLIMIT_AS\"", "\"RLIMIT_AS\" is given twice"),
        ("\"soft\": 1024", "\"softly\": 1024", "unknown field `softly`, expected `soft` or `hard`"),
        ("\"soft\": 1024", "\"soft\": 1024.5", "invalid type: floating point `1024.5`, expected u64"),
        ("\"0x400000\"", "\"400000\"", "\"400000\" is no number of the form 0x..."),
        ("\"0x400000\"", "\"0x+40000\"", "\"0x+40000\" is no number of the form 0x..."),
        ("\"/srv\"", "\"/srv\\\\q\"", "a backslash must start \\\\ or \\xHH"),
        ("\"SIGCHLD\"", "\"SIGCHILD\"", "unknown signal \"SIGCHILD\""),
        ("\"/srv\"", "\"\\n\\\\x0g\"", "a backslash must start"),
        ("\"hard\": 4096", "\"hard\": \"4096\"", "invalid type: string \"4096\", expected u64"),
        ("\"LANG=C\"", "\"\\\\\"", "a backslash must start"),
        ("\"LANG=C\"", "17", "invalid type: integer `17`, expected a string"),
    ];
    for (from, to, reason) in edits {
        assert!(whole.contains(from), "{from}");
        let edited = whole.replacen(from, to, 1);
        let error = told(parse_object::<Process>(edited.as_bytes()));
        assert!(error.contains(reason), "{to}: {error}");
        let line = line_of(&whole, from);
        assert!(error.starts_with(&format!("line {line}: ")), "{to} is on line {line}: {error}");
    }
}

#[test]
fn bad_flag_names_are_told_with_their_line() {
    let path = "files/0x00000001";
    let whole = String::from_utf8(files()[path].clone()).unwrap();
    for (bad, reason) in
        [("O_APEND", "unknown flag \"O_APEND\""), ("0x", "unknown flag \"0x\""), ("0x+4", "unknown flag")]
    {
        let edited = whole.replace("\"O_APPEND\"", &format!("{bad:?}"));
        let error = told(parse_object::<File>(edited.as_bytes()));
        assert!(error.starts_with("line 4: ") && error.contains(reason), "{error}");
    }
    let path = "files/0x00000009";
    let edited = String::from_utf8(files()[path].clone()).unwrap().replace("SIG34", "SIG65");
    assert!(told(parse_object::<File>(edited.as_bytes())).starts_with("line 11: unknown signal \"SIG65\""));
}

#[test]
fn an_unknown_type_of_namespace_is_told_with_its_line() {
    let namespace = FileKind::Namespace(Namespace { kind: NamespaceType::Uts, process: Some(Pid(2)) });
    let whole = render_object(&File { flags: OpenFlags(0), position: 0, owner: None, kind: namespace });
    let edited = String::from_utf8(whole).unwrap().replace("\"uts\"", "\"utc\"");
    let error = told(parse_object::<File>(edited.as_bytes()));
    assert!(error.starts_with("line 7: unknown variant `utc`"), "{error}");
}

#[test]
fn a_wrong_line_among_many_is_told() {
    let whole = files().remove("0x00000001/mem.segments").unwrap();
    let whole = String::from_utf8(whole).unwrap();
    let edits = [
        ("\"vdso\"", "\"vdos\"", "line 9: unknown variant `vdos`"),
        ("\"own\":1", "\"owned\":1", "line 3: unknown variant `owned`"),
        ("\"own\":1", "\"own\":-1", "line 3: invalid value: integer `-1`, expected u64"),
        ("\"growsdown\"", "\"growsup\"", "line 6: unknown flag \"growsup\""),
        ("\"shared\":true,", "", "line 4: missing field `shared`"),
        ("{\"start\":\"0x602000\"", "\n{\"start\":\"0x602000\"", "line 3: EOF while parsing a value"),
    ];
    for (from, to, reason) in edits {
        assert!(whole.contains(from), "{from}");
        let error = told(parse_lines::<Segment>(whole.replacen(from, to, 1).as_bytes()));
        assert!(error.starts_with(reason), "{to}: {error}");
    }
}

#[test]
fn nothing_follows_the_end() {
    let fd = "{\"fd\":0,\"file\":0,\"cloexec\":false}\n";
    for after in [fd, "{\"end\":true}\n", "\n", " ", "x"] {
        let text = format!("{fd}{END}\n{after}");
        assert_eq!(parse_lines::<Fd>(text.as_bytes()), Err(TextError::Trailing { line: 3 }), "{after:?}");
    }
    for after in ["{}", "x", "}", "0"] {
        let text = format!("{{\n  \"blocked\": []\n}}\n{after}\n");
        let parsed = parse_object::<image_format::signal::SignalMask>(text.as_bytes());
        assert_eq!(parsed, Err(TextError::Trailing { line: 4 }), "{after:?}");
    }
}

#[test]
fn an_edited_end_line_is_still_one() {
    let fd = "{\"fd\": 0, \"file\": 0, \"cloexec\": false}\n";
    let parsed = parse_lines::<Fd>(format!("{fd}{{ \"end\": true }}\n").as_bytes()).unwrap();
    assert_eq!(parsed.len(), 1);
    for not in ["{\"end\":false}", "{\"end\":true,\"fd\":1}", "{\"end\":1}", "true"] {
        let error = told(parse_lines::<Fd>(format!("{fd}{not}\n").as_bytes()));
        assert!(error.starts_with("line 2: "), "{not}: {error}");
    }
}

#[test]
fn what_is_absent_has_no_lines() {
    assert_eq!(parse_lines::<Absent>(&render_lines::<Absent>(&[])), Ok(vec![]));
    for line in ["{}", "{\"key\":1}", "null", "\"x\"", "[]"] {
        let error = told(parse_lines::<Absent>(format!("{line}\n{END}\n").as_bytes()));
        assert!(error.starts_with("line 1: "), "{line}: {error}");
    }
}

#[test]
fn text_is_utf8() {
    let text = [b"{\"fd\":0,\"file\":0,\"cloexec\":false}\n\"\xff\"\n".as_slice(), END.as_bytes(), b"\n"].concat();
    assert_eq!(parse_lines::<Fd>(&text), Err(TextError::NotUtf8 { line: 2 }));
    assert_eq!(parse_object::<Fd>(b"\n\xc0\xaf"), Err(TextError::NotUtf8 { line: 2 }));
}

#[test]
fn byte_strings_are_escaped() {
    let pairs: [(&[u8], &str); 8] = [
        (b"/plain", "/plain"),
        (b"back\\slash", "back\\\\slash"),
        (b"new\nline", "new\\x0aline"),
        (b"\x7f\x00", "\\x7f\\x00"),
        (b"half \xc3", "half \\xc3"),
        ("caf\u{e9} \u{1f980}".as_bytes(), "caf\u{e9} \u{1f980}"),
        ("\u{9b}31m".as_bytes(), "\\xc2\\x9b31m"),
        (b"\xed\xa0\x80", "\\xed\\xa0\\x80"),
    ];
    for (bytes, escaped) in pairs {
        let string = Bytes(bytes.to_vec());
        assert_eq!(string.escaped(), escaped);
        assert_eq!(Bytes::unescape(escaped), Ok(string));
    }
    assert_eq!(Bytes::unescape("\\x41\\xC3\\xa9"), Ok(Bytes::from("A\u{e9}")));
    for bad in ["\\", "\\n", "\\x", "\\x4", "\\x+4", "\\xg0", "\\x\u{e9}", "a\\\\\\"] {
        assert!(Bytes::unescape(bad).unwrap_err().contains("must start"), "{bad}");
    }
}

#[test]
fn numbers_are_written_as_the_kernel_does() {
    let json = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    assert_eq!(json(render_object(&Octal(0o22))), "\"0022\"\n");
    assert_eq!(json(render_object(&Octal(0))), "\"0000\"\n");
    assert_eq!(json(render_object(&Octal(0o7777))), "\"07777\"\n");
    assert_eq!(json(render_object(&Hex(u64::MAX))), "\"0xffffffffffffffff\"\n");
    for bad in ["\"0x10000000000000000\"", "\"0x\"", "\"-0x1\"", "\"0x 1\"", "1", "\"\""] {
        assert!(parse_object::<Hex>(format!("{bad}\n").as_bytes()).is_err(), "{bad}");
    }
    for bad in ["\"0o22\"", "\"22\"", "\"0028\"", "\"0777777777777\"", "\"0\""] {
        assert!(parse_object::<Octal>(format!("{bad}\n").as_bytes()).is_err(), "{bad}");
    }
    for bad in ["0x0", "0x00000000000000000", "00000000000000000x"] {
        let line = format!("{{\"chunk\":\"{bad}\",\"xxh3\":\"0x0000000000000000\"}}\n{END}\n");
        assert!(told(parse_lines::<ChunkSum>(line.as_bytes())).contains("is not 0x and 16 hex digits"), "{bad}");
    }
}

#[test]
fn unknown_bits_survive() {
    let flags = OpenFlags(0o2001 | 1 << 40);
    let text = String::from_utf8(render_lines(&[flags])).unwrap();
    assert_eq!(text, format!("[\"O_WRONLY\",\"O_APPEND\",\"0x10000000000\"]\n{END}\n"));
    assert_eq!(parse_lines::<OpenFlags>(text.as_bytes()), Ok(vec![flags]));
}

#[test]
fn signals_have_one_spelling() {
    for number in 1..=64 {
        assert_eq!(Signal::from_name(&Signal(number).to_string()), Some(Signal(number)));
    }
    for bad in ["SIG1", "SIG31", "SIG65", "SIG+40", "SIG040", "USR1", "sigusr1", "SIG", ""] {
        assert_eq!(Signal::from_name(bad), None, "{bad}");
    }
    assert_eq!(SignalSet(u64::MAX).iter().count(), 64);
}

#[test]
fn thread_list_has_the_leader_first_and_each_once() {
    let list = "0x00003002/thread.list";
    for (lines, reason) in [
        ("{\"tid\":12291}\n{\"tid\":12290}\n", "line 1: thread 12291 stands first, where the group leader belongs"),
        ("{\"tid\":12290}\n{\"tid\":12290}\n", "line 2: thread 12290 is listed twice"),
    ] {
        let mut files = files();
        files.insert(list.to_owned(), format!("{lines}{END}\n").into_bytes());
        assert_eq!(Image::parse(&files).unwrap_err().to_string(), format!("{list}: {reason}"));
    }
}

/// A later format has fields that nobody knows here: it is refused for what it is, and not for those.
#[test]
fn a_later_format_is_told_before_its_fields() {
    let mut files = files();
    let manifest = String::from_utf8(files[layout::MANIFEST].clone()).unwrap();
    let later = manifest.replacen('{', "{\"of_tomorrow\":[1],", 1);
    files.insert(layout::MANIFEST.to_owned(), later.clone().into_bytes());
    let error = Image::parse(&files).unwrap_err().to_string();
    assert!(error.contains("of_tomorrow"), "{error}");
    let other = later.replacen("\"format\": 2", "\"format\": 7", 1);
    assert_ne!(other, later);
    files.insert(layout::MANIFEST.to_owned(), other.into_bytes());
    let error = Image::parse(&files).unwrap_err().to_string();
    assert_eq!(error, "manifest: format 7 is not known here: this program reads format 2; use one that reads format 7");
}

#[test]
fn only_its_own_format_is_read() {
    type Edit = fn(&mut Manifest);
    let edits: [(&str, Edit); 4] = [
        ("format 3 is not known here: this program reads format 2; use one that reads format 3", |m| m.format = 3),
        ("architecture \"aarch64\": an image can only be restored on its own", |m| m.architecture = "aarch64".into()),
        ("page_size 16384: format 2 has pages of 4096 bytes", |m| m.page_size = 16384),
        ("parent \"monday\": this program reads no incremental images", |m| m.parent = Some("monday".into())),
    ];
    for (reason, edit) in edits {
        let mut files = files();
        let mut manifest: Manifest = parse_object(&files[layout::MANIFEST]).unwrap();
        edit(&mut manifest);
        files.insert(layout::MANIFEST.to_owned(), render_object(&manifest));
        let error = Image::parse(&files).unwrap_err().to_string();
        assert!(error.starts_with(&format!("manifest: {reason}")), "{error}");
    }
}
