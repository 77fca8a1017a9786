//! Opening, reading, writing, closing.

use super::cache::Buffer;
use super::control::{self, Command};
use super::events::Watcher;
use super::frozen::{Content as NodeContent, Frozen};
use super::handle::{Content, Data, Elsewhere, Handle, HandleId, Opened, Pages, Staged, Text};
use super::id::{Fixed, NodeId};
use super::incoming::{Incoming, Next};
use super::look::Found;
use super::slots::{Shown, told};
use super::{Inner, Step, Tree};
use crate::failure::Failure;
use image_format::memory::CHUNK_SIZE;
use image_format::render_lines;
use nix::errno::Errno;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Reads below this, out of order, take no chunk of their own.
const SMALL: usize = 128 << 10;

/// How a file is to be opened.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct OpenHow {
    pub(super) write: bool,
    pub(super) truncate: bool,
}

impl Tree {
    /// Opens a file. For a `blockers` of a running container that means a survey of it.
    pub fn open(&self, node: NodeId, write: bool, truncate: bool) -> Step<Opened> {
        let inner = &self.0;
        if let Ok(Found::Fixed(name, _, Fixed::Blockers)) = inner.find(node) {
            let inner = Arc::clone(inner);
            return Step::later(move || {
                let blockers = inner.operations.survey(&name).map_err(|failure| told(&failure))?;
                Ok(inner.direct(Handle::Bytes(Arc::new(render_lines(&blockers)))))
            });
        }
        inner.open(node, OpenHow { write, truncate }).into()
    }

    /// Reads from an open file; shorter than asked for only at the end.
    pub fn read(&self, handle: HandleId, offset: u64, size: usize) -> Step<Data> {
        let inner = &self.0;
        match inner.handles.get(handle) {
            Err(errno) => Step::Now(Err(errno)),
            Ok(Handle::Directory(_)) => Step::Now(Err(Errno::EISDIR)),
            Ok(Handle::Text(text)) => read_text(&text, offset, size).map(Data::Own).into(),
            Ok(Handle::Bytes(bytes) | Handle::State(bytes, _)) => {
                let start = usize::try_from(offset).map_or(bytes.len(), |offset| offset.min(bytes.len()));
                let end = start.saturating_add(size).min(bytes.len());
                Step::Now(Ok(Data::Part(bytes, start..end)))
            }
            Ok(Handle::Staged(staged)) => read_file(&staged.file, offset, size).map(Data::Own).into(),
            Ok(Handle::Pages(pages)) => inner.read_pages(pages, offset, size),
            Ok(Handle::Elsewhere(held)) => Step::later(move || read_elsewhere(&held, offset, size).map(Data::Own)),
            Ok(Handle::Sums(source)) => Step::later(move || source.sums_text(offset, size).map(Data::Own)),
            Ok(Handle::FileSums(tree)) => Step::later(move || content_sums(&tree, offset, size).map(Data::Own)),
            Ok(Handle::Events(watcher)) => {
                let inner = Arc::clone(inner);
                Step::later(move || watcher.wait(inner.operations.as_ref(), &inner.closed).map(Data::Own))
            }
        }
    }

    /// Writes to an open file: bytes of one that is copied in, or a command to `.ctl/state`, which is answered when it is done.
    pub fn write(&self, handle: HandleId, offset: u64, bytes: &[u8]) -> Step<usize> {
        let inner = &self.0;
        match inner.handles.get(handle) {
            Ok(Handle::Staged(staged)) if staged.write => {
                let written = staged.incoming.before_write(staged.index).and_then(|()| {
                    let written = staged.file.write_all_at(bytes, offset);
                    written.map_err(|error| error.raw_os_error().map_or(Errno::EIO, Errno::from_raw))
                });
                written.map(|()| bytes.len()).into()
            }
            Ok(Handle::State(_, name)) => {
                let (command, count, inner) = (Command::parse(bytes), bytes.len(), Arc::clone(inner));
                Step::later(move || inner.command(&name, command).map(|()| count))
            }
            Ok(_) => Step::Now(Err(Errno::EBADF)),
            Err(errno) => Step::Now(Err(errno)),
        }
    }

    /// A descriptor was closed. The one that makes an image whole is answered when the container was built.
    pub fn flush(&self, handle: HandleId) -> Step<()> {
        match self.0.handles.get(handle) {
            Ok(Handle::Staged(staged)) if staged.write => match staged.incoming.flush(staged.index) {
                Ok(next) => self.0.follow(&staged.name, &staged.incoming, next),
                Err(errno) => Step::Now(Err(errno)),
            },
            Ok(_) => Step::Now(Ok(())),
            Err(errno) => Step::Now(Err(errno)),
        }
    }

    /// The last descriptor of an open file was closed.
    pub fn release(&self, handle: HandleId) {
        if let Some(Handle::Pages(pages)) = self.0.handles.remove(handle)
            && !self.0.handles.reads(&pages.source)
        {
            self.0.cache.forget(&pages.source);
        }
    }
}

