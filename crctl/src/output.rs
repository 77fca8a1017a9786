//! What is printed, and how: text for people, JSON for programs.

use crate::exit::{self, Refused};
use anyhow::{Context, Result};
use crfs::failure::Failure;
use image_format::Blocker;
use serde::Serialize;
use std::io::{ErrorKind, Write};
use std::time::{SystemTime, UNIX_EPOCH};

/// Writes to standard output. A reader that has left (`| head`) wants no more, which is no failure.
pub(crate) fn print(text: &str) -> Result<()> {
    print_bytes(text.as_bytes()).map(drop)
}

/// As [`print`]; false when the reader has left.
pub(crate) fn print_bytes(bytes: &[u8]) -> Result<bool> {
    let mut out = std::io::stdout().lock();
    match out.write_all(bytes).and_then(|()| out.flush()) {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(false),
        other => other.map(|()| true).context("standard output: writing"),
    }
}

/// Writes a value as JSON, for programs.
pub(crate) fn print_json<T: Serialize>(value: &T) -> Result<()> {
    let text = serde_json::to_string_pretty(value).context("rendering JSON")?;
    print(&(text + "\n"))
}

/// Writes to standard error. If that is closed, there is nobody to tell.
pub(crate) fn tell(text: &str) {
    let _ = writeln!(std::io::stderr(), "{text}");
}

/// Tells of a failure: the text on standard error, an obstacle a line after it; with `json` also an object on standard output.
pub(crate) fn failure(error: &anyhow::Error, code: u8, json: bool) {
    let blockers: &[Blocker] = error.downcast_ref::<Refused>().map_or(&[], |refused| &refused.blockers);
    tell(&format!("crctl: {error:#}"));
    for blocker in blockers {
        tell(&format!("  {blocker}"));
    }
    if json {
        let object = Failed { exit_code: code, error: format!("{error:#}"), failure: exit::failure(error), blockers };
        if let Err(unprinted) = print_json(&object) {
            tell(&format!("crctl: {unprinted:#}"));
        }
    }
}

#[derive(Serialize)]
struct Failed<'a> {
    exit_code: u8,
    error: String,
    failure: Option<&'a Failure>,
    blockers: &'a [Blocker],
}

/// Rows under a heading, in columns as wide as their widest cell. The last column has no padding.
pub(crate) fn table(heading: &[&str], rows: &[Vec<String>]) -> String {
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count());
        cells.chain(heading.get(column).map(|cell| cell.chars().count())).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..heading.len()).map(width).collect();
    let mut text = String::new();
    let heading: Vec<String> = heading.iter().map(|&cell| cell.to_owned()).collect();
    for row in std::iter::once(&heading).chain(rows) {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(&widths) {
            line += &format!("{cell:width$}  ");
        }
        text += line.trim_end();
        text.push('\n');
    }
    text
}

/// Bytes for people: `11.3 MiB`.
pub(crate) fn bytes(count: u64) -> String {
    let units = ["KiB", "MiB", "GiB", "TiB"];
    // Tenths of the unit, in whole numbers.
    let mut tenths = count.saturating_mul(10) / 1024;
    let mut unit = 0;
    while tenths >= 10240 && unit + 1 < units.len() {
        tenths /= 1024;
        unit += 1;
    }
    if count < 1024 { format!("{count} B") } else { format!("{}.{} {}", tenths / 10, tenths % 10, units[unit]) }
}

/// How long ago a time was: `5s`, `12m`, `3h`, `2d`.
pub(crate) fn age(seconds_since_epoch: u64) -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    match now.saturating_sub(seconds_since_epoch) {
        age @ 0..120 => format!("{age}s"),
        age @ 120..7200 => format!("{}m", age / 60),
        age @ 7200..172_800 => format!("{}h", age / 3600),
        age => format!("{}d", age / 86400),
    }
}

/// A time of day in UTC: `2026-11-22 08:10:02 UTC`.
pub(crate) fn date(seconds_since_epoch: i64) -> String {
    let time = jiff::Timestamp::from_second(seconds_since_epoch);
    time.map_or_else(|_| seconds_since_epoch.to_string(), |time| time.strftime("%F %T UTC").to_string())
}

/// Microseconds for people: `3.4 ms`.
pub(crate) fn time(us: u64) -> String {
    match us {
        0..1000 => format!("{us} us"),
        1000..1_000_000 => format!("{}.{} ms", us / 1000, us % 1000 / 100),
        _ => format!("{}.{:02} s", us / 1_000_000, us % 1_000_000 / 10_000),
    }
}

/// A command as it could be typed, in one line.
pub(crate) fn command(words: &[String]) -> String {
    let plain =
        |word: &String| !word.is_empty() && word.chars().all(|c| c.is_ascii_alphanumeric() || "-_./=:,+@%".contains(c));
    // A control character would spoil the line or the terminal.
    let printable = |word: &String| -> String {
        word.chars().flat_map(|c| if c.is_control() { c.escape_default().collect() } else { vec![c] }).collect()
    };
    let quote = |word: &String| {
        if plain(word) { word.clone() } else { format!("'{}'", printable(word).replace('\'', "'\\''")) }
    };
    words.iter().map(quote).collect::<Vec<_>>().join(" ")
}

/// The beginning of a text, cut so that a list stays one line a row.
pub(crate) fn shortened(text: &str, width: usize) -> String {
    match text.char_indices().nth(width) {
        None => text.to_owned(),
        Some(_) => text.chars().take(width.saturating_sub(3)).chain("...".chars()).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let rows = [vec!["a".into(), "longer".into()], vec!["bbbbb".into(), String::new()]];
        assert_eq!(table(&["NAME", "STATE"], &rows), "NAME   STATE\na      longer\nbbbbb\n");
    }

    #[test]
    fn quantities_for_people() {
        assert_eq!(bytes(1023), "1023 B");
        assert_eq!(bytes(1536), "1.5 KiB");
        assert_eq!(bytes(11 * 1024 * 1024 + 400 * 1024), "11.3 MiB");
        assert_eq!(bytes(u64::MAX / 16), "1048575.9 TiB");
        assert_eq!(time(999), "999 us");
        assert_eq!(time(3450), "3.4 ms");
        assert_eq!(time(2_050_000), "2.05 s");
        assert_eq!(age(u64::MAX), "0s");
        assert_eq!(age(0).pop(), Some('d'));
    }

    #[test]
    fn a_time_is_told_in_utc() {
        assert_eq!(date(0), "1970-01-01 00:00:00 UTC");
        assert_eq!(date(1_795_335_002), "2026-11-22 08:10:02 UTC");
    }

    #[test]
    fn a_long_text_is_cut() {
        assert_eq!(shortened("abcdef", 6), "abcdef");
        assert_eq!(shortened("abcdefg", 6), "abc...");
    }

    #[test]
    fn a_command_can_be_typed_again() {
        let words = ["sh".to_owned(), "-c".to_owned(), "echo it's".to_owned(), String::new()];
        assert_eq!(command(&words), r"sh -c 'echo it'\''s' ''");
        assert_eq!(command(&["a\tb\x1b".to_owned()]), r"'a\tb\u{1b}'");
    }
}
