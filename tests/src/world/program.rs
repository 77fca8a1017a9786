//! A program that runs in a container and is watched through its files.

use super::{World, binary, copy_program, wait_for};
use crate::victim::suffixed;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// A program in a container (or about to be in one).
#[derive(Clone, Debug)]
pub struct Program {
    /// Its command line.
    pub command: Vec<String>,
    /// Its progress file.
    pub path: PathBuf,
}

/// How long a program may take to show progress on a loaded machine.
const PATIENCE: Duration = Duration::from_secs(30);

impl Program {
    /// A victim of `src/bin`. It runs from a copy of its own: a build during the test must not change a mapped file.
    ///
    /// # Panics
    /// When it cannot be copied.
    #[must_use]
    pub fn victim(world: &World, kind: &str, arguments: &[&str]) -> Self {
        let own = world.dir().join("bin").join(kind);
        copy_program(&binary(&format!("victim_{kind}")), &own);
        Program::new(world, kind, vec![text(&own)], arguments)
    }

    /// A script of `tests/victims`, run by an interpreter.
    ///
    /// # Panics
    /// When it cannot be copied.
    #[must_use]
    pub fn script(world: &World, interpreter: &str, script: &str, arguments: &[&str]) -> Self {
        let own = world.dir().join("bin").join(script);
        let source = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/victims")).join(script);
        copy_program(&source, &own);
        Program::new(world, script, vec![interpreter.to_owned(), text(&own)], arguments)
    }

    fn new(world: &World, kind: &str, mut command: Vec<String>, arguments: &[&str]) -> Self {
        let path = world.out().join(kind);
        command.push(text(&path));
        command.extend(arguments.iter().map(|&argument| argument.to_owned()));
        Program { command, path }
    }

    /// The progress: the number of rounds of a victim, or of lines of a script's output.
    #[must_use]
    pub fn progress(&self) -> u64 {
        let text = fs::read_to_string(&self.path).unwrap_or_default();
        let lines = text.lines().count() as u64;
        text.parse().unwrap_or(lines)
    }

    /// Waits until it has done this much more than now.
    ///
    /// # Panics
    /// When it does not, with the failure it reported, if it did.
    #[track_caller]
    pub fn goes_on(&self, by: u64) {
        let goal = self.progress() + by;
        let reached = wait_for(PATIENCE, || self.progress() >= goal || self.result().is_some());
        let now = self.progress();
        let result = self.result();
        assert!(reached && now >= goal, "{}: at {now} and not {goal}; {result:?}", self.path.display());
    }

    /// Fails if it makes any progress within a moment.
    ///
    /// # Panics
    /// Then.
    #[track_caller]
    pub fn stands_still(&self) {
        self.stands_still_for(Duration::from_millis(150));
    }

    /// Fails if it makes any progress within a few milliseconds: for tests that ask often.
    ///
    /// # Panics
    /// Then.
    #[track_caller]
    pub fn stands_still_briefly(&self) {
        self.stands_still_for(Duration::from_millis(5));
    }

    #[track_caller]
    fn stands_still_for(&self, time: Duration) {
        let then = self.progress();
        std::thread::sleep(time);
        assert_eq!(self.progress(), then, "{} goes on though it should not", self.path.display());
    }

    /// What it reported, once it has.
    #[must_use]
    pub fn result(&self) -> Option<String> {
        fs::read_to_string(suffixed(&self.path, "result")).ok().filter(|text| !text.is_empty())
    }

    /// Asks for the final check and waits for the verdict, which must be `ok`.
    ///
    /// # Panics
    /// When it is not.
    #[track_caller]
    pub fn passes(&self) {
        fs::write(suffixed(&self.path, "check"), "").expect("asking for the final check");
        wait_for(PATIENCE, || self.result().is_some());
        assert_eq!(self.result().as_deref().map(str::trim), Some("ok"), "{}", self.path.display());
    }
}

/// The Python to use: the distribution's rather than a wrapper script that comes first in PATH.
#[must_use]
pub fn python() -> &'static str {
    if Path::new("/usr/bin/python3").exists() { "/usr/bin/python3" } else { "python3" }
}

fn text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}
