//! The mount: the tree behind a FUSE mount point, and what a server process is beside that.

mod adapter;
mod monitor;
mod pool;
mod process;
#[cfg(test)]
mod tests;

pub use monitor::Monitor;
pub use process::{MountState, ServerLock, check_machine, check_privilege, mount_state, take_over};

use crate::failure::{Doing, Failure};
use crate::tree::Tree;
use adapter::Adapter;
use fuser::{BackgroundSession, Config, MountOption, Session, SessionACL};
use std::path::Path;
use std::sync::Arc;

/// What `mount` shows as the source: `crfs on /mnt/crfs type fuse`.
pub const FILE_SYSTEM: &str = "crfs";

/// A mounted tree. Dropping it unmounts.
pub struct Mounted {
    session: BackgroundSession,
    tree: Arc<Tree>,
}

/// Mounts a tree and serves it from threads of this process. Others than root may only use it with `allow_other`, and then see
/// what the modes let them.
///
/// # Errors
/// When the mount is refused.
pub fn mount(tree: Tree, mountpoint: &Path, allow_other: bool) -> Result<Mounted, Failure> {
    let tree = Arc::new(tree);
    let mut config = Config::default();
    config.mount_options = vec![
        MountOption::FSName(FILE_SYSTEM.to_owned()),
        // Nothing here is a program, and an image may hold anything.
        MountOption::NoExec,
        MountOption::NoSuid,
        MountOption::NoDev,
        MountOption::DefaultPermissions,
    ];
    config.acl = if allow_other { SessionACL::All } else { SessionACL::Owner };
    let adapter = Adapter::new(Arc::clone(&tree));
    let session = Session::new(adapter, mountpoint, &config).and_then(Session::spawn);
    let session = session.doing(|| format!("{}: mounting", mountpoint.display()))?;
    Ok(Mounted { session, tree })
}

impl Mounted {
    /// Waits until somebody unmounts it.
    ///
    /// # Errors
    /// When the connection with the kernel broke.
    pub fn wait(self) -> Result<(), Failure> {
        let result = self.session.join();
        self.tree.close();
        result.doing(|| "serving the mount")
    }

    /// The tree.
    #[must_use]
    pub fn tree(&self) -> &Arc<Tree> {
        &self.tree
    }
}