impl Inner {
    pub(super) fn direct(&self, handle: Handle) -> Opened {
        Opened { handle: self.handles.add(handle), content: Content::Direct, flush: false }
    }

    fn open(&self, node: NodeId, how: OpenHow) -> Result<Opened, Errno> {
        let bytes = |bytes: Vec<u8>| self.direct(Handle::Bytes(Arc::new(bytes)));
        let read_only = |opened: Opened| if how.write { Err(Errno::EACCES) } else { Ok(opened) };
        match self.find(node)? {
            Found::RootStatus => read_only(bytes(self.refusals.render())),
            Found::RootFeatures => read_only(bytes(std::fs::read(self.registry.kstate_file()).unwrap_or_default())),
            Found::Fixed(name, view, what) => {
                let container = self.registry.container(&name).map_err(|_| Errno::ESTALE)?;
                match what {
                    Fixed::State => Ok(self.direct(Handle::State(Arc::new(format!("{}\n", view.state).into()), name))),
                    Fixed::Status => {
                        let incoming = match &view.shown {
                            Shown::Incoming(incoming) => Some(incoming.as_ref()),
                            _ => None,
                        };
                        let status = control::status(&container, view.state, incoming);
                        read_only(bytes(status.map_err(|failure| told(&failure))?))
                    }
                    Fixed::Events => {
                        let watcher = Watcher::new(self.operations.as_ref(), container);
                        read_only(self.direct(Handle::Events(Arc::new(watcher))))
                    }
                    // Opened off the loop, by the one caller.
                    Fixed::Blockers => Err(Errno::EIO),
                    Fixed::Top | Fixed::Ctl => Err(Errno::EISDIR),
                }
            }
            Found::Image(name, view, image) => match &view.shown {
                Shown::Frozen(_) if how.write => Err(self.is_built(&name)),
                Shown::Frozen(tree) => self.open_frozen(tree, image.index),
                Shown::Incoming(incoming) => {
                    let file = incoming.open(image.index, how.write, how.truncate)?;
                    Ok(self.staged(name, incoming, image.index, file, how.write))
                }
                Shown::Nothing => Err(Errno::ESTALE),
            },
            Found::Root | Found::RootCtl => Err(Errno::EISDIR),
        }
    }

    pub(super) fn staged(
        &self,
        name: String,
        incoming: &Arc<Incoming>,
        index: u32,
        file: std::fs::File,
        write: bool,
    ) -> Opened {
        let file = Arc::new(file);
        let content = if incoming.is_bulk(index) { Content::Backed(Arc::clone(&file)) } else { Content::Direct };
        let staged = Staged { name, incoming: Arc::clone(incoming), index, file, write };
        Opened { handle: self.handles.add(Handle::Staged(Arc::new(staged))), content, flush: write }
    }

    fn open_frozen(&self, tree: &Arc<Frozen>, index: u32) -> Result<Opened, Errno> {
        let pid = tree.process_of(index);
        let (handle, content) = match tree.node(index)?.content {
            NodeContent::Directory => return Err(Errno::EISDIR),
            NodeContent::Text { .. } => {
                (Handle::Text(Arc::new(Text { index, tree: Arc::clone(tree), pid })), Content::Cached)
            }
            NodeContent::Pages(pid) => {
                let source = tree.source(pid)?;
                (Handle::Pages(Arc::new(Pages { source, next: AtomicU64::new(0) })), Content::Direct)
            }
            NodeContent::Sums(pid) => (Handle::Sums(tree.source(pid)?), Content::Direct),
            NodeContent::Elsewhere { size } => {
                let content = tree.elsewhere(index)?;
                let held = Elsewhere { index, content, tree: Arc::clone(tree), size };
                (Handle::Elsewhere(Arc::new(held)), Content::Direct)
            }
            NodeContent::FileSums => (Handle::FileSums(Arc::clone(tree)), Content::Direct),
        };
        // Files of no process stand for all of them.
        if pid.is_none() { tree.witness.check_all() } else { tree.witness.check(pid) }?;
        Ok(Opened { handle: self.handles.add(handle), content, flush: false })
    }

