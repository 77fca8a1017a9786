//! The tree of one freeze: the image's text files, and page contents from the memory of the frozen processes.

use super::attr::{Attr, Changes};
use super::id::{ImageNode, Place};
use super::outside::Outside;
use super::pages::{PageIndex, PageSource, Sums};
use super::sums::ContentSums;
use super::witness::Witness;
use crate::captured::{Captured, Entry};
use crate::failure::{Doing, Failure, Kind};
use crate::registry::{Container, Record};
use crate::resource::contents::{ContentPlace, Elsewhere};
use crate::resource::mount;
use image_format::manifest::{Manifest, PathKind};
use image_format::memory::{Segment, Source, sums_size};
use image_format::mounts::TreeEntry;
use image_format::{Pid, layout, parse_lines, parse_object};
use nix::errno::Errno;
use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::SystemTime;

/// The name of the list of obstacles, where a container is frozen only to be looked at.
pub(super) const BLOCKERS: &str = "blockers";

/// The index of the image's top, which is the container's directory.
pub(super) const TOP: u32 = 0;

/// What a tree keeps over from the files that were copied in: the same ids, and what was set on them.
#[derive(Debug, Default)]
pub(super) struct Inherited {
    pub(super) indices: HashMap<String, u32>,
    pub(super) set: HashMap<u32, Changes>,
}

/// One freeze.
#[derive(Debug)]
pub(super) struct Frozen {
    /// As node ids carry it.
    pub(super) generation: u64,
    pub(super) inspect: bool,
    pub(super) witness: Arc<Witness>,
    /// The moment of the freeze.
    pub(super) time: SystemTime,
    image: Captured,
    nodes: HashMap<u32, Node>,
    set: Mutex<HashMap<u32, Changes>>,
    processes: HashMap<Pid, Memory>,
    /// Where the content of each [`Content::Elsewhere`] is, by its path.
    places: HashMap<String, ContentPlace>,
    pub(super) content_sums: ContentSums,
}

/// A file or directory of the image.
#[derive(Debug)]
pub(super) struct Node {
    pub(super) path: String,
    /// By name; empty for files.
    pub(super) children: BTreeMap<String, u32>,
    /// How many of them are directories: every look at a path asks for the links of each directory on it.
    subdirectories: usize,
    pub(super) content: Content,
}

impl Node {
    fn new(path: String, content: Content) -> Self {
        Node { path, children: BTreeMap::new(), subdirectories: 0, content }
    }
}

/// What a node holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Content {
    Directory,
    /// A file among the captured records, and where.
    Text {
        offset: u64,
        size: u64,
    },
    Pages(Pid),
    Sums(Pid),
    FileSums,
    /// A raw file that is read from what a task holds.
    Elsewhere {
        size: u64,
    },
}

