//! Opening: offsets, features and their states; and the way every getter takes to a task's memory.

use std::fs;
use std::ops::Range;
use std::path::Path as FilePath;

use crfs_sys::bpf::{KernelReader, ReadError};
use serde::{Deserialize, Serialize};

use crate::btf::{Btf, Field, PathError};
use crate::cache;
use crate::error::Error;
use crate::extended::ExtendedLayout;
use crate::feature::{Disabled, Feature, Status};
use crate::flags::LearnedBits;
use crate::paths::{self, Path};
use crate::restart::RestartFunctions;
use crate::tasks::{Copies, Kept, Task, word};

/// Where the kernel describes its types.
pub(crate) const BTF: &str = "/sys/kernel/btf/vmlinux";
/// The testing aid: the name of a feature whose offsets are to be wrong.
pub const FAULT_VARIABLE: &str = "CRFS_KSTATE_FAULT";
/// How far the testing aid moves them.
const FAULT_SHIFT: u64 = 8;

/// A path as this kernel has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Resolved {
    pub(crate) field: Field,
    /// Which of the path's names it was.
    pub(crate) name: usize,
}

/// All that is found out about a kernel: what the cache keeps.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Knowledge {
    /// By [`Path`], in the order of [`Path::ALL`].
    pub(crate) paths: Vec<Result<Resolved, PathError>>,
    pub(crate) dispatch_bit: Option<u32>,
    pub(crate) calibrated: bool,
    /// By [`Feature`], in the order of [`Feature::ALL`].
    pub(crate) status: Vec<Status>,
    pub(crate) restart: RestartFunctions,
    /// What a timer on a kernel stack calls that wakes a thread, learned in calibration.
    pub(crate) wakeup: u64,
    /// The same of a timer that counts jiffies.
    pub(crate) timeout: u64,
    pub(crate) bits: LearnedBits,
    pub(crate) extended: ExtendedLayout,
}

/// Reads what the kernel keeps about tasks and has no interface for.
///
/// Reading runs nothing in the task, stops nothing and changes nothing. The tasks are those that the *calling thread* traces
/// (PTRACE_SEIZE or an attach), and they should be stopped or frozen, or the answer is of no moment in particular. The caller
/// belongs in the host's pid and time namespaces: ids and times are the kernel's own. One value serves one thread at a time.
#[derive(Debug)]
pub struct KernelState {
    pub(crate) reader: KernelReader,
    pub(crate) known: Knowledge,
    pub(crate) fault: Option<Feature>,
    pub(crate) copies: Copies,
}

impl KernelState {
    /// Prepares to read: a small BPF program, and where each member lies in this kernel.
    ///
    /// The offsets come from the cache file when it fits (this boot, this kernel, this version of the table of paths; owned by us and
    /// writable by nobody else), and otherwise from BTF, which takes some 10 ms. A cache that does not fit is no error. Offsets straight from
    /// BTF are not trusted: every feature is off until [`KernelState::calibrate`] has run; a cache carries its outcome.
    ///
    /// With `CRFS_KSTATE_FAULT=FEATURE` in the environment the offsets of that feature are wrong by 8 bytes, and
    /// calibration must find that out. This is an aid for tests of what is done without the feature.
    ///
    /// # Errors
    /// [`Error::NoBtf`], [`Error::BadBtf`], [`Error::NoBpf`] with a remedy each; [`Error::UnknownFault`], [`Error::Identity`].
    pub fn open(cache: Option<&FilePath>) -> Result<Self, Error> {
        let fault = match std::env::var_os(FAULT_VARIABLE) {
            None => None,
            Some(value) => {
                let name = value.to_string_lossy().into_owned();
                Some(Feature::from_name(&name).ok_or(Error::UnknownFault { value: name })?)
            }
        };
        let known = match cache {
            Some(path) => cache::load(path, fault)?,
            None => None,
        };
        let known = match known {
            Some(known) => known,
            None => Knowledge::from_btf()?,
        };
        let reader = KernelReader::load().map_err(|source| Error::NoBpf { source })?;
        Ok(Self { reader, known, fault, copies: Copies::default() })
    }

    /// [`KernelState::open`]; when nothing calibrated was in the cache, also [`KernelState::calibrate`] and [`KernelState::save`].
    ///
    /// # Errors
    /// Those of the three.
    pub fn open_calibrated(cache: Option<&FilePath>) -> Result<Self, Error> {
        let mut state = Self::open(cache)?;
        if !state.is_calibrated() {
            state.calibrate()?;
            if let Some(path) = cache {
                state.save(path)?;
            }
        }
        Ok(state)
    }

    /// Whether calibration has run, here or before the cache was written.
    #[must_use]
    pub fn is_calibrated(&self) -> bool {
        self.known.calibrated
    }

