//! What victims and end-to-end tests share.
//!
//! - [`compare`]: two images record by record.
//! - [`victim`]: the frame of the small self-checking programs in `src/bin`.
//! - [`world`]: a place of its own for a test: run directory, mount, server, containers, and the cleaning up.

pub mod compare;
pub mod victim;
pub mod world;
