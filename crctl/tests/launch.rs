//! What a container's first process finds around it.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

#[allow(dead_code, reason = "each test uses a part of it")]
mod world;

use std::io::Write;
use std::os::unix::process::CommandExt;
use world::{World, until};

fn value<'a>(log: &'a str, key: &str) -> &'a str {
    let line = log.lines().find_map(|line| line.strip_prefix(key)).unwrap_or_else(|| panic!("no {key} in {log}"));
    line.trim()
}

#[test]
fn surroundings_of_its_own() {
    let world = World::new();
    let report = "echo pid $$; echo host $(hostname); echo dir $(pwd); echo mask $(umask); echo variable $VARIABLE; \
                  echo group-session $(cut -d' ' -f5,6 /proc/$$/stat); echo cgroup $(grep ^0:: /proc/self/cgroup); \
                  echo devices $(grep -c : /proc/net/dev); echo end; exec sleep 1000";
    let mut command = world.command(&["run", "v", "--hostname", "somewhere", "--", "sh", "-c", report]);
    command.env("VARIABLE", "kept").current_dir("/usr");
    // A descriptor that is not close-on-exec, as shells leave them, and a signal that is ignored.
    let wrapper = "umask 027; trap '' USR1 INT; exec 7</dev/null; exec \"$@\"";
    let mut shell = std::process::Command::new("/bin/sh");
    shell.args(["-c", wrapper, "sh"]).arg(command.get_program()).args(command.get_args());
    shell.envs(command.get_envs().filter_map(|(key, value)| Some((key, value?)))).current_dir("/usr").arg0("sh");
    assert!(shell.output().unwrap().status.success());
    let log = world.wait_for_log("v", "end\n");
    assert_eq!(value(&log, "pid "), "1");
    assert_eq!(value(&log, "host "), "somewhere");
    assert_eq!(value(&log, "dir "), "/usr");
    assert_eq!(value(&log, "mask "), "0027");
    assert_eq!(value(&log, "variable "), "kept");
    assert_eq!(value(&log, "cgroup "), "0::/");
    assert_eq!(value(&log, "devices "), "1", "more than lo in a network of its own");
    assert_eq!(value(&log, "group-session "), "1 1");

    let pid = world.record("v").init.unwrap().pid;
    let streams = until("sleep, which has nothing else open", || {
        let all = std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap().map(|entry| entry.unwrap());
        let mut all: Vec<_> = all.map(|fd| (fd.file_name(), std::fs::read_link(fd.path()).unwrap())).collect();
        all.sort();
        (all.len() == 3).then_some(all)
    });
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    assert_eq!((value(&status, "SigIgn:"), value(&status, "SigBlk:")), ("0000000000000000", "0000000000000000"));
    let log_file = world.run_dir().join("v/log");
    let expected = [("0", std::path::Path::new("/dev/null")), ("1", &log_file), ("2", &log_file)];
    assert_eq!(streams, expected.map(|(number, path)| (number.into(), path.to_owned())));
    for namespace in ["pid", "mnt", "uts", "ipc", "net", "cgroup", "time"] {
        let of = |pid: &str| std::fs::read_link(format!("/proc/{pid}/ns/{namespace}")).unwrap();
        assert_ne!(of(&pid.to_string()), of("self"), "{namespace} namespace");
    }
}

#[test]
fn lo_is_up_and_the_hosts_network_can_be_shared() {
    let world = World::new();
    let serve = "import socket; s = socket.create_server(('127.0.0.1', 7)); \
                 c = socket.create_connection(('127.0.0.1', 7)); print('connected', flush=True)";
    world.ok(&["run", "own", "--", "python3", "-c", serve]);
    world.wait_for_log("own", "connected");
    world.ok(&["run", "shared", "--host-net", "--", "sleep", "1000"]);
    let of = |pid: &str| std::fs::read_link(format!("/proc/{pid}/ns/net")).unwrap();
    assert_eq!(of(&world.record("shared").init.unwrap().pid.to_string()), of("self"));
}