    /// Keeps the offsets and the outcome of calibration in a file (mode 0600, replaced by rename), for [`KernelState::open`].
    ///
    /// # Errors
    /// [`Error::SaveCache`], [`Error::Identity`].
    pub fn save(&self, cache: &FilePath) -> Result<(), Error> {
        cache::save(cache, self.fault, &self.known)
    }

    /// Whether the getters of a feature answer.
    ///
    /// # Errors
    /// Why not, in words.
    pub fn feature(&self, feature: Feature) -> Result<(), &Disabled> {
        match self.status(feature) {
            Status::On | Status::Absent { .. } => Ok(()),
            Status::Off(disabled) => Err(disabled),
        }
    }

    /// The state of a feature.
    #[must_use]
    pub fn status(&self, feature: Feature) -> &Status {
        // Feature::ALL has every variant in the order of its number, and `status` as many entries.
        &self.known.status[feature as usize]
    }

    /// Every feature with its state, for a status listing.
    pub fn features(&self) -> impl Iterator<Item = (Feature, &Status)> {
        Feature::ALL.iter().copied().zip(&self.known.status)
    }

    pub(crate) fn set_status(&mut self, feature: Feature, status: Status) {
        self.known.status[feature as usize] = status;
    }

    pub(crate) fn switch_off(&mut self, feature: Feature, why: String) {
        self.set_status(feature, Status::Off(Disabled { feature, why }));
    }

    /// Whether a feature's state cannot exist on this kernel.
    pub(crate) fn absent(&self, feature: Feature) -> bool {
        matches!(self.status(feature), Status::Absent { .. })
    }

    /// Access to one task for the getters of one feature.
    pub(crate) fn view(&self, feature: Feature, task: &Task) -> Result<View<'_>, Error> {
        self.feature(feature)?;
        let copy = self.copies.get(task);
        Ok(View { state: self, feature, tid: task.tid(), task: task.address(), copy })
    }
}

impl Knowledge {
    fn from_btf() -> Result<Self, Error> {
        let path = FilePath::new(BTF);
        let file = fs::read(path).map_err(|source| Error::NoBtf { path: path.into(), source })?;
        let btf = Btf::parse(&file).map_err(|source| Error::BadBtf { path: path.into(), source })?;
        let names: Vec<&str> = Path::ALL.iter().flat_map(|path| path.names()).copied().collect();
        let mut found = btf.resolve(&names).into_iter();
        let paths: Vec<_> =
            Path::ALL.iter().map(|&path| choose(path, found.by_ref().take(path.names().len()).collect())).collect();
        let dispatch_bit = btf.enumerator(paths::DISPATCH_BIT);
        let mut known = Self {
            paths,
            dispatch_bit,
            calibrated: false,
            status: Vec::new(),
            restart: RestartFunctions::default(),
            wakeup: 0,
            timeout: 0,
            bits: LearnedBits::default(),
            extended: ExtendedLayout::default(),
        };
        known.status = known.initial_status("not calibrated yet");
        Ok(known)
    }

    /// Off, with `why` for the features whose paths are all there.
    fn initial_status(&self, why: &str) -> Vec<Status> {
        let off = |feature| {
            let why = self.missing(feature).unwrap_or_else(|| why.to_owned());
            Status::Off(Disabled { feature, why })
        };
        Feature::ALL.iter().map(|&feature| off(feature)).collect()
    }

    /// What a feature needs and this kernel does not have.
    pub(crate) fn missing(&self, feature: Feature) -> Option<String> {
        let needs = paths::needs(feature);
        let paths = needs.through.iter().chain(needs.own);
        let missing = paths.filter_map(|&path| self.path(path).err()).map(ToString::to_string).next();
        let no_bit = feature == Feature::SyscallDispatch && self.dispatch_bit.is_none();
        missing.or_else(|| no_bit.then(|| format!("this kernel has no `{}`", paths::DISPATCH_BIT)))
    }

    pub(crate) fn path(&self, path: Path) -> Result<&Resolved, &PathError> {
        // Path::ALL has every variant in the order of its number, and `paths` as many entries.
        self.paths[path as usize].as_ref()
    }

    /// From the first to behind the last member of task_struct that any path names.
    pub(crate) fn task_members(&self) -> Range<u64> {
        let resolved = Path::ALL.iter().filter_map(|&path| Some((path, self.path(path).ok()?)));
        let members = resolved.filter(|(path, found)| path.names()[found.name].starts_with("task_struct."));
        members.fold(0..0, |range, (_, found)| {
            let (start, end) =
                (u64::from(found.field.offset), u64::from(found.field.offset) + u64::from(found.field.size));
            if range.is_empty() { start..end } else { range.start.min(start)..range.end.max(end) }
        })
    }

    /// Whether every list has the length that this version of the program expects: a cache could have others.
    pub(crate) fn is_complete(&self) -> bool {
        self.paths.len() == Path::ALL.len() && self.status.len() == Feature::ALL.len()
    }
}

