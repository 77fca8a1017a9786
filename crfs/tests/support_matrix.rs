//! docs/SUPPORT.md quotes every obstacle and every refusal of the resource modules, word for word.
//!
//! The texts are taken from the source: all string literals of two words or more that a module may say to a user. A `{}` stands for
//! anything; the pieces around it must stand in one line of the document, in order.

use std::fs;
use std::path::{Path, PathBuf};

/// Calls whose literals are no refusals: what was being done when the system refused, and labels of injected calls.
const NOT_TOLD: [&str; 10] =
    ["doing", "expect", "call", "attempt", "strip_prefix", "prctl", "strip_suffix", "contains", "lap", "starts_with"];
/// Failures that tell of a machine or a moment, not of what is supported.
const OTHER_KINDS: [&str; 4] = ["System", "Stale", "Deadline", "WrongState"];
/// Tables of the kernel's own words, which are parsed and not told.
const PARSERS: [&str; 4] = ["process/limits.rs", "posix_timer/listing.rs", "resource/proc/", "registers/syscalls.rs"];

/// Words of the kernel's own, and steps of a system failure that stand outside of the call that reports it.
const EXEMPT: [&str; 14] = [
    "inotify wd",
    "/proc/{process}/task/{tid}/schedstat is malformed",
    "{}: making a directory for core dumps",
    "seccomp notify",
    "settime flags",
    "{}: reading pagemap",
    "/proc/{host}/smaps: malformed",
    "{}: looking at what waits in it",
    "{what}: looking at what waits in it",
    "a descriptor under way: looking at it",
    "{object}: making the connection",
    "{path}: ptrace tells {told:x?} and kernel memory {read:x?}",
    "{object}: sending it a datagram from {}",
    "{}: comparing the targets of an epoll instance",
];

/// A text of the source: the pieces between its placeholders.
#[derive(Debug)]
struct Told {
    file: PathBuf,
    text: String,
    pieces: Vec<String>,
}

impl Told {
    fn new(file: &Path, literal: &str) -> Option<Self> {
        let pieces = pieces(literal);
        let words = pieces.iter().flat_map(|piece| piece.split_whitespace());
        let words = words.filter(|word| word.chars().any(char::is_alphabetic)).count();
        let file = file.strip_prefix(source()).unwrap_or(file).to_owned();
        let is_path = !literal.contains(' ');
        (words >= 2 && !is_path && !EXEMPT.contains(&literal)).then(|| Told { file, text: literal.to_owned(), pieces })
    }

    /// Whether a text says this: all pieces, in order.
    fn is_in(&self, text: &str) -> bool {
        let mut rest = text;
        self.pieces.iter().all(|piece| match rest.find(piece.as_str()) {
            Some(at) => {
                rest = &rest[at + piece.len()..];
                true
            }
            None => false,
        })
    }
}

/// Takes placeholders out of a format string.
fn pieces(literal: &str) -> Vec<String> {
    let mut pieces = vec![String::new()];
    let mut chars = literal.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '{' | '}' if chars.peek() == Some(&c) => {
                chars.next();
                pieces.last_mut().expect("one at least").push(c);
            }
            '{' => {
                while chars.next().is_some_and(|c| c != '}') {}
                pieces.push(String::new());
            }
            _ => pieces.last_mut().expect("one at least").push(c),
        }
    }
    pieces.into_iter().map(|piece| piece.trim().to_owned()).filter(|piece| !piece.is_empty()).collect()
}

fn source() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src/resource")
}

/// Steps of a build and of a thaw that are no resource's have notes of their own, and a plan has its refusals.
fn build() -> [PathBuf; 3] {
    ["src/worker/build", "src/worker/thaw", "src/plan"].map(|part| Path::new(env!("CARGO_MANIFEST_DIR")).join(part))
}

