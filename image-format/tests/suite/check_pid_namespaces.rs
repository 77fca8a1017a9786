//! The checks of pid namespaces below the container's, each against the golden image with one of them, and with exactly that wrong in it.

use crate::golden;
use image_format::namespaces::{NamespaceContent, UnsharedNamespace};
use image_format::pid_namespaces::PidNamespace;
use image_format::process::{JobControl, Stopped};
use image_format::signal::Signal;
use image_format::{Image, Pid, check};

/// In the golden image 12290, with the thread 12291, is a child of 1, which has the zombie 5.
const SOUND: &[(u32, u32)] = &[(12290, 1), (12291, 2)];

fn line(ids: &[(u32, u32)], processes: &[u32], for_children_of: &[u32]) -> UnsharedNamespace {
    UnsharedNamespace {
        content: NamespaceContent::Pid(PidNamespace {
            ids: ids.iter().map(|&(id, inner)| (Pid(id), Pid(inner))).collect(),
            for_children_of: for_children_of.iter().copied().map(Pid).collect(),
            shown_by: Vec::new(),
        }),
        processes: processes.iter().copied().map(Pid).collect(),
        user: None,
    }
}

fn with(image: &mut Image, lines: &[UnsharedNamespace]) {
    image.namespaces.extend(lines.iter().cloned());
}

fn told(edit: fn(&mut Image)) -> Vec<String> {
    let mut image = golden::image();
    edit(&mut image);
    image.manifest.paths = image.paths();
    check::image(&image, &golden::sizes(&image)).iter().map(ToString::to_string).collect()
}

type Mistake<'a> = (fn(&mut Image), &'a str);

