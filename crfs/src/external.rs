//! What a user declares to be outside of a container for good: a connection to it is no obstacle, and a restore connects anew.

use crate::failure::{Failure, Kind};
use image_format::Bytes;
use serde::{Deserialize, Serialize};
use std::str::FromStr;

/// What is outside.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum External {
    /// A Unix socket, written `unix:PATH` or `unix:@NAME`: the absolute path that it is bound to, as getpeername(2) tells, or its name in
    /// the abstract name space.
    Unix(Bytes),
    /// Whatever the first process's standard streams are joined to, written `stdio`: a restore joins outputs to the log, and gives no input.
    Stdio,
}

impl External {
    /// Whether this is the path that a socket is bound to, or `@` and its abstract name.
    #[must_use]
    pub fn is_at(&self, name: &[u8]) -> bool {
        matches!(self, External::Unix(path) if path.0 == name)
    }
}

impl FromStr for External {
    type Err = Failure;

    /// # Errors
    /// [`Kind::BadName`] for anything but `stdio`, or `unix:` and an absolute path, or `@` and a name.
    fn from_str(text: &str) -> Result<Self, Failure> {
        if text == "stdio" {
            return Ok(External::Stdio);
        }
        let is_name = |name: &&str| name.starts_with('/') || name.starts_with('@') && name.len() > 1;
        match text.strip_prefix("unix:").filter(is_name) {
            Some(name) => Ok(External::Unix(name.into())),
            None => {
                let reason =
                    format!("{text:?} is not `stdio`, or `unix:` and an absolute path, or `@` and an abstract name");
                Err(Failure::new(Kind::BadName, reason))
            }
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn only_absolute_paths_and_abstract_names() {
        assert!("unix:@bus".parse::<External>().unwrap().is_at(b"@bus"));
        assert!("unix:/dev/log".parse::<External>().unwrap().is_at(b"/dev/log"));
        assert_eq!("stdio".parse::<External>().unwrap(), External::Stdio);
        for bad in ["/dev/log", "unix:", "unix:@", "unix:dev/log", "tcp:/dev/log"] {
            assert_eq!(bad.parse::<External>().unwrap_err().kind, Kind::BadName, "{bad}");
        }
    }
}
