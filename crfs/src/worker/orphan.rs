//! What a worker does when nobody is left to take its report: `crctl` or the server was killed while it worked.

use super::{Job, thaw};
use crate::failure::Failure;
use crate::freezer::Cgroup;
use crate::operation::{KILL_PATIENCE, forget_image};
use crate::registry::{Container, Registry, State};
use std::time::Duration;

/// Undoes what the job did: nobody wrote down that it was done, so a captured container counts as running, and one that was built as
/// failed. Whoever has taken the container's lock since looks after it instead.
pub(super) fn undo(registry: &Registry, job: &Job) {
    let undone = match job {
        Job::Capture { name, .. } => registry.container(name).and_then(|container| thaw_again(registry, &container)),
        Job::Build { name, .. } => registry.container(name).and_then(|container| kill_again(&container)),
        // Looking leaves nothing, and a container that was to run does.
        Job::Survey { .. } | Job::Thaw { .. } => Ok(()),
    };
    if let Err(failure) = undone {
        // Nobody is there to be told, but the server's log may be.
        tracing::warn!("{failure}");
    }
}

fn thaw_again(registry: &Registry, container: &Container) -> Result<(), Failure> {
    let _lock = container.lock(Duration::ZERO)?;
    if container.existing()?.state != State::Running {
        return Ok(());
    }
    let report = thaw::run(registry, container.name());
    forget_image(registry, container)?;
    report.failure.map_or(Ok(()), Err)
}

fn kill_again(container: &Container) -> Result<(), Failure> {
    let _lock = container.lock(Duration::ZERO)?;
    let record = container.existing()?;
    if !matches!(record.state, State::Building | State::Failed) {
        return Ok(());
    }
    let cgroup = Cgroup::at(&record.cgroup);
    if cgroup.exists() {
        cgroup.kill(KILL_PATIENCE)?;
        cgroup.remove(KILL_PATIENCE)?;
    }
    Ok(())
}