    fn read_pages(&self, pages: Arc<Pages>, offset: u64, size: usize) -> Step<Data> {
        let source = &pages.source;
        let end = source.size().min(offset.saturating_add(size as u64));
        if offset >= end {
            return Step::Now(source.check(source.size()).map(|()| Data::Own(Vec::new())));
        }
        let in_order = pages.next.swap(end, Ordering::Relaxed) == offset;
        let (first, last) = (offset / CHUNK_SIZE, (end - 1) / CHUNK_SIZE);
        let ready = if first == last { self.cache.ready(source, first) } else { None };
        if let Some(bytes) = ready {
            let answer = source.check(end).map(|()| part(&bytes, first, offset, end));
            self.pass(&pages, last, end, in_order);
            return Step::Now(answer);
        }
        let cache = self.cache.clone();
        if !in_order && size < SMALL {
            return Step::later(move || {
                let mut buffer = vec![0; usize::try_from(end - offset).unwrap_or(0)];
                pages.source.fill(offset, &mut buffer)?;
                Ok(Data::Own(buffer))
            });
        }
        // The reading ahead starts with this thread's own reading, not after it.
        self.pass(&pages, last, 0, in_order);
        Step::later(move || {
            let answer = if first == last {
                let bytes = cache.get(&pages.source, first)?;
                part(&bytes, first, offset, end)
            } else {
                let mut buffer = Vec::with_capacity(usize::try_from(end - offset).unwrap_or(0));
                for chunk in first..=last {
                    let bytes = cache.get(&pages.source, chunk)?;
                    let (from, upto) = (offset.max(chunk * CHUNK_SIZE), end.min((chunk + 1) * CHUNK_SIZE));
                    buffer.extend_from_slice(part(&bytes, chunk, from, upto).as_ref());
                }
                Data::Own(buffer)
            };
            pages.source.check(end)?;
            if end == pages.source.size() || end.is_multiple_of(CHUNK_SIZE) {
                cache.given_out(&pages.source, last);
            }
            Ok(answer)
        })
    }

    /// A reader passes through a chunk: what comes next is read ahead, what lies behind is let go.
    fn pass(&self, pages: &Pages, chunk: u64, end: u64, in_order: bool) {
        if end != 0 && (end == pages.source.size() || end.is_multiple_of(CHUNK_SIZE)) {
            self.cache.given_out(&pages.source, chunk);
        }
        if in_order {
            self.cache.read_ahead(&pages.source, chunk);
        }
    }

    fn command(&self, name: &str, command: Result<Command, Failure>) -> Result<(), Errno> {
        let done = match command {
            Ok(Command::Freeze(options)) => self.operations.freeze(name, options).map(drop),
            Ok(Command::Thaw) => self.operations.thaw(name).map(drop),
            Err(failure) => {
                if let Ok(container) = self.registry.container(name) {
                    control::refused(&container, "state", failure.to_string());
                }
                Err(failure)
            }
        };
        done.map_err(|failure| told(&failure))
    }

    /// What a flush or a rename set off.
    pub(super) fn follow(self: &Arc<Self>, name: &str, incoming: &Arc<Incoming>, next: Next) -> Step<()> {
        if next == Next::Wait {
            return Step::Now(Ok(()));
        }
        let (inner, name, incoming) = (Arc::clone(self), name.to_owned(), Arc::clone(incoming));
        Step::later(move || {
            let result = inner.operations.build(&name);
            incoming.built(result.is_ok());
            // Shown as built from the moment the copying program is answered.
            let shown = inner.view(&name);
            result.map_err(|failure| told(&failure))?;
            shown.map(drop)
        })
    }
}

fn part(bytes: &Arc<Buffer>, chunk: u64, offset: u64, end: u64) -> Data {
    let within = |at: u64| usize::try_from(at - chunk * CHUNK_SIZE).unwrap_or(usize::MAX).min((**bytes).as_ref().len());
    Data::Chunk(Arc::clone(bytes), within(offset)..within(end))
}

fn read_text(text: &Text, offset: u64, size: usize) -> Result<Vec<u8>, Errno> {
    let bytes = text.tree.read_text(text.index, offset, size)?;
    text.tree.witness.check(text.pid)?;
    Ok(bytes)
}

/// Reads what a task holds; what it has beyond the size at the freeze (the rest of its last page) is not the file's.
fn read_elsewhere(held: &Elsewhere, offset: u64, size: usize) -> Result<Vec<u8>, Errno> {
    let left = held.size.saturating_sub(offset);
    let mut bytes = vec![0; size.min(usize::try_from(left).unwrap_or(usize::MAX))];
    held.content.read_exact_at(&mut bytes, offset)?;
    held.tree.witness.check_all()?;
    held.tree.content_sums.note(&held.tree.node(held.index)?.path, offset, &bytes);
    Ok(bytes)
}

fn content_sums(tree: &Frozen, offset: u64, size: usize) -> Result<Vec<u8>, Errno> {
    let text = tree.content_sums.text(tree)?;
    tree.witness.check_all()?;
    let from = usize::try_from(offset).map_or(text.len(), |offset| offset.min(text.len()));
    Ok(text[from..from.saturating_add(size).min(text.len())].to_vec())
}

fn read_file(file: &std::fs::File, offset: u64, size: usize) -> Result<Vec<u8>, Errno> {
    let left = file.metadata().map_or(0, |metadata| metadata.len()).saturating_sub(offset);
    let mut buffer = vec![0; size.min(usize::try_from(left).unwrap_or(usize::MAX))];
    let mut done = 0;
    while done < buffer.len() {
        match file.read_at(&mut buffer[done..], offset + done as u64) {
            Ok(0) => break,
            Ok(count) => done += count,
            Err(error) => return Err(error.raw_os_error().map_or(Errno::EIO, Errno::from_raw)),
        }
    }
    buffer.truncate(done);
    Ok(buffer)
}
