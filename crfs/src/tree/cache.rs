//! Chunks of page contents on their way out: read ahead of whoever reads in order, kept until they were given out.
//!
//! A reader that reads in order finds the next two chunks already read, whatever the size of its reads. All readers share
//! [`SLOTS`] buffers, which bounds the server's memory; a buffer that was given out whole is the next to be used again, so
//! that one reader goes round in few buffers and these stay in the CPU's cache.

use super::pages::PageSource;
use image_format::memory::CHUNK_SIZE;
use nix::errno::Errno;
use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

/// Buffers without content. Fresh memory costs more than reading into it, so they are used again, the last one first.
type Free = Arc<Mutex<Vec<Vec<u8>>>>;

/// A chunk's bytes. The buffer goes back when the last reader has let go of it.
#[derive(Debug)]
pub struct Buffer {
    bytes: Vec<u8>,
    free: Free,
}

impl AsRef<[u8]> for Buffer {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        if free.len() < SPARE {
            free.push(std::mem::take(&mut self.bytes));
        }
    }
}

/// Buffers of [`CHUNK_SIZE`] bytes in all.
const SLOTS: usize = 20;
/// Buffers kept without content.
const SPARE: usize = 6;
/// Chunks kept ahead of a reader.
const AHEAD: u64 = 2;
/// Threads that read ahead.
const THREADS: usize = 2;

/// Shared by all readers.
#[derive(Debug, Clone)]
pub(super) struct ChunkCache(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    /// Locked after `state`, never the other way round.
    free: Free,
    /// A chunk is no longer being read.
    settled: Condvar,
    /// There is work, or the end.
    work: Condvar,
}

#[derive(Debug, Default)]
struct State {
    slots: Vec<Slot>,
    queue: VecDeque<(Arc<PageSource>, u64)>,
    threads: usize,
    clock: u64,
    /// Caches that are still used: the threads' own clones do not count.
    closed: bool,
}

#[derive(Debug)]
struct Slot {
    source: u64,
    chunk: u64,
    content: Content,
    /// When it was last used; 0 once it was given out whole.
    used: u64,
}

#[derive(Debug, Clone)]
enum Content {
    Loading,
    Ready(Arc<Buffer>),
}

impl ChunkCache {
    pub(super) fn new() -> Self {
        ChunkCache(Arc::new(Shared {
            state: Mutex::default(),
            free: Free::default(),
            settled: Condvar::new(),
            work: Condvar::new(),
        }))
    }

    /// The chunk, if it is there already.
    pub(super) fn ready(&self, source: &PageSource, chunk: u64) -> Option<Arc<Buffer>> {
        let mut state = self.lock();
        state.clock += 1;
        let now = state.clock;
        let slot = state.find(source.id, chunk)?;
        slot.used = now;
        match &slot.content {
            Content::Ready(bytes) => Some(Arc::clone(bytes)),
            Content::Loading => None,
        }
    }

    /// The chunk; reads it, or waits for whoever is reading it.
    ///
    /// Errors are those of the read. They are not kept: whoever asks next reads again.
    pub(super) fn get(&self, source: &Arc<PageSource>, chunk: u64) -> Result<Arc<Buffer>, Errno> {
        let mut state = self.lock();
        loop {
            match state.find(source.id, chunk).map(|slot| slot.content.clone()) {
                Some(Content::Ready(bytes)) => return Ok(bytes),
                Some(Content::Loading) => {
                    state = self.0.settled.wait(state).unwrap_or_else(PoisonError::into_inner);
                }
                None => {
                    // Over the bound only while that many readers wait for different chunks at the same moment.
                    state.reserve(source.id, chunk, true);
                    drop(state);
                    return self.0.load(source, chunk);
                }
            }
        }
    }

