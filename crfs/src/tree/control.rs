//! The files under `.ctl`: what they show, and the words that may be written to `state`.

use super::incoming::Incoming;
use crate::failure::{Failure, Kind};
use crate::operation::FreezeOptions;
use crate::registry::{Container, State, Status};
use image_format::{render_lines, render_object};
use serde::{Deserialize, Serialize};
use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// How many refused names are kept.
const KEPT: usize = 100;

/// What was written to `.ctl/state`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Command {
    Freeze(FreezeOptions),
    Thaw,
}

impl Command {
    /// `frozen [deadline=SECONDS] [inspect] [external=stdio|unix:PATH|unix:@NAME]...` or `running`.
    pub(super) fn parse(text: &[u8]) -> Result<Self, Failure> {
        let refuse = |word: &str| {
            let expected = "expected \"frozen [deadline=SECONDS] [inspect] [external=stdio|unix:PATH|unix:@NAME]...\" or \"running\"";
            Failure::new(Kind::BadImage, format!(".ctl/state: {word:?} is not understood; {expected}"))
        };
        let text = String::from_utf8_lossy(text);
        let mut words = text.split_ascii_whitespace();
        match words.next() {
            Some("running") => match words.next() {
                None => Ok(Command::Thaw),
                Some(word) => Err(refuse(word)),
            },
            Some("frozen") => {
                let mut options = FreezeOptions::default();
                for word in words {
                    let seconds = word.strip_prefix("deadline=").and_then(|seconds| seconds.parse::<f64>().ok());
                    let external = word.strip_prefix("external=").map(str::parse);
                    match (seconds.map(Duration::try_from_secs_f64), external) {
                        (Some(Ok(given)), _) => options.deadline = given,
                        (_, Some(Ok(external))) => options.external.push(external),
                        _ if word == "inspect" => options.inspect = true,
                        _ => return Err(refuse(word)),
                    }
                }
                Ok(Command::Freeze(options))
            }
            word => Err(refuse(word.unwrap_or_default())),
        }
    }
}

/// `.ctl/status` of a container.
pub(super) fn status(container: &Container, state: State, incoming: Option<&Incoming>) -> Result<Vec<u8>, Failure> {
    let mut status = container.status()?;
    if let (State::Incoming, Some(incoming)) = (state, incoming) {
        status.notes.push(incoming.awaited());
    }
    Ok(render_object(&status))
}

/// Writes down why a file operation on a container was refused, unless it stands there already.
pub(super) fn refused(container: &Container, operation: &str, reason: String) {
    let failure = Failure::new(Kind::WrongState, reason);
    if container.status().is_ok_and(|status| status.failure.as_ref() == Some(&failure)) {
        return;
    }
    let status = Status {
        operation: operation.to_owned(),
        time: crate::operation::now(),
        failure: Some(failure),
        ..Status::default()
    };
    // The errno is answered all the same.
    if let Err(unwritten) = container.write_status(&status) {
        tracing::warn!("{unwritten}");
    }
}

/// A line of `.ctl/status` of the root: a name that was refused.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Refusal {
    /// Seconds since the epoch.
    pub time: u64,
    /// The path below the mount point, as far as it is UTF-8.
    pub path: String,
    /// Why.
    pub reason: String,
}

/// The last names that were refused.
#[derive(Debug, Default)]
pub(super) struct Refusals(Mutex<VecDeque<Refusal>>);

impl Refusals {
    pub(super) fn add(&self, path: impl Into<String>, reason: impl Into<String>) {
        let mut list = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if list.len() == KEPT {
            list.pop_front();
        }
        list.push_back(Refusal { time: crate::operation::now(), path: path.into(), reason: reason.into() });
    }

    pub(super) fn render(&self) -> Vec<u8> {
        let list = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        render_lines(&list.iter().cloned().collect::<Vec<_>>())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn words_of_the_state_file() {
        let freeze = |seconds: f64, inspect| {
            let deadline = Duration::from_secs_f64(seconds);
            Command::Freeze(FreezeOptions { deadline, inspect, ..FreezeOptions::default() })
        };
        let external = ["unix:/dev/log", "unix:/run/x"].map(|text| text.parse().unwrap());
        let with_external = FreezeOptions { external: external.into(), ..FreezeOptions::default() };
        let text = b"frozen external=unix:/dev/log external=unix:/run/x";
        assert_eq!(Command::parse(text).unwrap(), Command::Freeze(with_external));
        assert_eq!(Command::parse(b"frozen\n").unwrap(), freeze(10.0, false));
        assert_eq!(Command::parse(b"frozen deadline=0.5 inspect").unwrap(), freeze(0.5, true));
        assert_eq!(Command::parse(b"running\n").unwrap(), Command::Thaw);
        for bad in
            ["", "thawed", "running now", "frozen deadline=-1", "frozen deadline=x", "frozen soon", "frozen external=x"]
        {
            let failure = Command::parse(bad.as_bytes()).unwrap_err();
            assert_eq!(failure.kind.errno(), nix::errno::Errno::EINVAL, "{bad}");
        }
    }
}
