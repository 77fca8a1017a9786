//! What descriptors and mappings lead to alike. Each such object gets one number, whoever is met first.

use super::io_uring::Rings;
use super::unnamed::Unnamed;

/// The objects of a container that were met so far.
#[derive(Debug)]
pub struct Met {
    /// Files that no path leads to.
    pub unnamed: Unnamed,
    /// Rings of io_uring.
    pub rings: Rings,
}

impl Met {
    /// None yet.
    #[must_use]
    pub fn new() -> Self {
        Met { unnamed: Unnamed::new(), rings: Rings::default() }
    }
}

impl Default for Met {
    fn default() -> Self {
        Met::new()
    }
}
