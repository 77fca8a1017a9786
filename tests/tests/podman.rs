//! A container of podman: taken in while it runs, and restored when podman has ended it.

use crfs_tests::world::{Method, PATIENCE, Program, World, python, run, wait_for};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};

/// What podman keeps lies in the world. runc, since crun wants no hierarchy of cgroup v1 beside version 2; a machine's limits may be lower than
/// those that podman gives.
const CONFIGURATION: &str = "
[engine]
runtime = \"runc\"
cgroup_manager = \"cgroupfs\"
events_logger = \"none\"
lock_type = \"file\"
[containers]
default_ulimits = [\"nofile=1024:1024\", \"nproc=1024:1024\"]
log_driver = \"k8s-file\"
";

struct Podman {
    world: World,
}

impl Podman {
    fn new() -> Self {
        let podman = Podman { world: World::new() };
        let root = podman.at("root");
        for name in ["usr", "proc", "dev", "sys", "etc", "run", "tmp"] {
            fs::create_dir_all(root.join(name)).expect("a directory of the root");
        }
        for name in ["bin", "lib", "lib64"] {
            std::os::unix::fs::symlink(format!("usr/{name}"), root.join(name)).expect("a link of the root");
        }
        fs::write(podman.at("containers.conf"), CONFIGURATION).expect("its configuration");
        podman
    }

    fn at(&self, name: &str) -> PathBuf {
        self.world.dir().join(name)
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new("podman");
        command.env("CONTAINERS_CONF", self.at("containers.conf")).stdin(Stdio::null());
        for (option, name) in [("--root", "storage"), ("--runroot", "runroot"), ("--tmpdir", "tmpdir")] {
            command.arg(option).arg(self.at(name));
        }
        command.args(arguments);
        command
    }

    #[track_caller]
    fn must(&self, arguments: &[&str]) -> String {
        run(&mut self.command(arguments), PATIENCE).expect_success().stdout
    }

    /// A program in an overlay that podman mounts over the root directory.
    fn start(&self, options: &[&str], program: &Program) -> String {
        let shown = |path: PathBuf| format!("{0}:{0}", path.display());
        let (out, bin) = (shown(self.world.out()), shown(self.at("bin")));
        let root = format!("{}:O", self.at("root").display());
        let volumes = ["-v", "/usr:/usr:ro", "-v", &out, "-v", &bin, "--rootfs", &root];
        let command: Vec<&str> = program.command.iter().map(String::as_str).collect();
        self.must(&[&["run", "-d", "--name", "vs1"], options, &volumes, &command].concat());
        assert!(wait_for(PATIENCE, || program.progress() > 0), "it does not start");
        self.must(&["inspect", "-f", "{{.State.Pid}}", "vs1"]).trim().to_owned()
    }
}

impl Drop for Podman {
    fn drop(&mut self) {
        let _ = self.command(&["rm", "--all", "--force"]).stdout(Stdio::null()).stderr(Stdio::null()).status();
        let _ = Command::new("umount").arg(self.at("storage/overlay")).stderr(Stdio::null()).status();
    }
}

#[test]
fn one_of_podman_comes_back() {
    let ways: [&[&str]; 3] =
        [&["--network=none"], &["--network=none", "--tty"], &["--network=host", "--ipc=host", "--uts=host"]];
    for options in ways {
        let podman = Podman::new();
        let world = &podman.world;
        let program = Program::script(world, python(), "counter.py", &[]);
        let pid = podman.start(options, &program);
        world.crctl(["add", "vs1", "--pid", &pid]).expect_success();
        // podman holds the other ends of its streams.
        world.crctl(["freeze", "vs1"]).expect_refusal(&["--external stdio"]);
        world.crctl(["freeze", "vs1", "--external", "stdio"]).expect_success();
        let copy = world.copy_out("vs1", Method::Cp);
        podman.must(&["kill", "vs1"]);
        assert!(
            wait_for(PATIENCE, || podman.must(&["ps", "--quiet"]).trim().is_empty()),
            "podman does not see that it has ended"
        );
        world.must("rm", "vs1");
        world.restore(&copy, "vs1", Method::Cp);
        world.thaw("vs1");
        program.goes_on(2);
        let look = ["exec", "vs1", "--", "stat", "--format", "%d", "/dev", "/dev/shm"];
        let found = world.crctl(look).expect_success().stdout;
        let devices: Vec<u64> = found.lines().map(|line| line.parse().expect("a device")).collect();
        assert_ne!(devices[0], devices[1], "nothing is mounted on /dev/shm: {options:?}");
        let is_hosts = devices[1] == fs::metadata("/dev/shm").expect("the host's").dev();
        assert_eq!(is_hosts, options.contains(&"--ipc=host"), "{options:?}");
        program.passes();
    }
}
