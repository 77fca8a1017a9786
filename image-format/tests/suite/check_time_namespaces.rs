//! The checks of time namespaces below the container's own, each against the golden image with one of them, and with exactly that wrong in it.

use crate::golden;
use image_format::namespaces::{NamespaceContent, UnsharedNamespace};
use image_format::time_namespaces::TimeNamespace;
use image_format::{Image, Pid, Timespec, check};

/// A line about 12290, which is a child of 1.
fn line(monotonic: i64, processes: &[u32], for_children_of: &[u32]) -> UnsharedNamespace {
    let pids = |ids: &[u32]| ids.iter().copied().map(Pid).collect();
    UnsharedNamespace {
        content: NamespaceContent::Time(TimeNamespace {
            monotonic: Timespec { sec: monotonic, nsec: 0 },
            boottime: Timespec::default(),
            for_children_of: pids(for_children_of),
        }),
        processes: pids(processes),
        user: None,
    }
}

fn told(lines: &[UnsharedNamespace], edit: impl FnOnce(&mut Image)) -> Vec<String> {
    let mut image = golden::image();
    image.namespaces.extend(lines.iter().cloned());
    edit(&mut image);
    image.manifest.paths = image.paths();
    check::image(&image, &golden::sizes(&image)).iter().map(ToString::to_string).collect()
}

fn is_told(lines: &[UnsharedNamespace], expected: &str) {
    let told = told(lines, |_| {});
    assert!(told.iter().any(|problem| problem == expected), "{expected:?} is not among {told:#?}");
}

#[test]
fn sound_ones_are_accepted() {
    let none: [String; 0] = [];
    assert_eq!(told(&[line(7, &[12290], &[1])], |_| {}), none);
    assert_eq!(told(&[line(7, &[12290], &[])], |_| {}), none);
    assert_eq!(told(&[line(7, &[], &[1]), line(0, &[], &[12290])], |_| {}), none);
}

#[test]
fn clocks_are_such_as_the_kernel_sets() {
    let expected = "namespaces: line 2: monotonic: with that of manifest (clocks) it is negative or out of range";
    is_told(&[line(i64::MIN / 2, &[12290], &[])], expected);
    is_told(&[line(4_611_686_018, &[12290], &[])], expected);
}

#[test]
fn whose_children_are_born_there() {
    is_told(&[line(7, &[], &[7])], "namespaces: line 2: for_children_of: 7 is no process of the image");
    is_told(&[line(7, &[12290], &[12290])], "namespaces: line 2: for_children_of: 12290 is in it");
    is_told(
        &[line(7, &[], &[1, 1])],
        "namespaces: line 2: for_children_of: 1 is said to have its children in another too",
    );
    is_told(&[line(7, &[], &[])], "namespaces: line 2: processes: nobody is in it");
}

#[test]
fn who_can_be_given_its_clocks() {
    is_told(
        &[line(7, &[], &[1, 12290])],
        "0x00003002/process: pid: 1 has the same time namespace (namespaces) for its children",
    );
    let shared = told(&[line(7, &[12290], &[])], |image| {
        let process = image.processes.get_mut(&Pid(12290)).expect("it is there");
        process.process.shares.memory = Some(Pid(1));
    });
    let expected = "0x00003002/process: shares: memory: 1 is in another time namespace (namespaces), or has another for its children";
    assert!(shared.iter().any(|problem| problem == expected), "{shared:#?}");
    let owned = told(&[line(7, &[], &[1])], |image| image.namespaces[1].user = Some(1));
    let expected =
        "0x00000001/process: pid: the time namespace for its children (namespaces) belongs to a user namespace";
    assert!(owned.iter().any(|problem| problem == expected), "{owned:#?}");
}
