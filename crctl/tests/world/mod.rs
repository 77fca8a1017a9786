//! A registry of its own for a test, and crctl on it.

use crfs::freezer::Cgroup;
use crfs::registry::{Record, read_json, write_json};
use std::path::PathBuf;
use std::process::{Command, Output};
use std::time::{Duration, Instant};

pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// Everything in it is killed and removed when it is dropped.
pub(crate) struct World {
    pub(crate) dir: tempfile::TempDir,
}

impl World {
    pub(crate) fn new() -> Self {
        World { dir: tempfile::Builder::new().prefix("crctl-test-").tempdir().unwrap() }
    }

    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_crctl"));
        command.args(arguments).env("CRFS_RUN_DIR", self.dir.path().join("run"));
        command.env("CRFS_STAGING_DIR", self.dir.path().join("pages"));
        command
    }

    pub(crate) fn crctl(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }

    #[track_caller]
    pub(crate) fn ok(&self, arguments: &[&str]) -> String {
        let output = self.crctl(arguments);
        assert!(output.status.success(), "crctl {arguments:?}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// It must fail with this code, and the words must be in what it says.
    #[track_caller]
    pub(crate) fn refused(&self, code: i32, words: &[&str], arguments: &[&str]) {
        let output = self.crctl(arguments);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(code), "crctl {arguments:?}: {said}");
        for word in words {
            assert!(said.contains(word), "crctl {arguments:?}: {word:?} is not in {said:?}");
        }
    }

    pub(crate) fn run_dir(&self) -> PathBuf {
        self.dir.path().join("run")
    }

    pub(crate) fn record(&self, name: &str) -> Record {
        read_json(&self.run_dir().join(name).join("container.json")).unwrap().unwrap()
    }

    pub(crate) fn write_record(&self, record: &Record) {
        let dir = self.run_dir().join(&record.name);
        std::fs::create_dir_all(&dir).unwrap();
        write_json(&dir.join("container.json"), record).unwrap();
    }

    pub(crate) fn cgroup(&self, name: &str) -> Cgroup {
        Cgroup::at(self.record(name).cgroup)
    }

    pub(crate) fn state(&self, name: &str) -> String {
        let status: serde_json::Value = serde_json::from_str(&self.ok(&["status", "--json", name])).unwrap();
        status["state"].as_str().unwrap().to_owned()
    }

    pub(crate) fn log(&self, name: &str) -> String {
        self.ok(&["logs", name])
    }

    /// Waits until the container's log holds the text, and returns the log.
    #[track_caller]
    pub(crate) fn wait_for_log(&self, name: &str, text: &str) -> String {
        until(text, || Some(self.log(name)).filter(|log| log.contains(text)))
    }
}

impl Drop for World {
    fn drop(&mut self) {
        let names: Vec<_> = std::fs::read_dir(self.run_dir())
            .into_iter()
            .flatten()
            .filter_map(|entry| entry.unwrap().file_name().into_string().ok())
            .filter(|name| self.run_dir().join(name).join("container.json").exists())
            .collect();
        for name in names {
            let cgroup = self.cgroup(&name);
            if cgroup.exists() {
                cgroup.kill(PATIENCE).unwrap();
                cgroup.remove(PATIENCE).unwrap();
            }
            cgroup.remove_parent_if_empty();
        }
    }
}

/// Asks again until there is an answer.
#[track_caller]
pub(crate) fn until<T>(what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + PATIENCE;
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(Instant::now() < end, "waited in vain for {what:?}");
        std::thread::sleep(Duration::from_millis(5));
    }
}
