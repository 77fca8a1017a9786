//! A batch of system calls, to be run in one go by an [`Injector`](crate::Injector).

use std::borrow::Cow;
use std::ffi::CStr;
use std::ops::Range;

use libc::c_long;

use crate::code::Entry;
use crate::single::Plain;
use crate::{InjectError, RemoteAddress};

/// A call of a batch, by which later calls can take its result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CallId(usize);

impl CallId {
    /// Its place in the batch, from 0, which is also that of its result.
    #[must_use]
    pub fn index(self) -> usize {
        self.0
    }
}

/// A part of a batch's data, which calls can point to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DataRef {
    offset: usize,
    len: usize,
}

impl DataRef {
    /// Its size in bytes.
    #[must_use]
    pub fn len(self) -> usize {
        self.len
    }

    /// Whether it has none.
    #[must_use]
    pub fn is_empty(self) -> bool {
        self.len == 0
    }

    /// What remains from byte `offset` on (nothing, past the end).
    #[must_use]
    pub fn from(self, offset: usize) -> Self {
        let offset = offset.min(self.len);
        Self { offset: self.offset + offset, len: self.len - offset }
    }

    pub(crate) fn range(self) -> Range<usize> {
        self.offset..self.offset + self.len
    }
}

/// An argument of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arg {
    /// A number, or an address in the tracee.
    Value(u64),
    /// What an earlier call returned.
    Result(CallId),
    /// The address of data.
    Data(DataRef),
    /// The 32-bit number that is found in data when the call is made: a descriptor of pipe2(2), say.
    Data32(DataRef),
    /// The 64-bit number that is found in data when the call is made.
    Data64(DataRef),
}

impl From<u64> for Arg {
    fn from(value: u64) -> Self {
        Self::Value(value)
    }
}

impl From<i64> for Arg {
    fn from(value: i64) -> Self {
        Self::Value(value.cast_unsigned())
    }
}

impl From<u32> for Arg {
    fn from(value: u32) -> Self {
        Self::Value(value.into())
    }
}

impl From<i32> for Arg {
    /// Sign extended, so that -1 and `AT_FDCWD` are what they are.
    fn from(value: i32) -> Self {
        i64::from(value).into()
    }
}

impl From<usize> for Arg {
    fn from(value: usize) -> Self {
        Self::Value(value as u64)
    }
}

impl From<RemoteAddress> for Arg {
    fn from(address: RemoteAddress) -> Self {
        Self::Value(address.0)
    }
}

impl From<CallId> for Arg {
    fn from(call: CallId) -> Self {
        Self::Result(call)
    }
}

impl From<DataRef> for Arg {
    fn from(data: DataRef) -> Self {
        Self::Data(data)
    }
}

#[derive(Clone, Debug)]
struct Call {
    nr: c_long,
    args: [Arg; 6],
    label: Cow<'static, str>,
    must_succeed: bool,
}

/// System calls in the order in which they are to be made, and the data they point to.
///
/// It must not change the signal mask of the task, by which the tracer is told of its end
/// ([`Tracee::set_sigmask`](crate::Tracee::set_sigmask) sets it after the release), nor execute a program.
#[derive(Clone, Debug, Default)]
pub struct Batch {
    calls: Vec<Call>,
    data: Vec<u8>,
    pointers: Vec<(usize, DataRef)>,
}

/// The calls that are run in one go, and the piece of the data they need.
#[derive(Debug)]
pub(crate) struct Chunk {
    pub(crate) calls: Range<usize>,
    pub(crate) data: Range<usize>,
}

/// Where a chunk will lie in the tracee, and what earlier chunks returned.
pub(crate) struct Place<'a> {
    pub(crate) results: RemoteAddress,
    pub(crate) data: RemoteAddress,
    pub(crate) earlier: &'a [i64],
}

impl Batch {
    /// An empty one.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// How many calls it has.
    #[must_use]
    pub fn len(&self) -> usize {
        self.calls.len()
    }