/// Each is told in these words, perhaps in others too: where one id is wrong, what it is the id of is in the wrong place.
fn each_is_told(mistakes: &[Mistake<'_>]) {
    for (edit, expected) in mistakes {
        let told = told(*edit);
        assert!(told.iter().any(|problem| problem == expected), "{expected:?} is not among {told:#?}");
    }
}

#[test]
fn sound_ones_are_accepted() {
    let none: [String; 0] = [];
    assert_eq!(told(|i| with(i, &[line(SOUND, &[12290], &[1]), line(&[], &[], &[12290])])), none);
    // Of single threads, together and each.
    assert_eq!(told(|i| with(i, &[line(SOUND, &[12290], &[1]), line(&[], &[], &[12290, 12291])])), none);
    assert_eq!(told(|i| with(i, &[line(&[], &[], &[12290]), line(&[], &[], &[12291])])), none);
    // Of a zombie alone.
    assert_eq!(told(|i| with(i, &[line(&[(5, 1)], &[], &[1])])), none);
}

#[test]
fn ids() {
    each_is_told(&[
        (
            |i| with(i, &[line(&[(7, 3), (12290, 1), (12291, 2)], &[12290], &[])]),
            "namespaces: line 2: ids: 7 is the id of nothing in the image",
        ),
        (
            |i| with(i, &[line(&[(12290, 1), (12291, 0)], &[12290], &[])]),
            "namespaces: line 2: ids: 0 for 12291: ids are 1 to 4194303",
        ),
        (
            |i| with(i, &[line(&[(12290, 1), (12291, 1)], &[12290], &[])]),
            "namespaces: line 2: ids: 1 for 12291, which 12290 has",
        ),
        (
            |i| with(i, &[line(&[(12290, 2), (12291, 3)], &[12290], &[])]),
            "namespaces: line 2: ids: no process has 1 in it",
        ),
        (
            |i| with(i, &[line(SOUND, &[], &[])]),
            "namespaces: line 2: processes: 12290 is missing, which has an id in it",
        ),
        (
            |i| with(i, &[line(&[(5, 1)], &[12290], &[])]),
            "namespaces: line 2: processes: 12290 has no id in it, or one in another inside of it",
        ),
    ]);
}

#[test]
fn threads_are_where_their_processes_are() {
    each_is_told(&[(
        |i| with(i, &[line(&[(12290, 1)], &[12290], &[])]),
        "0x00003002/process: pid: its thread 12291 is in another pid namespace (namespaces)",
    )]);
}

#[test]
fn children_are_not_further_out_than_their_parents() {
    each_is_told(&[(
        |i| {
            i.processes.get_mut(&Pid(1)).expect("1").process.parent = Pid(12290);
            with(i, &[line(SOUND, &[12290], &[])]);
        },
        "0x00000001/process: parent: 12290 is in a pid namespace (namespaces) that 1 is not in",
    )]);
}

#[test]
fn one_lies_in_another_or_outside_of_it() {
    each_is_told(&[(
        |i| with(i, &[line(SOUND, &[12290], &[]), line(&[(5, 1), (12291, 2)], &[], &[])]),
        "namespaces: line 3: ids: some of them are in an earlier pid namespace, others are not",
    )]);
}

#[test]
fn whose_children_are_born_there() {
    each_is_told(&[
        (
            |i| with(i, &[line(SOUND, &[12290], &[7])]),
            "namespaces: line 2: for_children_of: 7 is no thread of the image",
        ),
        (
            |i| with(i, &[line(SOUND, &[12290], &[12290])]),
            "namespaces: line 2: for_children_of: 12290 is in no pid namespace above it",
        ),
        (
            |i| with(i, &[line(SOUND, &[12290], &[1]), line(&[], &[], &[1])]),
            "namespaces: line 3: for_children_of: 1 is said to have its children in another too",
        ),
        (|i| with(i, &[line(&[], &[], &[1, 1])]), "namespaces: line 2: for_children_of: a thread is listed twice"),
        (
            |i| with(i, &[line(SOUND, &[12290], &[]), line(&[], &[], &[1, 12291])]),
            "namespaces: line 3: for_children_of: nobody has an id in it, so it is that of the children of threads in one pid namespace",
        ),
        (
            |i| with(i, &[line(&[], &[], &[])]),
            "namespaces: line 2: for_children_of: nobody has an id in it, so it is that of the children of threads in one pid namespace",
        ),
    ]);
}

#[test]
fn first_processes() {
    each_is_told(&[
        (
            |i| {
                with(i, &[line(&[(5, 1)], &[], &[])]);
                let init = i.processes.get_mut(&Pid(1)).expect("1");
                init.threads.get_mut(&Pid(1)).expect("its thread").zombies[0].status = 11;
            },
            "namespaces: line 2: ids: 5 is its process 1 and ended by a signal that nobody can send it",
        ),
        (
            |i| {
                with(i, &[line(SOUND, &[12290], &[])]);
                let stopped = Stopped { signal: Signal(20), told: false };
                i.processes.get_mut(&Pid(12290)).expect("12290").process.job_control = JobControl::Stopped(stopped);
            },
            "0x00003002/process: job_control: SIGTSTP does not stop the first process of a pid namespace",
        ),
    ]);
}

/// The sound line, shown by some lines of `mounts`.
fn shown(ids: &[(u32, u32)], processes: &[u32], shown_by: &[u32]) -> UnsharedNamespace {
    let mut line = line(ids, processes, if ids.is_empty() { &[1] } else { &[] });
    if let NamespaceContent::Pid(pids) = &mut line.content {
        pids.shown_by = shown_by.to_vec();
    }
    line
}

#[test]
fn what_shows_one_is_a_new_proc() {
    each_is_told(&[
        (
            |i| with(i, &[shown(SOUND, &[12290], &[77])]),
            "namespaces: line 2: shown_by: line 77 of mounts is no new /proc",
        ),
        (
            |i| with(i, &[shown(&[], &[], &[77])]),
            "namespaces: line 2: shown_by: nobody has an id in it, or it lies in another pid namespace below the container's",
        ),
        (
            |i| with(i, &[shown(SOUND, &[12290], &[77, 77])]),
            "namespaces: line 2: shown_by: line 77 of mounts is listed twice",
        ),
    ]);
}

#[test]
fn one_in_another_belongs_to_who_is_in_whom_that_belongs_to() {
    each_is_told(&[(
        |i| {
            with(i, &[line(SOUND, &[], &[]), line(SOUND, &[12290], &[])]);
            i.namespaces[1].user = Some(1);
        },
        "namespaces: line 3: user: the one that it lies in belongs to a user namespace that this one is not in",
    )]);
}
