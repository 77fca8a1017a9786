//! The checks of user namespaces below the container's, each against the golden image with one of them, and with exactly that wrong in it.

use crate::golden;
use image_format::files::{FileKind, PseudoFile, PseudoFileSystem};
use image_format::manifest::NamespaceKind;
use image_format::namespaces::{NamespaceContent, UnsharedNamespace};
use image_format::pid_namespaces::PidNamespace;
use image_format::user_namespaces::{IdRange, UserNamespace};
use image_format::{FileId, Image, Pid, ProcessImage, ThreadImage, check};

const fn range(inside: u32, outside: u32, count: u32) -> IdRange {
    IdRange { inside, outside, count }
}

fn member(image: &mut Image) -> &mut ProcessImage {
    image.processes.get_mut(&Pid(12290)).expect("12290")
}

/// In the golden image 12290 has a thread more, with descriptors of its own.
fn told(uid_map: &[IdRange], edit: fn(&mut Image)) -> Vec<String> {
    let mut image = golden::image();
    member(&mut image).threads.remove(&Pid(12291));
    let user =
        UserNamespace { uid_map: uid_map.to_vec(), gid_map: vec![range(0, 1000, 1)], ..UserNamespace::default() };
    let content = NamespaceContent::User(user);
    image.namespaces.push(UnsharedNamespace { content, processes: vec![Pid(12290)], user: None });
    edit(&mut image);
    image.manifest.paths = image.paths();
    check::image(&image, &golden::sizes(&image)).iter().map(ToString::to_string).collect()
}

fn is_told(uid_map: &[IdRange], edit: fn(&mut Image), expected: &str) {
    let told = told(uid_map, edit);
    assert!(told.iter().any(|problem| problem == expected), "{expected:?} is not among {told:#?}");
}

#[test]
fn maps() {
    let is_told = |map: &[IdRange], problem: &str| {
        is_told(map, |_| {}, &format!("namespaces: line 2: uid_map: {problem}"));
    };
    is_told(&[range(0, 1000, 0)], "0 1000 0 is no range of ids");
    is_told(&[range(0, 4_294_967_295, 1)], "0 4294967295 1 is no range of ids");
    is_told(&[range(0, 1000, 5), range(4, 2000, 1)], "two ranges have the id 4");
    is_told(&[range(0, 1000, 5), range(5, 1003, 1)], "two ranges have the id 1003");
    let many: Vec<IdRange> = (0..341).map(|id| range(id, id, 1)).collect();
    is_told(&many, "341 ranges: 340 at most");
    let of_maps = |problem: &String| problem.contains("_map");
    assert!(!told(&[range(0, 1000, 5), range(5, 2000, 1)], |_| {}).iter().any(of_maps), "a sound one is refused");
}

#[test]
fn who_can_join() {
    let map = [range(0, 1000, 1)];
    is_told(
        &map,
        |image| member(image).process.shares.directories = Some(Pid(1)),
        "0x00003002/process: shares.directories: one that is in a user namespace (namespaces) shares none",
    );
}

/// Gives the member a thread more, which is as the first.
fn thread(image: &mut Image) -> &mut ThreadImage {
    // The golden image has one that another user named.
    image.files.get_mut(&FileId(5)).expect("file 5").owner = None;
    let member = member(image);
    let thread = ThreadImage { fds: None, ..member.threads[&Pid(12290)].clone() };
    member.threads.entry(Pid(12291)).or_insert(thread)
}

#[test]
fn which_threads_can_be_born_there() {
    let map = [range(0, 1000, 1)];
    let of_threads = |edit: fn(&mut Image)| -> Vec<String> {
        told(&map, edit).into_iter().filter(|problem| problem.contains("several threads")).collect()
    };
    let none: [String; 0] = [];
    assert_eq!(of_threads(|image| thread(image).fds = None), none);
    let is_told = |edit: fn(&mut Image), what: &str| {
        let expected =
            format!("0x00003002/process: pid: it is in a user namespace (namespaces) with several threads, {what}");
        assert_eq!(of_threads(edit), [expected]);
    };
    let named = "and nobody else has files/0x00000005 open, whose owner was named by another user";
    is_told(
        |image| {
            let owner = image.files[&FileId(5)].owner.clone();
            thread(image);
            image.files.get_mut(&FileId(5)).expect("file 5").owner = owner;
        },
        named,
    );
    is_told(|image| thread(image).fds = Some(Vec::new()), "and 12291 has fds or directories of its own");
    let other = "and uid, gid, groups or login_uid of 12291 are not those of the first";
    is_told(|image| thread(image).attr.credentials.groups.push(77), other);
    is_told(|image| thread(image).attr.login_uid = Some(77), other);
    is_told(
        |image| {
            thread(image);
            let pids = PidNamespace { for_children_of: vec![Pid(12290)], ..PidNamespace::default() };
            let content = NamespaceContent::Pid(pids);
            image.namespaces.push(UnsharedNamespace { content, processes: Vec::new(), user: None });
        },
        "and another pid namespace for its children",
    );
    is_told(
        |image| {
            thread(image);
            let file = image.files.get_mut(&FileId(1)).expect("file 1");
            file.kind = FileKind::Pseudo(PseudoFile {
                file_system: PseudoFileSystem::Proc,
                path: "/proc/12290/task/12291/stat".into(),
                at_end: false,
            });
        },
        "and files/0x00000001 is a file of one of them",
    );
}

