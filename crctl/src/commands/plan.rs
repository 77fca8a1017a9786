//! `crctl plan`.

use crate::output::{print, print_json};
use anyhow::Result;
use crfs::copy::Copy;
use crfs::failure::Doing;
use crfs::plan::{self, Home};
use serde::Serialize;
use std::path::Path;

/// A step for programs.
#[derive(Serialize)]
struct Step {
    process: u32,
    action: String,
}

pub(super) fn plan(directory: &Path, json: bool) -> Result<()> {
    let copy = Copy::load(directory).doing(|| format!("{}", directory.display()))?;
    let plan = plan::compute(&copy.image, &Home::of(&copy.image)).doing(|| format!("{}", directory.display()))?;
    if json {
        let steps = plan.steps.iter();
        let steps = steps.map(|step| Step { process: step.process.0, action: step.action.to_string().to_lowercase() });
        return print_json(&steps.collect::<Vec<_>>());
    }
    print(&plan.to_string())
}