fn rust_files(directory: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(directory).expect("the source").flatten() {
        let path = entry.path();
        if path.is_dir() {
            rust_files(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") && !path.ends_with("tests.rs") {
            found.push(path);
        }
    }
}

/// An open parenthesis: what was called, and the sort of failure it makes, once that was met.
#[derive(Default)]
struct Call {
    name: String,
    kind: Option<String>,
}

/// The literals of a file that a user may be told. Knows just enough of the language: comments, literals, parentheses, names.
fn told(file: &Path, text: &str) -> Vec<Told> {
    // Tests come last in every file of this code base.
    let text = text.split("#[cfg(test)]").next().unwrap_or_default();
    let mut found = Vec::new();
    let mut calls: Vec<Call> = Vec::new();
    let (mut name, mut before) = (String::new(), String::new());
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        if rest.starts_with("//") {
            rest = rest.find('\n').map_or("", |end| &rest[end..]);
        } else if c == '"' {
            let (literal, after) = string(&rest[1..]);
            rest = after;
            let bytes = matches!(name.as_str(), "b" | "c" | "br");
            let skipped = calls.iter().any(|call| {
                let other = call.kind.as_ref().is_some_and(|kind| OTHER_KINDS.contains(&kind.as_str()));
                NOT_TOLD.contains(&call.name.as_str()) || other
            });
            if !bytes && !skipped {
                found.extend(Told::new(file, &literal));
            }
            name.clear();
        } else if let Some(after) = character(rest) {
            rest = after;
        } else if c.is_alphanumeric() || c == '_' {
            let end = rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len());
            before = std::mem::replace(&mut name, rest[..end].to_owned());
            if before == "Kind"
                && let Some(call) = calls.last_mut()
            {
                call.kind.get_or_insert(name.clone());
            }
            rest = &rest[end..];
        } else {
            match c {
                '(' => calls.push(Call { name: std::mem::take(&mut name), kind: None }),
                ')' => drop(calls.pop()),
                // `doing!(`, `Kind::Stale`: the name goes on.
                '!' | ':' => {}
                _ => name.clear(),
            }
            rest = &rest[c.len_utf8()..];
        }
    }
    assert!(calls.is_empty(), "{}: parentheses that this test does not understand ({before})", file.display());
    found
}

/// The value of a string literal, and what comes after it.
fn string(text: &str) -> (String, &str) {
    let mut value = String::new();
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return (value, &text[at + 1..]),
            '\\' => match chars.next() {
                // A line that goes on: blanks at the start of the next are not part of it.
                Some((_, '\n')) => {
                    while chars.clone().next().is_some_and(|(_, c)| c.is_whitespace()) {
                        chars.next();
                    }
                }
                Some((_, 'n')) => value.push('\n'),
                Some((_, other)) => value.push(other),
                None => break,
            },
            other => value.push(other),
        }
    }
    (value, "")
}

/// What follows a character literal; None for a lifetime.
fn character(text: &str) -> Option<&str> {
    let inside = text.strip_prefix('\'')?;
    let skip = if inside.starts_with('\\') { 1 } else { 0 };
    let first = inside[skip..].chars().next()?;
    inside[skip + first.len_utf8()..].strip_prefix('\'')
}

fn all_told(below: &Path) -> Vec<Told> {
    let mut files = Vec::new();
    rust_files(below, &mut files);
    files.sort();
    let is_parser = |file: &Path| PARSERS.iter().any(|parser| file.to_string_lossy().contains(parser));
    files
        .iter()
        .filter(|file| !is_parser(file))
        .flat_map(|file| told(file, &fs::read_to_string(file).expect("a source file")))
        .collect()
}

fn matrix() -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/SUPPORT.md");
    fs::read_to_string(path).expect("docs/SUPPORT.md")
}

#[test]
fn every_text_has_its_row() {
    let (matrix, all) = (matrix(), all_told(&source()));
    assert!(all.len() > 100, "only {} texts were found in the source: this test no longer understands it", all.len());
    let missing: Vec<String> = all
        .iter()
        .filter(|told| !matrix.lines().any(|line| told.is_in(line)))
        .map(|told| format!("{}: {}", told.file.display(), told.text))
        .collect();
    assert!(missing.is_empty(), "not in docs/SUPPORT.md:\n{}", missing.join("\n"));
}

#[test]
fn every_row_is_said_by_somebody() {
    let mut all = all_told(&source());
    all.extend(build().iter().flat_map(|part| all_told(part)));
    let matrix = matrix();
    // Rows of the tables of messages: | object | `message` | remedy |
    let rows = matrix.lines().filter(|line| line.starts_with("| ") && line.contains("| `"));
    let unsaid: Vec<&str> = rows
        .filter(|row| {
            let message = row.split("| `").nth(1).unwrap_or_default();
            !all.iter().any(|told| told.is_in(message))
        })
        .collect();
    assert!(unsaid.is_empty(), "nobody says what these rows of docs/SUPPORT.md quote:\n{}", unsaid.join("\n"));
}

#[test]
fn literals_are_found_as_they_are_told() {
    let text = "// \"not this one\"\nfn f<'a>() { findings.block(x, format!(\"has {n} of \\\n        them '{:?}'\"), 'a', b\"no bytes\");\n\
        y.doing(|| \"reading a file\")?; Failure::new(Kind::System, \"no such luck\"); }\n#[cfg(test)]\nmod t { \"nor this one\" }";
    let found = told(Path::new("x.rs"), text);
    assert_eq!(found.iter().map(|told| told.text.as_str()).collect::<Vec<_>>(), ["has {n} of them '{:?}'"]);
    assert!(found[0].is_in("it has 5 of them 'X'") && !found[0].is_in("them has of"));
}
