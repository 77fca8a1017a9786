//! Contexts of asynchronous I/O: how many requests of each are under way.
//!
//! Of the places for requests that a context has, those are free that its counter has, those that the processors have taken from it
//! beforehand, and those of requests that have completed since they were last counted. What is missing is under way.
//!
//! Source: fs/aio.c (`get_reqs_available`, `put_reqs_available`, `refill_reqs_available`), v6.18; io_setup(2).

use crate::error::Error;
use crate::feature::Feature;
use crate::paths::Path;
use crate::state::{KernelState, View};
use crate::tasks::{Task, word};

/// More contexts than fs.aio-max-nr allows by far.
const MAX_CONTEXTS: u32 = 1 << 20;

/// A context of io_setup(2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AioContext {
    /// Its handle: the address of its ring.
    pub id: u64,
    /// How many events its ring has places for; one always stays free.
    pub places: u32,
    /// Requests that have not completed.
    pub under_way: u32,
}

impl KernelState {
    /// Whether the address space has contexts of io_setup(2).
    ///
    /// # Errors
    /// As [`KernelState::brk`]; [`Error::List`] for a table that is longer than any.
    pub fn has_aio(&self, task: &Task) -> Result<bool, Error> {
        if self.absent(Feature::Aio) {
            return Ok(false);
        }
        Ok(!contexts(&self.view(Feature::Aio, task)?)?.is_empty())
    }

    /// The contexts of the address space. Requests may complete meanwhile; they then count as under way for the last time.
    ///
    /// # Errors
    /// As [`KernelState::has_aio`]; [`Error::FeatureOff`] where the variables of other processors cannot be found.
    pub fn aio_contexts(&self, task: &Task) -> Result<Vec<AioContext>, Error> {
        let view = self.view(Feature::AioRequests, task)?;
        let contexts = contexts(&view)?;
        if contexts.is_empty() {
            return Ok(Vec::new());
        }
        contexts.into_iter().map(|context| self.context(&view, context)).collect()
    }

    fn context(&self, view: &View<'_>, context: u64) -> Result<AioContext, Error> {
        let number = |path| view.u32_from(context, &[path]);
        let places = number(Path::AioPlaces)?;
        // A place goes from a request to those that have completed, to a processor, to the counter. Read the other way round none is
        // counted twice that goes on meanwhile.
        let mut free = number(Path::AioFree)?;
        let beforehand = view.u64_from(context, &[Path::AioPerCpu])?.wrapping_add(view.offset(Path::AioCpuFree)?);
        for taken in self.of_each_processor(view, beforehand, Path::AioCpuFree)? {
            free = free.wrapping_add(u32::from_ne_bytes(taken));
        }
        free = free.wrapping_add(number(Path::AioCompleted)?);
        let under_way = places.saturating_sub(1).saturating_sub(free);
        Ok(AioContext { id: view.u64_from(context, &[Path::AioId])?, places, under_way })
    }
}

/// Where the contexts lie.
fn contexts(view: &View<'_>) -> Result<Vec<u64>, Error> {
    let table = view.u64(&[Path::TaskMm, Path::AioTable])?;
    if table == 0 {
        return Ok(Vec::new());
    }
    let count = view.u32_from(table, &[Path::AioCount])?;
    if count > MAX_CONTEXTS {
        return Err(Error::List { tid: view.tid(), list: "ioctx_table" });
    }
    // io_destroy(2) leaves the table and clears the entry.
    let mut entries = vec![0; count as usize * 8];
    view.bytes_from(table, &[Path::AioContexts], &mut entries)?;
    Ok(entries.chunks_exact(8).map(|entry| word(entry, 0)).filter(|&context| context != 0).collect())
}