    /// Whether it has none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.calls.is_empty()
    }

    /// Adds bytes, 16 bytes aligned.
    pub fn data(&mut self, bytes: &[u8]) -> DataRef {
        self.data.resize(self.data.len().next_multiple_of(16), 0);
        let offset = self.data.len();
        self.data.extend_from_slice(bytes);
        DataRef { offset, len: bytes.len() }
    }

    /// Adds a string with its final zero.
    pub fn string(&mut self, string: &CStr) -> DataRef {
        self.data(string.to_bytes_with_nul())
    }

    /// Adds zeros, for calls that write; read them with [`Injector::run_reading`](crate::Injector::run_reading).
    pub fn space(&mut self, len: usize) -> DataRef {
        self.data(&vec![0; len])
    }

    /// Lets the 8 bytes at the beginning of `at` be the address of `target`, for structures that hold pointers.
    pub fn point(&mut self, at: DataRef, target: DataRef) {
        self.pointers.push((at.offset, target));
    }

    /// Adds a call that must succeed: the batch ends where it fails. `label` tells what it is for: "open /etc/passwd".
    ///
    /// # Panics
    /// With more than six arguments, which no system call has.
    pub fn call(&mut self, nr: c_long, args: &[Arg], label: impl Into<Cow<'static, str>>) -> CallId {
        self.push(nr, args, label.into(), true)
    }

    /// Adds a call that may fail: its result says so, and the batch goes on.
    ///
    /// # Panics
    /// With more than six arguments.
    pub fn attempt(&mut self, nr: c_long, args: &[Arg], label: impl Into<Cow<'static, str>>) -> CallId {
        self.push(nr, args, label.into(), false)
    }

    fn push(&mut self, nr: c_long, given: &[Arg], label: Cow<'static, str>, must_succeed: bool) -> CallId {
        let mut args = [Arg::Value(0); 6];
        args[..given.len()].copy_from_slice(given);
        self.calls.push(Call { nr, args, label, must_succeed });
        CallId(self.calls.len() - 1)
    }

    pub(crate) fn label(&self, index: usize) -> Cow<'static, str> {
        self.calls.get(index).map_or(Cow::Borrowed("nothing"), |call| call.label.clone())
    }

    pub(crate) fn nr(&self, index: usize) -> c_long {
        self.calls.get(index).map_or(-1, |call| call.nr)
    }

    /// The data as it was given.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.data
    }

    /// The calls from `first` on that fit into `max_calls` calls and `max_data` bytes of data.
    pub(crate) fn chunk(&self, first: usize, max_calls: usize, max_data: usize) -> Result<Chunk, InjectError> {
        let limit = self.calls.len().min(first.saturating_add(max_calls));
        if self.data.len() <= max_data {
            return Ok(Chunk { calls: first..limit, data: 0..self.data.len() });
        }
        let mut chunk = Chunk { calls: first..first, data: 0..0 };
        for call in &self.calls[first..limit] {
            let data = self.reach(call, &chunk.data);
            if data.len() > max_data {
                if chunk.calls.is_empty() {
                    let (label, needed) = (call.label.clone(), data.len());
                    return Err(InjectError::TooLarge { label, needed, available: max_data });
                }
                break;
            }
            chunk = Chunk { calls: first..chunk.calls.end + 1, data };
        }
        Ok(chunk)
    }

    /// The range that holds `base`, what a call points to, and whatever that points to in turn.
    fn reach(&self, call: &Call, base: &Range<usize>) -> Range<usize> {
        let join = |whole: &Range<usize>, part: Range<usize>| {
            if whole.is_empty() {
                // Down to the alignment that `data` promises.
                part.start & !15..part.end
            } else {
                whole.start.min(part.start & !15)..whole.end.max(part.end)
            }
        };
        let mut range = base.clone();
        for arg in &call.args {
            if let Arg::Data(data) | Arg::Data32(data) | Arg::Data64(data) = arg {
                range = join(&range, data.range());
            }
        }
        loop {
            let mut wider = range.clone();
            for (at, target) in &self.pointers {
                if range.contains(at) {
                    wider = join(&wider, target.range());
                }
            }
            if wider == range {
                return range;
            }
            range = wider;
        }
    }

    /// Fills in the addresses within a window of the data that will lie at `address`.
    pub(crate) fn relocate(&self, window: &mut [u8], range: &Range<usize>, address: RemoteAddress) {
        for (at, target) in &self.pointers {
            if !range.contains(at) || !range.contains(&target.offset) {
                continue;
            }
            let at = at - range.start;
            let target = address + (target.offset - range.start) as u64;
            if let Some(slot) = window.get_mut(at..at + 8) {
                slot.copy_from_slice(&target.0.to_ne_bytes());
            }
        }
    }

    /// A call as it is made by itself, when the data lies at `data`.
    pub(crate) fn plain(&self, index: usize, data: RemoteAddress, earlier: &[i64]) -> Result<Plain, InjectError> {
        let call = &self.calls[index];
        let bad = || InjectError::Reference { label: call.label.clone() };
        let mut args = [0; 6];
        for (value, arg) in args.iter_mut().zip(&call.args) {
            *value = match *arg {
                Arg::Value(value) => value,
                Arg::Result(CallId(call)) => earlier.get(call).ok_or_else(bad)?.cast_unsigned(),
                Arg::Data(reference) => (data + reference.offset as u64).0,
                // What calls write is not read back.
                Arg::Data32(_) | Arg::Data64(_) => return Err(bad()),
            };
        }
        Ok(Plain { nr: call.nr, args, must_succeed: call.must_succeed })
    }

    /// The calls of a chunk as the loop reads them.
    pub(crate) fn encode(&self, chunk: &Chunk, place: &Place<'_>) -> Result<Vec<u8>, InjectError> {
        let mut bytes = Vec::with_capacity(chunk.calls.len() * crate::code::ENTRY_SIZE);
        for index in chunk.calls.clone() {
            let call = &self.calls[index];
            let bad = || InjectError::Reference { label: call.label.clone() };
            let address = |data: DataRef| {
                let inside = data.offset >= chunk.data.start && data.range().end <= chunk.data.end;
                inside.then(|| place.data + (data.offset - chunk.data.start) as u64).ok_or_else(bad)
            };
            let mut entry = Entry { nr: call.nr.cast_unsigned(), ..Entry::default() };
            for (position, arg) in call.args.iter().enumerate() {
                match *arg {
                    Arg::Value(value) => entry.args[position] = value,
                    Arg::Result(CallId(earlier)) if earlier < chunk.calls.start => {
                        entry.args[position] = place.earlier.get(earlier).ok_or_else(bad)?.cast_unsigned();
                    }
                    Arg::Result(CallId(earlier)) if earlier < index => {
                        let slot = (earlier - chunk.calls.start) * crate::code::RESULT_SIZE;
                        entry.refer(position, place.results + slot as u64);
                    }
                    Arg::Result(_) => return Err(bad()),
                    Arg::Data(data) => entry.args[position] = address(data)?.0,
                    Arg::Data32(data) => entry.refer_32(position, address(data)?),
                    Arg::Data64(data) => entry.refer(position, address(data)?),
                }
            }
            if call.must_succeed {
                entry.flags |= Entry::MUST_SUCCEED;
            }
            entry.encode(&mut bytes);
        }
        Ok(bytes)
    }
}
