use super::*;
use crate::feature::Disabled;

fn healthy(state: &KernelState) -> Vec<Feature> {
    state.features().filter(|(_, status)| **status == Status::On).map(|(feature, _)| feature).collect()
}

#[test]
fn everything_can_be_proven_on_a_kernel_we_know() {
    let mut state = KernelState::open(None).unwrap();
    assert!(!state.is_calibrated());
    state.calibrate().unwrap();
    assert!(state.is_calibrated());
    let off: Vec<_> = Feature::ALL.iter().filter_map(|&feature| state.feature(feature).err()).collect();
    assert_eq!(off, Vec::<&Disabled>::new());
    // What the kernel was built without is the only thing that may be missing.
    let absent: Vec<_> = state.features().filter(|(_, status)| matches!(status, Status::Absent { .. })).collect();
    assert!(absent.len() <= 2, "{absent:?}");
}

#[test]
fn a_wrong_offset_is_found_in_every_feature_and_in_no_other() {
    let mut state = KernelState::open(None).unwrap();
    state.calibrate().unwrap();
    let healthy = healthy(&state);
    for &feature in &healthy {
        state.fault = Some(feature);
        state.calibrate().unwrap();
        let off: Vec<_> = healthy.iter().copied().filter(|&feature| state.feature(feature).is_err()).collect();
        let why: Vec<_> = off.iter().filter_map(|&feature| state.feature(feature).err()).collect();
        let expected = if feature == Feature::Tracees { healthy.clone() } else { vec![feature] };
        assert_eq!(off, expected, "with wrong offsets for {feature}: {why:?}");
        let why = state.feature(feature).unwrap_err();
        assert_eq!(why.feature, feature);
        println!("{why}");
    }
    state.fault = None;
    state.calibrate().unwrap();
    assert_eq!(super::tests::healthy(&state), healthy, "calibrating again heals");
}

#[test]
fn calibration_leaves_nothing_behind() {
    let children = || std::fs::read_to_string("/proc/thread-self/children").unwrap();
    let before = children();
    let mut state = KernelState::open(None).unwrap();
    state.calibrate().unwrap();
    assert_eq!(children(), before);
    assert_eq!(state.tracees().unwrap().len(), 0);
}

#[test]
fn nothing_answers_before_calibration() {
    let state = KernelState::open(None).unwrap();
    for &feature in Feature::ALL {
        assert_eq!(state.feature(feature).unwrap_err().why, "not calibrated yet");
    }
    assert!(matches!(state.tracees(), Err(Error::FeatureOff { feature: Feature::Tracees, .. })));
}
