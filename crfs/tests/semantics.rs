//! docs/SEMANTICS.md names the test that holds each promise: that test must be there.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// The text of every source file of the workspace, by the name of the file or directory that a reference may use.
fn sources(directory: &Path, found: &mut BTreeMap<String, String>) {
    for entry in fs::read_dir(directory).expect("the workspace").flatten() {
        let path = entry.path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = fs::read_to_string(&path).expect("a source file");
            if let Some(stem) = path.file_stem() {
                found.entry(stem.to_string_lossy().into_owned()).or_default().push_str(&text);
            }
        }
    }
}

/// `file::test` in backticks.
fn references(text: &str) -> Vec<(&str, &str)> {
    let is_name =
        |word: &str| !word.is_empty() && word.chars().all(|c| c.is_ascii_lowercase() || c == '_' || c.is_ascii_digit());
    let quoted = text.split('`').skip(1).step_by(2);
    quoted.filter_map(|word| word.split_once("::")).filter(|(file, test)| is_name(file) && is_name(test)).collect()
}

#[test]
fn every_test_that_is_named_is_there() {
    let text = fs::read_to_string(root().join("docs/SEMANTICS.md")).expect("docs/SEMANTICS.md");
    let mut found = BTreeMap::new();
    for part in ["crfs/src", "crfs/tests", "crctl", "tests/tests"] {
        sources(&root().join(part), &mut found);
    }
    let named = references(&text);
    assert!(named.len() > 50, "only {} tests are named", named.len());
    // Tests of kernel objects are made by a macro from their names: the name alone stands in the file then.
    let is_there = |file: &str, test: &str| {
        let word = |text: &String| text.split(|c: char| !c.is_alphanumeric() && c != '_').any(|word| word == test);
        found.get(file).is_some_and(word)
    };
    let missing: Vec<_> = named.into_iter().filter(|(file, test)| !is_there(file, test)).collect();
    assert!(missing.is_empty(), "docs/SEMANTICS.md names tests that are not there: {missing:?}");
}
