//! The text form: JSON for one object, JSON Lines for many, closed by an end line.
//!
//! Strict on purpose. A file that was cut has no end line; a field that is unknown, missing or of the wrong type is
//! refused with its line.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// The last line of every JSON Lines file: what tells a whole file from a cut one.
pub const END: &str = "{\"end\":true}";

/// Why a text file is not what it should be. The caller adds which file.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TextError {
    /// A line does not parse.
    #[error("line {line}: {reason}")]
    Line {
        /// Counted from 1.
        line: usize,
        /// What the parser said.
        reason: String,
    },
    /// The content is not whole: an object is open, the last line has no newline, or the end line is missing.
    #[error("line {line}: the file ends too early: it was cut, is still being written, or lacks its last newline")]
    Cut {
        /// Counted from 1.
        line: usize,
    },
    /// Something follows the end.
    #[error("line {line}: something follows the end of the file's content")]
    Trailing {
        /// Counted from 1.
        line: usize,
    },
    /// The bytes are not UTF-8.
    #[error("line {line}: not UTF-8")]
    NotUtf8 {
        /// Counted from 1.
        line: usize,
    },
}

/// Renders one object, indented, with a newline at its end.
#[must_use]
pub fn render_object<T: Serialize>(record: &T) -> Vec<u8> {
    let mut bytes = Vec::new();
    append_object(&mut bytes, record);
    bytes
}

/// Renders records one a line, with the end line.
#[must_use]
pub fn render_lines<T: Serialize>(records: &[T]) -> Vec<u8> {
    let mut bytes = Vec::new();
    append_lines(&mut bytes, records);
    bytes
}

/// [`render_object`], after what is there.
///
/// # Panics
/// Never: the records of this crate have string keys only and no failing serializer.
pub(crate) fn append_object<T: Serialize>(bytes: &mut Vec<u8>, record: &T) {
    written(serde_json::to_writer_pretty(&mut *bytes, record));
    bytes.push(b'\n');
}

/// [`render_lines`], after what is there.
///
/// # Panics
/// Never, as [`append_object`].
pub(crate) fn append_lines<T: Serialize>(bytes: &mut Vec<u8>, records: &[T]) {
    for record in records {
        written(serde_json::to_writer(&mut *bytes, record));
        bytes.push(b'\n');
    }
    bytes.extend_from_slice(END.as_bytes());
    bytes.push(b'\n');
}

#[allow(clippy::expect_used)] // the one place where serialization into memory could fail, and it cannot for our types
fn written(result: serde_json::Result<()>) {
    result.expect("records serialize into memory");
}

/// Parses what [`render_object`] wrote, or an edited form of it.
///
/// # Errors
/// With the line at fault.
pub fn parse_object<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, TextError> {
    let text = utf8(bytes)?;
    let mut json = serde_json::Deserializer::from_str(text);
    let record = T::deserialize(&mut json).map_err(|error| {
        let line = error.line().max(1);
        match error.classify() {
            serde_json::error::Category::Eof => TextError::Cut { line },
            _ => TextError::Line { line, reason: reason(&error) },
        }
    })?;
    json.end().map_err(|error| TextError::Trailing { line: error.line().max(1) })?;
    if text.ends_with('\n') { Ok(record) } else { Err(TextError::Cut { line: text.lines().count() }) }
}

/// Parses what [`render_lines`] wrote, or an edited form of it.
///
/// # Errors
/// With the line at fault.
pub fn parse_lines<T: DeserializeOwned>(bytes: &[u8]) -> Result<Vec<T>, TextError> {
    let text = utf8(bytes)?;
    let mut records = Vec::new();
    let mut lines = text.split_inclusive('\n').enumerate();
    for (index, raw) in lines.by_ref() {
        let line = index + 1;
        let Some(content) = raw.strip_suffix('\n') else { return Err(TextError::Cut { line }) };
        match serde_json::from_str(content) {
            Ok(record) => records.push(record),
            Err(_) if is_end(content) => {
                return lines.next().map_or(Ok(records), |_| Err(TextError::Trailing { line: line + 1 }));
            }
            Err(error) => return Err(TextError::Line { line, reason: reason(&error) }),
        }
    }
    Err(TextError::Cut { line: text.lines().count() + 1 })
}

/// Whether this is the end line, in whatever way a program that edited the file spaces its JSON.
pub(crate) fn is_end(content: &str) -> bool {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct End {
        end: bool,
    }
    content == END || serde_json::from_str(content).is_ok_and(|end: End| end.end)
}

fn utf8(bytes: &[u8]) -> Result<&str, TextError> {
    std::str::from_utf8(bytes).map_err(|error| {
        let line = bytes[..error.valid_up_to()].split(|&b| b == b'\n').count();
        match error.error_len() {
            Some(_) => TextError::NotUtf8 { line },
            // The last character is begun and not ended.
            None => TextError::Cut { line },
        }
    })
}

/// serde_json's message without its own "at line 1 column n", which counts inside our line.
fn reason(error: &serde_json::Error) -> String {
    let text = error.to_string();
    match text.rfind(" at line ") {
        Some(at) => format!("{} (column {})", &text[..at], error.column()),
        None => text,
    }
}
