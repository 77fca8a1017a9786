//! Commands and conditions with a deadline.

use std::fmt;
use std::io::{Read, Seek};
use std::process::{Command, ExitStatus};
use std::time::{Duration, Instant};

/// How a command ended.
#[derive(Debug)]
pub struct Outcome {
    /// The command line, for messages.
    pub command: String,
    /// None: it was killed because it did not end in time.
    pub status: Option<ExitStatus>,
    /// What it printed.
    pub stdout: String,
    /// What it complained about.
    pub stderr: String,
    /// How long it took.
    pub took: Duration,
}

impl Outcome {
    /// Whether it ended, with exit code 0.
    #[must_use]
    pub fn success(&self) -> bool {
        self.status.is_some_and(|status| status.success())
    }

    /// Its exit code, if it has one.
    #[must_use]
    pub fn code(&self) -> Option<i32> {
        self.status.and_then(|status| status.code())
    }

    /// Fails unless it succeeded.
    ///
    /// # Panics
    /// Then, with all it said.
    #[track_caller]
    pub fn expect_success(self) -> Self {
        assert!(self.success(), "{self}");
        self
    }

    /// Fails unless it ended by itself with another exit code than 0 and said each of `words` (on either stream).
    ///
    /// # Panics
    /// Then, with all it said.
    #[track_caller]
    pub fn expect_refusal(self, words: &[&str]) -> Self {
        assert!(self.code().is_some_and(|code| code != 0), "this should have been refused: {self}");
        for word in words {
            let said = self.stderr.contains(word) || self.stdout.contains(word);
            assert!(said, "{word:?} is not in what was said: {self}");
        }
        self
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let status = self.status.map_or("did not end in time".to_owned(), |status| status.to_string());
        write!(f, "`{}`: {status} after {:?}\n{}{}", self.command, self.took, self.stdout, self.stderr)
    }
}

/// Runs a command to its end, or kills it at the deadline.
///
/// Its output goes through files: a background process that inherits a pipe would keep the reader waiting.
///
/// # Panics
/// When it cannot be started.
pub fn run(command: &mut Command, deadline: Duration) -> Outcome {
    let name = format!("{command:?}");
    let mut stdout = tempfile::tempfile().expect("a temporary file");
    let mut stderr = tempfile::tempfile().expect("a temporary file");
    let clone = |file: &std::fs::File| file.try_clone().expect("another handle of a temporary file");
    command.stdout(clone(&stdout)).stderr(clone(&stderr));
    let start = Instant::now();
    let mut child = command.spawn().unwrap_or_else(|error| panic!("{name}: {error}"));
    let mut status = None;
    wait_for(deadline, || {
        status = child.try_wait().expect("waiting for a child");
        status.is_some()
    });
    if status.is_none() {
        // It may have ended just now; either way it is over.
        let _ = child.kill();
        let _ = child.wait();
    }
    let took = start.elapsed();
    let read = |file: &mut std::fs::File| {
        let mut bytes = Vec::new();
        file.rewind().and_then(|()| file.read_to_end(&mut bytes)).expect("reading a temporary file");
        String::from_utf8_lossy(&bytes).into_owned()
    };
    Outcome { command: name, status, stdout: read(&mut stdout), stderr: read(&mut stderr), took }
}

/// Waits until something is so; false when it was not within the deadline.
pub fn wait_for(deadline: Duration, mut so: impl FnMut() -> bool) -> bool {
    let start = Instant::now();
    let mut pause = Duration::from_micros(200);
    while !so() {
        if start.elapsed() >= deadline {
            return false;
        }
        std::thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(10));
    }
    true
}