#[test]
fn the_first_process_may_be_in_one() {
    let first = |image: &mut Image| image.namespaces.last_mut().expect("it was added").processes = vec![Pid(1)];
    let of_first = |problem: &String| problem.contains("is the first process");
    assert!(!told(&[range(0, 1000, 1)], first).iter().any(of_first));
}

/// Adds one that lies in another, and that nobody is in.
fn nest(image: &mut Image, owner: u32, uid_map: &[IdRange]) {
    let user =
        UserNamespace { owner, uid_map: uid_map.to_vec(), gid_map: vec![range(1000, 1000, 1)], ..Default::default() };
    let content = NamespaceContent::User(user);
    image.namespaces.push(UnsharedNamespace { content, processes: Vec::new(), user: Some(1) });
}

#[test]
fn one_in_another() {
    let map = [range(0, 1000, 1)];
    let sound = |image: &mut Image| {
        nest(image, 1000, &[range(1000, 1000, 1)]);
        image.namespaces[0].user = Some(2);
    };
    let refused = told(&map, sound).into_iter().filter(|problem| problem.starts_with("namespaces"));
    assert_eq!(refused.count(), 0, "a sound one is refused");
    let empty = "namespaces: line 3: processes: nobody is in it";
    is_told(&map, |image| nest(image, 1000, &[]), empty);
    let nobody = "namespaces: line 3: owner: 0 is nobody in the one that it lies in";
    is_told(&map, |image| nest(image, 0, &[]), nobody);
    let elsewhere = "namespaces: line 3: uid_map: 1000 5 1 is in no range of the one that it lies in";
    is_told(&map, |image| nest(image, 1000, &[range(1000, 5, 1)]), elsewhere);
}

#[test]
fn whose_namespaces_are() {
    let map = [range(0, 1000, 1)];
    let unknown = "namespaces: line 1: user: there is no such line of type user";
    is_told(&map, |image| image.namespaces[0].user = Some(2), unknown);
    let later = "namespaces: line 2: user: there is no such earlier line of type user";
    is_told(&map, |image| image.namespaces[1].user = Some(1), later);
    is_told(&map, |image| image.namespaces[1].user = Some(0), later);
}

/// The last one has these of the container's.
fn owns(image: &mut Image, kinds: &[NamespaceKind]) {
    if let Some(NamespaceContent::User(user)) = image.namespaces.last_mut().map(|line| &mut line.content) {
        user.container.extend(kinds);
    }
}

#[test]
fn what_of_the_container_belongs_to_one() {
    use NamespaceKind::{Cgroup, Ipc, Mnt, Net, Pid, Uts};
    let map = [range(0, 0, 1)];
    let of_container = |problem: &String| problem.contains("container: ");
    let sound = |image: &mut Image| {
        image.queues.clear();
        owns(image, &[Cgroup, Ipc, Mnt, Net, Uts]);
    };
    let told = told(&map, sound);
    assert!(!told.iter().any(of_container), "{told:#?}");
    let queues = "namespaces: line 2: container: ipc belongs to it, where the container's root is nobody, and there are message queues (posix.mq)";
    is_told(&map, |image| owns(image, &[Ipc]), queues);
    is_told(&map, |image| owns(image, &[Pid]), "namespaces: line 2: container: pid never belongs to one");
    let shared = |image: &mut Image| {
        image.manifest.container.host_namespaces.insert(Net);
        owns(image, &[Net]);
    };
    is_told(&map, shared, "namespaces: line 2: container: net is shared with the host (manifest)");
    let twice = |image: &mut Image| {
        owns(image, &[Uts]);
        nest(image, 0, &[]);
        owns(image, &[Uts]);
    };
    is_told(&map, twice, "namespaces: line 3: container: uts belongs to another one too");
    let nobody = "namespaces: line 2: container: ipc belongs to it, where the container's root is nobody, and there are message queues (posix.mq)";
    is_told(&[range(0, 1000, 1)], |image| owns(image, &[Ipc]), nobody);
}
