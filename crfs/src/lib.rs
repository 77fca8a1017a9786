//! Checkpoints as files: the library behind the server `crfs` and the control tool `crctl`.
//!
//! From the outside in: [`operation`] is what a user asks for (freeze, thaw, kill, restore); it works on the
//! [`registry`], where containers stand between operations, and starts a [`worker`] for whatever touches tasks. Workers
//! use [`resource`] (one module per kernel object) and [`plan`] (a restore as pure data). [`tree`] shows a container as
//! files, and [`fuse`] mounts that tree.

pub mod adopt;
pub mod captured;
pub mod console;
pub mod copy;
pub mod external;
pub mod failure;
pub mod freezer;
pub mod fuse;
pub mod launch;
mod mountinfo;
pub mod operation;
pub mod plan;
pub mod registry;
pub mod resource;
pub mod transport;
pub mod tree;
pub mod worker;