#[test]
fn a_root_of_its_own() {
    let world = World::new();
    let root = world.dir.path().join("root");
    for dir in ["proc", "dev", "etc", "host"] {
        std::fs::create_dir_all(root.join(dir)).unwrap();
    }
    std::fs::write(root.join("etc/mark"), "inside\n").unwrap();
    // The host's programs, without copying them.
    for dir in ["usr", "bin", "lib", "lib64"] {
        let target = std::fs::canonicalize(format!("/{dir}")).unwrap();
        if target != std::path::Path::new("/usr") {
            std::os::unix::fs::symlink(target, root.join(dir)).unwrap();
        }
    }
    std::fs::create_dir_all(root.join("usr")).unwrap();
    let bind = std::process::Command::new("mount").args(["--bind", "/usr"]).arg(root.join("usr")).status().unwrap();
    assert!(bind.success());
    struct Unmount(std::path::PathBuf);
    impl Drop for Unmount {
        fn drop(&mut self) {
            let done = std::process::Command::new("umount").arg(&self.0).status().unwrap();
            assert!(done.success());
        }
    }
    let mounted = Unmount(root.join("usr"));
    let report = "cat /etc/mark; ls -d /host; ls -d /work /root 2>&1 | grep -c cannot; \
                  test -c /dev/null && echo devices; test -d /proc/1 && echo proc; pwd; \
                  grep -c . /proc/self/mountinfo >/dev/null; echo end; exec sleep 1000";
    world.ok(&["run", "v", "--root", root.to_str().unwrap(), "--", "/bin/sh", "-c", report]);
    let log = world.wait_for_log("v", "end\n");
    for expected in ["inside\n", "/host\n", "devices\n", "proc\n", "\n/\n"] {
        assert!(log.contains(expected), "{expected:?} is not in {log:?}");
    }
    // The command is searched below the root.
    std::fs::write(root.join("etc/tool"), "#!/nonexistent\n").unwrap();
    world.refused(
        126,
        &["/etc/tool", "permission"],
        &["run", "w", "--root", root.to_str().unwrap(), "--", "/etc/tool"],
    );
    world.refused(127, &["/etc/none"], &["run", "w", "--root", root.to_str().unwrap(), "--", "/etc/none"]);
    world.ok(&["kill", "v"]);
    drop(mounted);
}

#[test]
fn a_command_that_cannot_be_executed_leaves_nothing() {
    let world = World::new();
    let script = world.dir.path().join("script");
    let mut file = std::fs::File::create(&script).unwrap();
    file.write_all(b"#!/nonexistent/interpreter\n").unwrap();
    drop(file);
    let script = script.to_str().unwrap();
    world.refused(126, &[script, "permission denied"], &["run", "v", "--", script]);
    assert!(std::process::Command::new("chmod").args(["+x", script]).status().unwrap().success());
    // Found, and refused by exec only: the container had been made by then.
    world.refused(127, &[script, "No such file"], &["run", "v", "--", script]);
    std::fs::write(script, [0x7f, b'E', b'L', b'F', 0, 0]).unwrap();
    world.refused(126, &[script, "Exec format error"], &["run", "v", "--", script]);
    world.refused(127, &["nosuch"], &["run", "v", "--", "nosuch"]);
    world.refused(2, &["name \".x\""], &["run", ".x", "--", "true"]);
    world.refused(1, &["--root /nonexistent"], &["run", "v", "--root", "/nonexistent", "--", "true"]);
    let left: Vec<_> = std::fs::read_dir(world.run_dir())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| !name.starts_with("generation"))
        .collect();
    assert_eq!(left, Vec::<String>::new());
    let registry = world.run_dir().to_str().unwrap().replace(|c: char| !c.is_ascii_alphanumeric(), "-");
    world.ok(&["run", "v", "--", "true"]);
    let parent = world.record("v").cgroup.parent().unwrap().to_owned();
    assert_eq!(parent.file_name().unwrap().to_str().unwrap(), format!("crfs{registry}"));
    let cgroups = std::fs::read_dir(&parent).unwrap().filter(|entry| entry.as_ref().unwrap().path().is_dir()).count();
    assert_eq!(cgroups, 1);
}

#[test]
fn logs_are_followed_to_the_end() {
    let world = World::new();
    world.ok(&["run", "v", "--", "sh", "-c", "echo one; sleep 0.5; echo two >&2; sleep 0.2; echo three"]);
    assert_eq!(world.ok(&["logs", "-f", "v"]), "one\ntwo\nthree\n");
    until("its end", || (world.state("v") == "exited").then_some(()));
}
