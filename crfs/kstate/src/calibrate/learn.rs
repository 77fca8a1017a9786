//! What no type tells and the children show: which bit of a word of flags is which, and where Landlock keeps its domain.

use super::Trouble;
use super::actor::Actor;
use super::scene::{Roles, Scene};
use crate::error::Error;
use crate::flags::LearnedBits;
use crate::state::KernelState;
use crate::tasks::{Task, word};

/// The bits of `thread_info.flags` below come and go with signals and scheduling; those that prctl sets are above
/// (arch/x86/include/asm/thread_info.h).
const RESTLESS_BITS: u64 = 0x7fff;
/// The kernel's half of the address space.
const KERNEL: u64 = 0xffff_8000_0000_0000;

impl KernelState {
    /// Bits of `mm_struct.flags`: PR_SET_MDWE of three children, not inherited by the children of one of them, and huge pages where
    /// advised for two.
    pub(super) fn learn_memory_bits(&mut self, scene: &Scene, roles: &Roles) -> Result<(), Trouble> {
        let Roles { full, bare, poll, poll_forever, futex, .. } = roles;
        let bit = |with: &[&Task], without: &[&Task]| {
            only_bit(with, without, |task| self.memory_flag_words(task).map(|(own, _)| own))
        };
        for actor in [&scene.full, &scene.poll, &scene.futex] {
            actor.outcome("PR_SET_MDWE")?;
        }
        let mdwe = bit(&[full, poll, futex], &[bare, poll_forever])?;
        let mdwe_no_inherit = bit(&[futex], &[full, bare, poll, poll_forever])?;
        // Since Linux 6.18.
        let thp_except_advised = match refused(&[&scene.poll, &scene.poll_forever], "PR_SET_THP_DISABLE") {
            true => 0,
            false => bit(&[poll, poll_forever], &[full, bare, futex])?,
        };
        self.known.bits = LearnedBits { mdwe, mdwe_no_inherit, thp_except_advised, ..self.known.bits };
        Ok(())
    }

    /// Bits of `thread_info.flags`: two children without the time stamp counter, two without cpuid where the processor can do that.
    pub(super) fn learn_thread_bits(&mut self, scene: &Scene, roles: &Roles) -> Result<(), Trouble> {
        let Roles { full, bare, poll, poll_forever, futex, .. } = roles;
        let bit = |with: &[&Task], without: &[&Task]| {
            only_bit(with, without, |task| Ok(self.thread_flag_word(task)? & !RESTLESS_BITS))
        };
        for actor in [&scene.full, &scene.poll] {
            actor.outcome("PR_SET_TSC")?;
        }
        let no_tsc = bit(&[full, poll], &[bare, poll_forever, futex])?;
        let no_cpuid = match refused(&[&scene.poll, &scene.futex], "ARCH_SET_CPUID") {
            true => 0,
            false => bit(&[poll, futex], &[full, bare, poll_forever])?,
        };
        self.known.bits = LearnedBits { no_tsc, no_cpuid, ..self.known.bits };
        Ok(())
    }

    /// The first word of the security blob that is a pointer in the two children that confined themselves, and 0 in the others. What
    /// is beyond the blob's end may look like it too, so the first one counts.
    pub(super) fn learn_landlock_offset(&mut self, scene: &Scene, roles: &Roles) -> Result<(), Trouble> {
        let actors = [&scene.full, &scene.poll];
        if refused(&actors, "landlock_create_ruleset") {
            return Err(Trouble::Absent("this kernel has no Landlock, or it is switched off".to_owned()));
        }
        for actor in actors {
            actor.outcome("landlock_restrict_self")?;
        }
        let blobs =
            |tasks: &[&Task]| -> Result<Vec<_>, Error> { tasks.iter().map(|task| self.security_blob(task)).collect() };
        let with = blobs(&[&roles.full, &roles.poll])?;
        let without = blobs(&[&roles.bare, &roles.poll_forever, &roles.futex])?;
        let is_domain = |at: &u64| {
            let at = usize::try_from(*at).unwrap_or(usize::MAX);
            with.iter().all(|blob| word(blob, at) >= KERNEL) && without.iter().all(|blob| word(blob, at) == 0)
        };
        let length = with.first().map_or(0, |blob| blob.len() as u64);
        let offset = (0..length).step_by(8).find(is_domain);
        let offset = offset.ok_or_else(|| Trouble::Wrong("no word of the security blob tells a domain".to_owned()))?;
        self.known.bits.landlock_offset = offset;
        Ok(())
    }
}

/// The one bit that is set in all of the first and in none of the others.
fn only_bit(with: &[&Task], without: &[&Task], read: impl Fn(&Task) -> Result<u64, Error>) -> Result<u64, Trouble> {
    let mut bits = u64::MAX;
    for task in with {
        bits &= read(task)?;
    }
    for task in without {
        bits &= !read(task)?;
    }
    match bits.count_ones() {
        1 => Ok(bits),
        _ => Err(Trouble::Wrong(format!("the bits {bits:#x} are set where one was expected"))),
    }
}

/// Whether this kernel or processor has no such state: all children were refused it.
fn refused(actors: &[&Actor], call: &'static str) -> bool {
    actors.iter().all(|actor| actor.outcome(call).is_err())
}
