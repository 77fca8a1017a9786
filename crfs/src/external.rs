//! What a user declares to be outside of a container for good: a connection to it is no obstacle, and a restore connects anew.

use crate::failure::{Failure, Kind};
use image_format::Bytes;
use serde::{Deserialize, Serialize};
use std::str::FromStr;

/// A Unix socket outside of the container, written `unix:PATH`: the absolute path that it is bound to, as getpeername(2) tells.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct External(Bytes);

impl External {
    /// Whether this is the path that a socket is bound to.
    #[must_use]
    pub fn is_at(&self, path: &[u8]) -> bool {
        self.0.0 == path
    }
}

impl FromStr for External {
    type Err = Failure;

    /// # Errors
    /// [`Kind::BadName`] for anything but `unix:` and an absolute path.
    fn from_str(text: &str) -> Result<Self, Failure> {
        match text.strip_prefix("unix:").filter(|path| path.starts_with('/')) {
            Some(path) => Ok(External(path.into())),
            None => Err(Failure::new(Kind::BadName, format!("{text:?} is not `unix:` and an absolute path"))),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn only_absolute_paths() {
        assert!("unix:/dev/log".parse::<External>().unwrap().is_at(b"/dev/log"));
        for bad in ["/dev/log", "unix:", "unix:dev/log", "tcp:/dev/log"] {
            assert_eq!(bad.parse::<External>().unwrap_err().kind, Kind::BadName, "{bad}");
        }
    }
}