/// The first name that the kernel has, if it has the shape we expect.
fn choose(path: Path, found: Vec<Result<Field, PathError>>) -> Result<Resolved, PathError> {
    let mut result = None;
    for (name, (found, text)) in found.into_iter().zip(path.names()).enumerate() {
        match found {
            Ok(field) if path.shape().fits(&field) => return Ok(Resolved { field, name }),
            Ok(found) => result = Some(Err(PathError::Shape { path: (*text).to_owned(), found })),
            Err(error) => result = result.or(Some(Err(error))),
        }
    }
    result.unwrap_or_else(|| Err(PathError::NoMember(format!("{path:?}"))))
}

/// Reads of one task on behalf of one feature. A chain of paths is followed from the task, each but the last being a pointer.
pub(crate) struct View<'a> {
    state: &'a KernelState,
    feature: Feature,
    tid: i32,
    task: u64,
    copy: Option<Kept<'a>>,
}

impl View<'_> {
    pub(crate) fn resolved(&self, path: Path) -> Result<Resolved, Error> {
        let off = |why: String| Error::FeatureOff { feature: self.feature, why };
        self.state.known.path(path).copied().map_err(|error| off(error.to_string()))
    }

    pub(crate) fn offset(&self, path: Path) -> Result<u64, Error> {
        let wrong = self.state.fault == Some(self.feature) && paths::needs(self.feature).own.contains(&path);
        let shift = if wrong { FAULT_SHIFT } else { 0 };
        Ok(u64::from(self.resolved(path)?.field.offset) + shift)
    }

    /// Reads at the end of a chain that begins at the task; returns the address.
    pub(crate) fn bytes(&self, chain: &[Path], buf: &mut [u8]) -> Result<u64, Error> {
        if let (Some(copy), Some((&member, rest))) = (&self.copy, chain.split_first()) {
            let offset = self.offset(member)?;
            let length = if rest.is_empty() { buf.len() } else { 8 };
            if let Some(kept) = copy.get(offset, length) {
                return match (rest, word(kept, 0)) {
                    ([], _) => {
                        buf.copy_from_slice(kept);
                        Ok(self.task.wrapping_add(offset))
                    }
                    (_, 0) => Err(Error::Gone { tid: self.tid, path: member.names().join(" or ") }),
                    (_, pointer) => self.bytes_from(pointer, rest, buf),
                };
            }
        }
        self.bytes_from(self.task, chain, buf)
    }

    /// Reads at the end of a chain that begins at a structure elsewhere (0: the calling thread's task).
    pub(crate) fn bytes_from(&self, base: u64, chain: &[Path], buf: &mut [u8]) -> Result<u64, Error> {
        let offsets = chain.iter().map(|&path| self.offset(path)).collect::<Result<Vec<_>, _>>()?;
        let text = || chain.iter().filter_map(|path| path.names().first()).copied().collect::<Vec<_>>().join(" -> ");
        self.state.reader.read(base, &offsets, buf).map_err(|source| match source {
            ReadError::Null { .. } => Error::Gone { tid: self.tid, path: text() },
            source => Error::Read { tid: self.tid, path: text(), source },
        })
    }

    /// Reads at an address that was computed; `what` names it in an error.
    pub(crate) fn bytes_at(&self, address: u64, what: Path, buf: &mut [u8]) -> Result<(), Error> {
        let path = || what.names().first().copied().unwrap_or_default().to_owned();
        let failed = |source| Error::Read { tid: self.tid, path: path(), source };
        self.state.reader.read(address, &[0], buf).map(drop).map_err(failed)
    }

    pub(crate) fn u64(&self, chain: &[Path]) -> Result<u64, Error> {
        let mut bytes = [0; 8];
        self.bytes(chain, &mut bytes)?;
        Ok(u64::from_ne_bytes(bytes))
    }

    pub(crate) fn u64_from(&self, base: u64, chain: &[Path]) -> Result<u64, Error> {
        let mut bytes = [0; 8];
        self.bytes_from(base, chain, &mut bytes)?;
        Ok(u64::from_ne_bytes(bytes))
    }

    pub(crate) fn u32(&self, chain: &[Path]) -> Result<u32, Error> {
        let mut bytes = [0; 4];
        self.bytes(chain, &mut bytes)?;
        Ok(u32::from_ne_bytes(bytes))
    }

    pub(crate) fn u32_from(&self, base: u64, chain: &[Path]) -> Result<u32, Error> {
        let mut bytes = [0; 4];
        self.bytes_from(base, chain, &mut bytes)?;
        Ok(u32::from_ne_bytes(bytes))
    }

    pub(crate) fn i32(&self, chain: &[Path]) -> Result<i32, Error> {
        Ok(self.u32(chain)?.cast_signed())
    }

    pub(crate) fn feature(&self) -> Feature {
        self.feature
    }

    pub(crate) fn tid(&self) -> i32 {
        self.tid
    }
}
