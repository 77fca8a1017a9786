//! Security state that a task cannot be asked for: its keyrings, and whether Landlock confines it.
//!
//! Source: include/linux/cred.h, include/linux/key.h, security/landlock/cred.h, v6.18; keyrings(7), landlock(7).

use crate::error::Error;
use crate::feature::Feature;
use crate::paths::Path;
use crate::state::KernelState;
use crate::tasks::{Task, word};

/// Bytes of a security blob that are looked at for a Landlock domain: more than all modules together keep there before it.
const BLOB: usize = 64;

/// A keyring.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Keyring {
    /// Where it lies: tasks that share it have the same.
    pub address: u64,
    /// How many keys and keyrings are linked to it.
    pub keys: u64,
}

/// The keyrings of a task; None for one that it has not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Keyrings {
    /// KEY_SPEC_THREAD_KEYRING.
    pub thread: Option<Keyring>,
    /// KEY_SPEC_PROCESS_KEYRING.
    pub process: Option<Keyring>,
    /// KEY_SPEC_SESSION_KEYRING.
    pub session: Option<Keyring>,
}

impl KernelState {
    /// The task's keyrings.
    ///
    /// # Errors
    /// [`Error::FeatureOff`], [`Error::Gone`], [`Error::Read`].
    pub fn keyrings(&self, task: &Task) -> Result<Keyrings, Error> {
        if self.absent(Feature::Keyrings) {
            return Ok(Keyrings::default());
        }
        let view = self.view(Feature::Keyrings, task)?;
        let keyring = |which| -> Result<_, Error> {
            let address = view.u64(&[Path::TaskCred, which])?;
            if address == 0 {
                return Ok(None);
            }
            Ok(Some(Keyring { address, keys: view.u64_from(address, &[Path::KeyringKeys])? }))
        };
        Ok(Keyrings {
            thread: keyring(Path::ThreadKeyring)?,
            process: keyring(Path::ProcessKeyring)?,
            session: keyring(Path::SessionKeyring)?,
        })
    }

    /// The keyrings of the calling thread.
    ///
    /// # Errors
    /// As [`KernelState::keyrings`].
    pub fn own_keyrings(&self) -> Result<Keyrings, Error> {
        self.keyrings(&Task::caller(0))
    }

    /// Whether Landlock confines the task.
    ///
    /// # Errors
    /// [`Error::FeatureOff`], [`Error::Gone`], [`Error::Read`].
    pub fn in_landlock_domain(&self, task: &Task) -> Result<bool, Error> {
        if self.absent(Feature::Landlock) {
            return Ok(false);
        }
        let at = usize::try_from(self.known.bits.landlock_offset).unwrap_or(usize::MAX);
        Ok(word(&self.security_blob(task)?, at) != 0)
    }

    /// The beginning of what security modules keep with the task's credentials.
    pub(crate) fn security_blob(&self, task: &Task) -> Result<[u8; BLOB], Error> {
        let view = self.view(Feature::Landlock, task)?;
        let blob = view.u64(&[Path::TaskCred, Path::CredSecurity])?;
        let mut bytes = [0; BLOB];
        view.bytes_at(blob, Path::CredSecurity, &mut bytes)?;
        Ok(bytes)
    }
}
