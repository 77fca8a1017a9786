//! What a user does, as steps of a test.

use super::{Method, Outcome, PATIENCE, Program, World, binary, copy_tree, run, wait_for};
use nix::unistd::Pid;
use serde_json::Value;
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::time::Duration;

impl World {
    /// Runs crctl.
    pub fn crctl<I: IntoIterator<Item = S>, S: AsRef<OsStr>>(&self, arguments: I) -> Outcome {
        run(self.command(binary("crctl")).args(arguments), PATIENCE)
    }

    /// `crctl run NAME -- PROGRAM`, and waits for its first progress.
    ///
    /// # Panics
    /// When it does not start.
    #[track_caller]
    pub fn start(&self, name: &str, program: &Program) {
        self.start_with(name, program, &[]);
    }

    /// The same with options of `crctl run`.
    ///
    /// # Panics
    /// When it does not start.
    #[track_caller]
    pub fn start_with(&self, name: &str, program: &Program, options: &[&str]) {
        let run = [&["run"], options, &[name, "--"]].concat();
        self.crctl(run.into_iter().chain(program.command.iter().map(String::as_str))).expect_success();
        let started = wait_for(Duration::from_secs(30), || program.progress() > 0 || program.result().is_some());
        let log = fs::read_to_string(self.run_dir().join(name).join("log")).unwrap_or_default();
        assert!(started && program.result().is_none(), "{name}: {:?} {log}", program.result());
        program.goes_on(2);
    }

    /// `crctl VERB NAME`, which must succeed.
    ///
    /// # Panics
    /// When it does not.
    #[track_caller]
    pub fn must(&self, verb: &str, name: &str) {
        self.crctl([verb, name]).expect_success();
    }

    /// Freezes.
    ///
    /// # Panics
    /// When refused.
    #[track_caller]
    pub fn freeze(&self, name: &str) {
        self.must("freeze", name);
        assert_eq!(self.state(name), "frozen");
    }

    /// Thaws.
    ///
    /// # Panics
    /// When refused.
    #[track_caller]
    pub fn thaw(&self, name: &str) {
        self.must("thaw", name);
        let state = self.state(name);
        assert_eq!(state, "running", "{:?} {}", self.results(), self.told(name));
    }

    /// What the programs of this world reported at their end.
    #[must_use]
    pub fn results(&self) -> Vec<String> {
        let files = fs::read_dir(self.out()).into_iter().flatten().flatten().map(|entry| entry.path());
        let results = files.filter(|path| path.extension().is_some_and(|extension| extension == "result"));
        results.filter_map(|path| fs::read_to_string(path).ok()).collect()
    }

    /// Kills.
    ///
    /// # Panics
    /// When refused.
    #[track_caller]
    pub fn kill(&self, name: &str) {
        self.must("kill", name);
    }

    /// Kills and forgets.
    ///
    /// # Panics
    /// When refused.
    #[track_caller]
    pub fn remove(&self, name: &str) {
        self.must("kill", name);
        self.must("rm", name);
    }

    /// What `crctl status --json` says.
    ///
    /// # Panics
    /// When it says no JSON.
    #[track_caller]
    #[must_use]
    pub fn status(&self, name: &str) -> Value {
        let outcome = self.crctl(["status", "--json", name]).expect_success();
        serde_json::from_str(&outcome.stdout).unwrap_or_else(|error| panic!("{error}: {outcome}"))
    }

    /// The container's state.
    ///
    /// # Panics
    /// When there is no such container.
    #[track_caller]
    #[must_use]
    pub fn state(&self, name: &str) -> String {
        let status = self.status(name);
        let state = find(&status, "state").and_then(Value::as_str);
        state.unwrap_or_else(|| panic!("no state in {status}")).to_owned()
    }

    /// The first process of a container, as the host numbers it.
    ///
    /// # Panics
    /// When there is none.
    #[must_use]
    #[track_caller]
    pub fn first_process(&self, name: &str) -> Pid {
        let record = fs::read(self.run_dir().join(name).join("container.json")).expect("the container's record");
        let record: Value = serde_json::from_slice(&record).expect("its form");
        let pid = record["init"]["pid"].as_i64().and_then(|pid| i32::try_from(pid).ok());
        Pid::from_raw(pid.unwrap_or_else(|| panic!("no first process in {record}")))
    }

    /// Everything that is told about a container and about refused names: `crctl status` and the `.ctl/status` files.
    #[must_use]
    pub fn told(&self, name: &str) -> String {
        let mut told = self.crctl(["status", "--json", name]).stdout;
        for file in [self.tree(name).join(".ctl/status"), self.mount().join(".ctl/status")] {
            // Where there is no such container (any more), there is no such file.
            told += &fs::read_to_string(file).unwrap_or_default();
        }
        told
    }

    /// Fails unless each of these words is told about the container: the reason of a refusal.
    ///
    /// # Panics
    /// Then.
    #[track_caller]
    pub fn status_says(&self, name: &str, words: &[&str]) {
        let told = self.told(name);
        for word in words {
            // As it stands inside a JSON string.
            let quoted = word.replace('"', "\\\"");
            assert!(told.contains(word) || told.contains(&quoted), "{word:?} is not told about {name}: {told}");
        }
    }

    /// Copies a container's tree to a new place and returns it.
    ///
    /// # Panics
    /// When copying fails.
    #[track_caller]
    pub fn copy_out(&self, name: &str, method: Method) -> PathBuf {
        let to = self.place(name);
        copy_tree(&self.tree(name), &to, method).expect_success();
        to
    }

    /// A path for a copy, which does not exist.
    ///
    /// # Panics
    /// When its parent cannot be made.
    #[must_use]
    pub fn place(&self, name: &str) -> PathBuf {
        let number = self.copies.fetch_add(1, Ordering::Relaxed);
        let parent = self.dir().join("backup").join(number.to_string());
        fs::create_dir_all(&parent).unwrap_or_else(|error| panic!("creating {}: {error}", parent.display()));
        parent.join(name)
    }

    /// Copies a copy in, under a name.
    pub fn copy_in(&self, copy: &Path, name: &str, method: Method) -> Outcome {
        // A directory that is already there (an exited container's) is copied into.
        if matches!(method, Method::Cp | Method::CpArchive) && self.tree(name).exists() {
            let flag = if method == Method::Cp { "-r" } else { "-a" };
            return run(self.command("cp").arg(flag).arg("-T").arg(copy).arg(self.tree(name)), PATIENCE);
        }
        if method == Method::Tar && self.tree(name).exists() {
            let script = r#"set -o pipefail; tar -C "$1" -cf - . | tar -C "$2" --no-same-owner -xf -"#;
            return run(self.command("bash").args(["-c", script, "tar"]).arg(copy).arg(self.tree(name)), PATIENCE);
        }
        copy_tree(copy, &self.tree(name), method)
    }

    /// Copies in, which must succeed and give a frozen container.
    ///
    /// # Panics
    /// When it does not.
    #[track_caller]
    pub fn restore(&self, copy: &Path, name: &str, method: Method) {
        let outcome = self.copy_in(copy, name, method);
        if !outcome.success() {
            let status = self.crctl(["status", "--json", name]);
            panic!("{outcome}\n{status}");
        }
        assert_eq!(self.state(name), "frozen");
    }
}

/// The first value of this key, wherever it stands.
fn find<'a>(value: &'a Value, key: &str) -> Option<&'a Value> {
    match value {
        Value::Object(map) => map.get(key).or_else(|| map.values().find_map(|inner| find(inner, key))),
        Value::Array(items) => items.iter().find_map(|inner| find(inner, key)),
        _ => None,
    }
}
