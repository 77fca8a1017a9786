//! The exit codes: one table for `--help`, one mapping from failures.

use crfs::failure::{Failure, Kind};
use crfs::launch::RunError;
use image_format::Blocker;
use std::fmt;

/// A freeze that was refused, with all that stands in its way.
#[derive(Debug)]
pub(crate) struct Refused {
    /// The refusal.
    pub(crate) failure: Failure,
    /// The obstacles.
    pub(crate) blockers: Vec<Blocker>,
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.failure.fmt(f)
    }
}

impl std::error::Error for Refused {}

/// A checkpoint that this host cannot restore, with everything that was found.
#[derive(Debug)]
pub(crate) struct Unsound {
    /// Where it stands.
    pub(crate) place: String,
    /// At least one.
    pub(crate) findings: Vec<Failure>,
}

impl fmt::Display for Unsound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: cannot be restored here:", self.place)?;
        self.findings.iter().try_for_each(|finding| write!(f, "\n  {finding}"))
    }
}

impl std::error::Error for Unsound {}

/// Two checkpoints that are not alike, which has been told: exit code 1, as with diff(1).
#[derive(Debug)]
pub(crate) struct Different;

impl fmt::Display for Different {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("they differ")
    }
}

impl std::error::Error for Different {}

/// What `crctl --help` says of them.
pub(crate) const TABLE: &str = "\
Exit codes:
  0    done
  1    the system refused something; the text says what. diff: there are differences
  2    wrong usage, or a name that cannot be a container's
  3    blocked: the container holds what a checkpoint cannot carry; it runs on
  4    no such container
  5    the container's state does not allow it
  6    the name is in use
  7    another operation on the container is under way
  8    not done in time; everything is as before
  9    the image is incomplete, damaged or edited badly
  10   the image is sound, but this machine cannot run it
  11   the container ran behind our back
  12   no space left
  13   this machine lacks something crfs needs
  126  run, exec: the command cannot be executed
  127  run, exec: the command was not found
  130  interrupted (^C, SIGTERM); everything is as before
exec, run -i and attach exit with the status of the command, or 128 and the number of the signal that ended it.";

/// The exit code of an error.
pub(crate) fn code(error: &anyhow::Error) -> u8 {
    match error.downcast_ref::<RunError>() {
        Some(RunError::CommandNotFound(_)) => return 127,
        Some(RunError::NotExecutable(_)) => return 126,
        Some(RunError::Failed(_)) | None => {}
    }
    failure(error).map_or(1, |failure| match failure.kind {
        Kind::System => 1,
        Kind::BadName => 2,
        Kind::Blocked => 3,
        Kind::NotFound => 4,
        Kind::WrongState => 5,
        Kind::Exists => 6,
        Kind::Busy => 7,
        Kind::Deadline => 8,
        Kind::BadImage => 9,
        Kind::Incompatible => 10,
        Kind::Stale => 11,
        Kind::NoSpace => 12,
        Kind::Unsupported => 13,
        Kind::Interrupted => 130,
    })
}

/// The failure inside an error, if an operation failed and not crctl itself.
pub(crate) fn failure(error: &anyhow::Error) -> Option<&Failure> {
    let run = || error.downcast_ref::<RunError>().map(RunError::failure);
    let refused = || error.downcast_ref::<Refused>().map(|refused| &refused.failure);
    // The worst of what was found: damage counts for more than a host that does not fit.
    let unsound = || {
        let findings = &error.downcast_ref::<Unsound>()?.findings;
        findings.iter().find(|finding| finding.kind == Kind::BadImage).or_else(|| findings.first())
    };
    error.downcast_ref::<Failure>().or_else(refused).or_else(run).or_else(unsound)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_is_in_the_table() {
        let kinds = [
            Kind::System,
            Kind::BadName,
            Kind::Blocked,
            Kind::NotFound,
            Kind::WrongState,
            Kind::Exists,
            Kind::Busy,
            Kind::Deadline,
            Kind::BadImage,
            Kind::Incompatible,
            Kind::Stale,
            Kind::NoSpace,
            Kind::Unsupported,
        ];
        let mut codes: Vec<u8> = kinds.iter().map(|&kind| code(&Failure::new(kind, "x").into())).collect();
        codes.push(code(&RunError::NotExecutable(Failure::new(Kind::System, "x")).into()));
        codes.push(code(&RunError::CommandNotFound(Failure::new(Kind::NotFound, "x")).into()));
        codes.push(code(&Failure::new(Kind::Interrupted, "x").into()));
        let listed: Vec<u8> = TABLE
            .lines()
            .filter_map(|line| line.strip_prefix("  ")?.split_whitespace().next()?.parse().ok())
            .filter(|&code| code != 0)
            .collect();
        assert_eq!(codes, listed);
    }
}