#[derive(Debug)]
struct Memory {
    pages_size: u64,
    sums: Arc<Sums>,
    /// Held by those who read.
    source: Mutex<Weak<PageSource>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Frozen {
    /// The tree of a container that is frozen.
    ///
    /// # Errors
    /// When what the freeze left in the registry is not all there.
    pub(super) fn load(
        container: &Container,
        record: &Record,
        generation: u64,
        inherited: Inherited,
    ) -> Result<Self, Failure> {
        let broken = |what: &str| {
            Failure::new(
                Kind::System,
                format!("{}: {what} is missing although it is frozen; thaw it and freeze it again", record.name),
            )
        };
        let live = container.live()?.ok_or_else(|| broken("live.json"))?;
        let witness = Witness::new(&record.cgroup, &live)
            .doing(|| format!("{}: opening cgroup.events", record.cgroup.display()))?;
        let image = Captured::open(&container.image_file())?.ok_or_else(|| broken("image"))?;
        let sizes = if record.inspect { HashMap::new() } else { raw_sizes(&image)? };

        let mut contents: BTreeMap<String, Content> = BTreeMap::new();
        let mut processes = HashMap::new();
        for (path, entry) in image.entries() {
            let is_made = path.ends_with("/mem.pages") || path.ends_with("/mem.sums") || path == layout::CONTENTS_SUMS;
            if is_made || !(layout::kind(path).is_some() || (record.inspect && path == BLOCKERS)) {
                continue;
            }
            if let Some(pid) = layout::parse_id(path).filter(|_| entry == Entry::Directory).map(Pid) {
                let pages = layout::process_file(pid, layout::MEM_PAGES);
                let pages_size = match sizes.get(&pages) {
                    Some(&size) => size,
                    None => pages_size(&segments(&image, pid)?),
                };
                contents.insert(pages, Content::Pages(pid));
                contents.insert(layout::process_file(pid, layout::MEM_SUMS), Content::Sums(pid));
                let sums = Arc::new(Sums::new(pages_size));
                processes.insert(pid, Memory { pages_size, sums, source: Mutex::new(Weak::new()) });
            }
            let content = match entry {
                Entry::Directory => Content::Directory,
                Entry::File { offset, size } => Content::Text { offset, size },
            };
            contents.insert(path.to_owned(), content);
        }
        let mut places = HashMap::new();
        for Elsewhere { path, place, size } in live.contents {
            contents.insert(path.clone(), Content::Elsewhere { size });
            places.insert(path, place);
        }
        let summed = sizes.into_iter().filter(|(path, _)| layout::is_content(path));
        let content_sums = ContentSums::new(summed);
        if !record.inspect {
            contents.insert(layout::CONTENTS_SUMS.to_owned(), Content::FileSums);
        }
        let nodes = number(contents, &inherited.indices);
        Ok(Frozen {
            generation: super::id::mask(generation),
            inspect: record.inspect,
            witness: Arc::new(witness),
            time: image.written,
            image,
            nodes,
            set: Mutex::new(inherited.set),
            processes,
            places,
            content_sums,
        })
    }

    pub(super) fn node(&self, index: u32) -> Result<&Node, Errno> {
        self.nodes.get(&index).ok_or(Errno::ESTALE)
    }

    pub(super) fn id(&self, index: u32, alias: bool) -> Place {
        Place::Image(ImageNode::new(self.generation, index, alias))
    }

    /// Finds a name in a directory; a process also by its decimal id, which the second value tells.
    pub(super) fn child(&self, parent: u32, name: &str) -> Result<(u32, bool), Errno> {
        let children = &self.node(parent)?.children;
        if let Some(&index) = children.get(name) {
            return Ok((index, false));
        }
        let decimal = name.parse::<u32>().ok().filter(|number| parent == TOP && number.to_string() == name);
        let index = decimal.and_then(|number| children.get(&layout::id_name(number)));
        index.map(|&index| (index, true)).ok_or(Errno::ENOENT)
    }

    pub(super) fn attr(&self, index: u32, alias: bool) -> Result<Attr, Errno> {
        let node = self.node(index)?;
        let place = self.id(index, alias);
        let attr = match node.content {
            Content::Directory => Attr::directory(place, node.subdirectories, self.time),
            Content::Text { size, .. } | Content::Elsewhere { size } => Attr::file(place, size, self.time),
            Content::Pages(pid) => Attr::file(place, self.pages_size(pid), self.time),
            Content::Sums(pid) => Attr::file(place, sums_size(self.pages_size(pid)), self.time),
            Content::FileSums => Attr::file(place, self.content_sums.size(), self.time),
        };
        Ok(match lock(&self.set).get(&index) {
            Some(set) => attr.with(set),
            None => attr,
        })
    }

    /// The top's subdirectories and what was set on it.
    pub(super) fn top(&self) -> (usize, Changes) {
        let count = self.nodes.get(&TOP).map_or(0, |top| top.subdirectories);
        (count, lock(&self.set).get(&TOP).copied().unwrap_or_default())
    }

    /// Remembers what was set on a node, as long as this tree stands.
    pub(super) fn remember(&self, index: u32, changes: &Changes) {
        lock(&self.set).entry(index).or_default().absorb(changes);
    }

    /// The process whose clock vouches for a node, where it is one's.
    pub(super) fn process_of(&self, index: u32) -> Option<Pid> {
        let path = &self.nodes.get(&index)?.path;
        path.split('/').next().and_then(layout::parse_id).map(Pid)
    }

    /// Every node's number and path.
    pub(super) fn paths(&self) -> impl Iterator<Item = (u32, &str)> {
        self.nodes.iter().map(|(&index, node)| (index, node.path.as_str()))
    }

    /// The node of a path.
    pub(super) fn index_of(&self, path: &str) -> Option<u32> {
        path.split('/').try_fold(TOP, |parent, name| self.nodes.get(&parent)?.children.get(name).copied())
    }

    /// Bytes of a process's `mem.pages`.
    pub(super) fn pages_size(&self, pid: Pid) -> u64 {
        self.processes.get(&pid).map_or(0, |memory| memory.pages_size)
    }

    /// Reads a part of a text file; beyond its end there is nothing.
    pub(super) fn read_text(&self, index: u32, from: u64, len: usize) -> Result<Vec<u8>, Errno> {
        let Content::Text { offset, size } = self.node(index)?.content else { return Err(Errno::EISDIR) };
        let from = from.min(size);
        let read = self.image.read_at(offset + from, (size - from).min(len as u64));
        read.map_err(|error| error.raw_os_error().map_or(Errno::EIO, Errno::from_raw))
    }

    /// Fills a buffer with what a text file has from `from` on.
    pub(super) fn read_text_into(&self, index: u32, from: u64, buffer: &mut [u8]) -> Result<(), Errno> {
        let Content::Text { offset, size } = self.node(index)?.content else { return Err(Errno::EISDIR) };
        if from.checked_add(buffer.len() as u64).is_none_or(|end| end > size) {
            return Err(Errno::EIO);
        }
        let read = self.image.read_into(offset + from, buffer);
        read.map_err(|error| error.raw_os_error().map_or(Errno::EIO, Errno::from_raw))
    }

    /// Opens what a raw file is read from.
    pub(super) fn elsewhere(&self, index: u32) -> Result<Outside, Errno> {
        let path = &self.node(index)?.path;
        let opened = match self.places.get(path).ok_or(Errno::ESTALE)? {
            ContentPlace::Link(link) => File::open(link).map(Outside::File),
            ContentPlace::Mount(place) => {
                let listing = path.strip_suffix(".data").unwrap_or(path);
                let listing = self.image.read(listing).map_err(|_| Errno::ESTALE)?;
                let tree: Vec<TreeEntry> = parse_lines(&listing).map_err(|_| Errno::ESTALE)?;
                mount::Contents::open(place, &tree).map(Outside::Mount)
            }
        };
        // Gone with the task that held it.
        opened.map_err(|error| {
            self.witness.check_all().err().unwrap_or(Errno::from_raw(error.raw_os_error().unwrap_or(0)))
        })
    }

    /// The page contents of a process, shared by all who read them.
    pub(super) fn source(&self, pid: Pid) -> Result<Arc<PageSource>, Errno> {
        let memory = self.processes.get(&pid).ok_or(Errno::ESTALE)?;
        let mut held = lock(&memory.source);
        if let Some(source) = held.upgrade() {
            return Ok(source);
        }
        let segments = segments(&self.image, pid).map_err(|_| Errno::ESTALE)?;
        let index = PageIndex::new(&segments);
        let source = Arc::new(PageSource::new(pid, index, memory.pages_size, &self.witness, &memory.sums)?);
        *held = Arc::downgrade(&source);
        Ok(source)
    }
}

/// Numbers the paths: those that had a number before keep it, the others follow in order. cp reads a directory in the order of
/// inode numbers, so `mem.pages` comes before `mem.sums`, and `contents.sums` last of all: those then need no second read.
fn number(mut contents: BTreeMap<String, Content>, before: &HashMap<String, u32>) -> HashMap<u32, Node> {
    let mut next = before.values().copied().max().unwrap_or(TOP) + 1;
    let mut nodes = HashMap::with_capacity(contents.len() + 1);
    nodes.insert(TOP, Node::new(String::new(), Content::Directory));
    let mut directories: HashMap<String, u32> = HashMap::from([(String::new(), TOP)]);
    let last = contents.remove_entry(layout::CONTENTS_SUMS);
    for (path, content) in contents.into_iter().chain(last) {
        let index = before.get(&path).copied().unwrap_or_else(|| {
            next += 1;
            next - 1
        });
        let (parent, name) = path.rsplit_once('/').unwrap_or(("", &path));
        // Sorted, so a directory comes before what is in it.
        let parent = directories.get(parent).and_then(|parent| nodes.get_mut(parent));
        if let Some(parent) = parent {
            parent.children.insert(name.to_owned(), index);
            parent.subdirectories += usize::from(content == Content::Directory);
        }
        if content == Content::Directory {
            directories.insert(path.clone(), index);
        }
        nodes.insert(index, Node::new(path, content));
    }
    nodes
}

/// The sizes of raw files, from the manifest.
fn raw_sizes(image: &Captured) -> Result<HashMap<String, u64>, Failure> {
    let bytes = image.read(layout::MANIFEST)?;
    let manifest: Manifest = parse_object(&bytes).doing(|| format!("{}: parsing", layout::MANIFEST))?;
    let raw = manifest.paths.into_iter().filter(|entry| entry.kind == PathKind::Raw);
    Ok(raw.filter_map(|entry| Some((entry.path, entry.size?))).collect())
}

fn segments(image: &Captured, pid: Pid) -> Result<Vec<Segment>, Failure> {
    let path = layout::process_file(pid, "mem.segments");
    let bytes = image.read(&path)?;
    parse_lines(&bytes).doing(|| format!("{path}: parsing"))
}

/// Bytes of `mem.pages`, as the segments have it.
fn pages_size(segments: &[Segment]) -> u64 {
    let own = segments.iter().flat_map(|segment| &segment.pages).filter_map(|range| match range.source {
        Source::Own(first) => Some(first.saturating_add(range.count)),
        _ => None,
    });
    own.max().unwrap_or(0).saturating_mul(image_format::types::PAGE_SIZE)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn numbers_stay_and_pages_come_before_sums() {
        let text = Content::Text { offset: 0, size: 1 };
        let contents = || {
            BTreeMap::from([
                ("0x00000001".to_owned(), Content::Directory),
                ("0x00000001/mem.pages".to_owned(), Content::Pages(Pid(1))),
                ("0x00000001/mem.sums".to_owned(), Content::Sums(Pid(1))),
                ("contents.sums".to_owned(), Content::FileSums),
                ("manifest".to_owned(), text),
            ])
        };
        let nodes = number(contents(), &HashMap::new());
        let process = nodes[&TOP].children["0x00000001"];
        let children = &nodes[&process].children;
        assert!(children["mem.pages"] < children["mem.sums"]);
        assert!(nodes[&TOP].children["manifest"] < nodes[&TOP].children["contents.sums"]);
        assert_eq!(nodes.len(), 6);

        let before = HashMap::from([("manifest".to_owned(), 1), ("0x00000001".to_owned(), 9)]);
        let nodes = number(contents(), &before);
        assert_eq!(nodes[&TOP].children["manifest"], 1);
        assert_eq!(nodes[&TOP].children["0x00000001"], 9);
        assert!(nodes[&9].children["mem.pages"] > 9);
    }
}
