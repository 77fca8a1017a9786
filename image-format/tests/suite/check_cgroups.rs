//! The checks of cgroups, each against the golden image with exactly that wrong.

use crate::check::each_is_told;
use image_format::{Octal, Pid};

#[test]
fn the_tree() {
    each_is_told(&[
        (
            |i| i.cgroups[0].path = "top".into(),
            "cgroups: line 1: path: \"top\" stands where the container's own cgroup, \".\", neither threaded nor frozen by itself, belongs",
        ),
        (
            |i| i.cgroups[0].frozen = true,
            "cgroups: line 1: path: \".\" stands where the container's own cgroup, \".\", neither threaded nor frozen by itself, belongs",
        ),
        (
            |i| i.cgroups[2].path = "jobs/../x".into(),
            "cgroups: line 3: path: \"jobs/../x\" does not lead straight down from the container's own",
        ),
        (|i| i.cgroups[2].path = "jobs".into(), "cgroups: line 3: path: \"jobs\" is there already"),
        (|i| i.cgroups[2].path = "a/b".into(), "cgroups: line 3: path: \"a/b\" has no cgroup before it to be in"),
        (|i| i.cgroups[1].mode = Octal(0o10_000), "cgroups: line 2: mode 010000: permissions are twelve bits"),
        (
            |i| i.cgroups[0].delegated[0].mode = Octal(0o10_000),
            "cgroups: line 1: mode 010000: permissions are twelve bits",
        ),
    ]);
}

#[test]
fn settings() {
    each_is_told(&[
        (
            |i| i.cgroups[0].controllers[0] = "+pids".into(),
            "cgroups: line 1: controllers: \"+pids\" is no name of a controller",
        ),
        (
            |i| i.cgroups[0].delegated[0].file = "../cgroup.procs".into(),
            "cgroups: line 1: \"../cgroup.procs\" is no name of a file in a cgroup",
        ),
        (
            |i| i.cgroups[1].settings[1].file = "pids/max".into(),
            "cgroups: line 2: \"pids/max\" is no name of a file in a cgroup",
        ),
        (
            |i| i.cgroups[1].settings[1].file = "memory.pressure".into(),
            "cgroups: line 2: settings: memory.pressure is no setting",
        ),
        (
            |i| i.cgroups[1].settings[1].file = "cgroup.procs".into(),
            "cgroups: line 2: settings: cgroup.procs is no setting",
        ),
        (
            |i| i.cgroups[1].settings[1].value = "1".repeat(4096),
            "cgroups: line 2: settings: pids.max: a line is longer than 4095 bytes, or has a NUL",
        ),
    ]);
}

#[test]
fn members() {
    each_is_told(&[
        (|i| i.cgroups[1].processes = vec![Pid(7)], "cgroups: line 2: processes: 7 is no process of the image"),
        (|i| i.cgroups[2].processes = vec![Pid(12290)], "cgroups: line 3: processes: 12290 lies in another too"),
        (
            |i| i.cgroups[2].threads = vec![Pid(12290)],
            "cgroups: line 3: threads: 12290 is no thread of the image beside the first ones, or lies in another too",
        ),
        (
            |i| i.cgroups[1].threads = vec![Pid(12291)],
            "cgroups: line 3: threads: 12291 is no thread of the image beside the first ones, or lies in another too",
        ),
    ]);
}