    /// Has the chunks after `chunk` read, as far as there is room.
    pub(super) fn read_ahead(&self, source: &Arc<PageSource>, chunk: u64) {
        let mut state = self.lock();
        for next in chunk + 1..=chunk + AHEAD {
            if next * CHUNK_SIZE >= source.size() || state.find(source.id, next).is_some() {
                continue;
            }
            if !state.reserve(source.id, next, false) {
                break;
            }
            state.queue.push_back((Arc::clone(source), next));
            self.0.work.notify_one();
        }
        while state.threads < THREADS && !state.queue.is_empty() {
            let shared = Arc::clone(&self.0);
            let spawned = std::thread::Builder::new().name("crfs-ahead".to_owned()).spawn(move || shared.serve());
            match spawned {
                Ok(_) => state.threads += 1,
                Err(_) => {
                    // Nobody would ever read what is queued: those who want it read it themselves.
                    if state.threads == 0 {
                        for (source, chunk) in std::mem::take(&mut state.queue) {
                            state.drop_slot(source.id, chunk);
                        }
                    }
                    break;
                }
            }
        }
    }

    /// The chunk was given out to its end: its buffer may be used again first.
    pub(super) fn given_out(&self, source: &PageSource, chunk: u64) {
        if let Some(slot) = self.lock().find(source.id, chunk) {
            slot.used = 0;
        }
    }

    /// Forgets a source that nobody reads any more.
    pub(super) fn forget(&self, source: &PageSource) {
        let mut state = self.lock();
        state.queue.retain(|(queued, _)| queued.id != source.id);
        state.slots.retain(|slot| slot.source != source.id);
        if state.slots.is_empty() {
            *self.0.free.lock().unwrap_or_else(PoisonError::into_inner) = Vec::new();
        }
        self.0.settled.notify_all();
    }

    /// Lets the threads end.
    pub(super) fn close(&self) {
        self.lock().closed = true;
        self.0.work.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock()
    }
}

impl State {
    fn find(&mut self, source: u64, chunk: u64) -> Option<&mut Slot> {
        self.slots.iter_mut().find(|slot| slot.source == source && slot.chunk == chunk)
    }

    fn drop_slot(&mut self, source: u64, chunk: u64) {
        self.slots.retain(|slot| slot.source != source || slot.chunk != chunk);
    }

    /// Makes a slot for a chunk that is going to be read. Takes the place of the one that is least wanted; without one, only
    /// goes over the bound if it must.
    fn reserve(&mut self, source: u64, chunk: u64, must: bool) -> bool {
        // One reader keeps within few buffers: what it was given goes first, even when there is room.
        let given = self.slots.iter().position(|slot| slot.used == 0 && matches!(slot.content, Content::Ready(_)));
        let victim = given.or_else(|| {
            let full = self.slots.len() >= SLOTS;
            let ready = self.slots.iter().enumerate().filter(|(_, slot)| matches!(slot.content, Content::Ready(_)));
            full.then(|| ready.min_by_key(|(_, slot)| slot.used).map(|(at, _)| at)).flatten()
        });
        if let Some(at) = victim {
            self.slots.swap_remove(at);
        }
        if self.slots.len() >= SLOTS && !must {
            return false;
        }
        self.clock += 1;
        self.slots.push(Slot { source, chunk, content: Content::Loading, used: self.clock });
        true
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads a chunk that has a slot.
    fn load(&self, source: &PageSource, chunk: u64) -> Result<Arc<Buffer>, Errno> {
        let spare = self.free.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let mut buffer = Buffer { bytes: spare.unwrap_or_default(), free: Arc::clone(&self.free) };
        let result = source.load(chunk, &mut buffer.bytes);
        let mut state = self.lock();
        let answer = match result {
            Ok(()) => {
                let bytes = Arc::new(buffer);
                // No slot any more: the source was forgotten meanwhile.
                if let Some(slot) = state.find(source.id, chunk) {
                    slot.content = Content::Ready(Arc::clone(&bytes));
                }
                Ok(bytes)
            }
            Err(errno) => {
                state.drop_slot(source.id, chunk);
                Err(errno)
            }
        };
        self.settled.notify_all();
        answer
    }

    /// A thread that reads ahead.
    fn serve(&self) {
        let mut state = self.lock();
        loop {
            if state.closed {
                state.threads -= 1;
                return;
            }
            if let Some((source, chunk)) = state.queue.pop_front() {
                drop(state);
                // A failure is the reader's to meet: it finds no slot and reads itself.
                let _ = self.load(&source, chunk);
                state = self.lock();
            } else {
                state = self.work.wait(state).unwrap_or_else(PoisonError::into_inner);
            }
        }
    }
}
