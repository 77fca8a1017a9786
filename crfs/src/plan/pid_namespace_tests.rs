//! Plans of trees with pid namespaces below the container's.

use super::tests::{image, simulate};
use super::*;
use image_format::namespaces::{NamespaceContent, UnsharedNamespace};
use image_format::pid_namespaces::PidNamespace;

fn namespace(ids: &[(u32, u32)], processes: &[u32], for_children_of: &[u32]) -> UnsharedNamespace {
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

fn ids(plan: &Plan, pid: u32) -> Vec<u32> {
    plan.births[&Pid(pid)].ids.iter().map(|id| id.0).collect()
}

#[test]
fn tasks_have_an_id_in_each() {
    let mut tree = image(&[(1, 0, 1, 1), (5, 1, 1, 1), (6, 5, 1, 1), (7, 6, 7, 7), (8, 6, 1, 1), (9, 7, 7, 7)]);
    tree.namespaces = vec![
        namespace(&[(6, 1), (7, 2), (8, 3), (9, 5)], &[6, 7, 8], &[5]),
        namespace(&[(9, 1)], &[9], &[7]),
        namespace(&[], &[], &[8]),
    ];
    simulate(&tree);
    let plan = compute(&tree, &Home::Own).expect("a plan");
    assert_eq!([5, 7, 9].map(|pid| ids(&plan, pid)), [vec![5], vec![2, 7], vec![1, 5, 9]]);
    let joins = plan.steps.iter().filter(|step| step.action == Action::Namespaces);
    assert_eq!(joins.map(|step| step.process.0).collect::<BTreeSet<_>>(), BTreeSet::from([5, 7, 8]));
    // The first process's group is none that they could name.
    assert!([6, 8].iter().all(|pid| plan.births[&Pid(*pid)].born_into_group));
}

#[test]
fn who_joined_one_is_born_there_when_it_is_there() {
    let mut tree = image(&[(1, 0, 1, 1), (4, 1, 1, 1), (5, 1, 1, 1), (6, 4, 1, 1), (7, 5, 1, 1)]);
    tree.namespaces = vec![namespace(&[(6, 2), (7, 1)], &[6, 7], &[])];
    simulate(&tree);
    let plan = compute(&tree, &Home::Own).expect("a plan");
    let at = |pid| plan.steps.iter().position(|step| *step == Step { action: Action::Spawn, process: Pid(pid) });
    assert!(at(7) < at(6));
}

#[test]
fn dead_leaders_have_their_ids_inside() {
    // Of a session, and of a group.
    let mut tree = image(&[(1, 0, 1, 1), (6, 1, 1, 1), (8, 6, 7, 7), (9, 6, 5, 1)]);
    tree.namespaces = vec![namespace(&[(5, 9), (6, 1), (7, 2), (8, 3), (9, 4)], &[6, 8, 9], &[1])];
    simulate(&tree);
    let plan = compute(&tree, &Home::Own).expect("a plan");
    assert_eq!([5, 7].map(|pid| ids(&plan, pid)), [vec![9, 5], vec![2, 7]]);
}

#[test]
fn a_helper_has_one_id_that_is_free_in_each() {
    // 8's parent was in the session of 7, which lives.
    let mut tree = image(&[(1, 0, 1, 1), (6, 1, 1, 1), (7, 9, 7, 7), (8, 6, 7, 7), (9, 6, 1, 1)]);
    tree.namespaces = vec![namespace(&[(6, 1), (7, 2), (8, 3), (9, 4)], &[6, 7, 8, 9], &[])];
    let plan = compute(&tree, &Home::Own).expect("a plan");
    let helper = plan.births.values().find(|birth| matches!(birth.role, Role::Helper { .. })).expect("a helper");
    assert_eq!((helper.pid, helper.ids.as_slice()), (Pid(5), [Pid(5), Pid(5)].as_slice()));
}

#[test]
fn a_group_that_its_parent_has_left_is_set_from_outside() {
    let mut tree = image(&[(1, 0, 1, 1), (5, 1, 5, 1), (6, 5, 4, 1), (4, 1, 4, 1)]);
    tree.namespaces = vec![namespace(&[(6, 1)], &[6], &[])];
    simulate(&tree);
    assert!(compute(&tree, &Home::Own).expect("a plan").births[&Pid(6)].group_by_creator);
}

#[test]
fn what_no_clone_can_make_is_told() {
    let refused = |tree: &Image| compute(tree, &Home::Own).expect_err("no plan").to_string();
    // Only somebody in the group, or outside, could put it there.
    let mut tree = image(&[(1, 0, 1, 1), (6, 1, 6, 1), (7, 6, 1, 1)]);
    tree.namespaces = vec![namespace(&[(6, 1), (7, 2)], &[6, 7], &[])];
    let why = "group: 1 lies outside its pid namespace, and its parent is not in it";
    assert_eq!(refused(&tree), format!("0x00000007/process: {why}"));
    // The dead leader of its session was outside, and its reaper is inside.
    let mut tree = image(&[(1, 0, 1, 1), (6, 1, 6, 6), (7, 6, 5, 5)]);
    tree.namespaces = vec![namespace(&[(6, 1), (7, 2)], &[6, 7], &[])];
    let why = "parent: process 6, which makes it, is not in a pid namespace around its own";
    assert_eq!(refused(&tree), format!("0x00000005/process: {why}"));
}
