//! The container's own cgroup and those made inside it: limits, owners, and who lies where.
//!
//! **What it is.** A directory of the cgroup v2 hierarchy: it holds processes (or single threads, where it is threaded), cgroups, and
//! a file for every limit that the controllers offered to it know.
//!
//! **Where the kernel keeps it.** `struct cgroup`, and the css_set that a task points to:
//! <https://elixir.bootlin.com/linux/v6.18/source/kernel/cgroup/cgroup.c>.
//!
//! **How it is read.** Every file that can be read and written is a setting, whatever its controller, but for the few that the format
//! names ([`image_format::cgroups::Setting::is_no_setting`]); what says the same in a fresh cgroup is left out. cgroup.threads tells who
//! lies in it.
//!
//! **How it is made again.** The tree first, without limits. The first process is moved to its place as soon as it has its cgroup
//! namespace, whose root is the container's own cgroup; controllers are offered then, since a cgroup with processes offers none, and
//! every other process is moved as it is made: its memory is charged where it lies. Limits come last, so that none is in
//! the way of building.
//!
//! **What is refused.** Nothing. What this host has no controller for is left out, and a note says so.

mod capture;
pub mod restore;

pub use capture::capture;
