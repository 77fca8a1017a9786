//! From FUSE requests to the tree and back: types are turned into one another, and what takes long goes to the pool.

use super::pool::Pool;
use crate::tree::{Attr, BLOCK_SIZE, Changes, Content, Entry, HandleId, NodeId, Opened, Step, Tree};
use fuser::{
    BackingId, BsdFileFlags, Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags, Generation, INodeNo,
    InitFlags, KernelConfig, LockOwner, OpenFlags, RenameFlags, ReplyAttr, ReplyCreate, ReplyData, ReplyDirectory,
    ReplyDirectoryPlus, ReplyEmpty, ReplyEntry, ReplyOpen, ReplyStatfs, ReplyWrite, Request, TimeOrNow, WriteFlags,
};
use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::SystemTime;

/// Bytes of one read or write: what the kernel's page limit allows by default.
const MAX_WRITE: u32 = 1 << 20;
/// What is asked for beyond the library's own; what the kernel lacks is left out.
const WANTED: [InitFlags; 6] = [
    InitFlags::FUSE_DO_READDIRPLUS,
    InitFlags::FUSE_READDIRPLUS_AUTO,
    InitFlags::FUSE_PARALLEL_DIROPS,
    InitFlags::FUSE_ATOMIC_O_TRUNC,
    // Without it every write asks for an extended attribute first.
    InitFlags::FUSE_HANDLE_KILLPRIV_V2,
    InitFlags::FUSE_PASSTHROUGH,
];

/// The tree as a FUSE file system.
pub(super) struct Adapter {
    tree: Arc<Tree>,
    pool: Pool,
    passthrough: bool,
    backing: Mutex<Backing>,
}

/// Files the kernel was sent to. All openings of a node share one registration, which lives until the last is released.
#[derive(Default)]
struct Backing {
    by_node: HashMap<INodeNo, Weak<BackingId>>,
    by_handle: HashMap<FileHandle, Arc<BackingId>>,
}

impl Adapter {
    pub(super) fn new(tree: Arc<Tree>) -> Self {
        Adapter { tree, pool: Pool::default(), passthrough: false, backing: Mutex::default() }
    }

    /// Answers now, or from the pool.
    fn answer<T, R>(&self, step: Step<T>, reply: R, answer: impl FnOnce(R, Result<T, Errno>) + Send + 'static)
    where
        T: Send + 'static,
        R: Send + 'static,
    {
        match step {
            Step::Now(result) => answer(reply, result.map_err(errno)),
            Step::Later(work) => self.pool.run(move || answer(reply, work().map_err(errno))),
        }
    }

    /// Registers a file that the kernel may read and write itself; None: it goes through us.
    fn backing(
        &self,
        node: INodeNo,
        handle: FileHandle,
        file: &File,
        register: impl FnOnce(&File) -> io::Result<BackingId>,
    ) -> Option<Arc<BackingId>> {
        if !self.passthrough {
            return None;
        }
        let mut backing = self.backing.lock().unwrap_or_else(PoisonError::into_inner);
        let id = match backing.by_node.get(&node).and_then(Weak::upgrade) {
            Some(id) => id,
            None => {
                let registered = register(file).inspect_err(|error| tracing::debug!("no passthrough: {error}"));
                Arc::new(registered.ok()?)
            }
        };
        backing.by_node.insert(node, Arc::downgrade(&id));
        backing.by_handle.insert(handle, Arc::clone(&id));
        Some(id)
    }

    fn release_backing(&self, handle: FileHandle) {
        let mut backing = self.backing.lock().unwrap_or_else(PoisonError::into_inner);
        if backing.by_handle.remove(&handle).is_some() {
            backing.by_node.retain(|_, id| id.strong_count() != 0);
        }
    }
}

/// The one place where our errno becomes the library's.
fn errno(errno: nix::errno::Errno) -> Errno {
    Errno::from_i32(errno as i32)
}

fn node(ino: INodeNo) -> NodeId {
    NodeId(ino.0)
}

fn handle(fh: FileHandle) -> HandleId {
    HandleId(fh.0)
}

/// Permission bits.
fn mode(mode: u32) -> u16 {
    u16::try_from(mode & 0o7777).unwrap_or(0)
}

fn attributes(attr: &Attr) -> FileAttr {
    FileAttr {
        ino: INodeNo(attr.node.0),
        size: attr.size,
        // Never less than the size has: cp would look for holes.
        blocks: attr.size.div_ceil(512),
        atime: attr.accessed,
        mtime: attr.modified,
        ctime: attr.changed,
        crtime: attr.changed,
        kind: if attr.directory { FileType::Directory } else { FileType::RegularFile },
        perm: attr.mode,
        nlink: attr.links,
        uid: attr.uid,
        gid: attr.gid,
        rdev: 0,
        blksize: BLOCK_SIZE,
        flags: 0,
    }
}

fn reply_entry(reply: ReplyEntry, result: Result<Entry, nix::errno::Errno>) {
    match result {
        Ok(entry) => reply.entry(&entry.ttl, &attributes(&entry.attr), Generation(0)),
        Err(error) => reply.error(errno(error)),
    }
}

fn reply_attr(reply: ReplyAttr, result: Result<Entry, nix::errno::Errno>) {
    match result {
        Ok(entry) => reply.attr(&entry.ttl, &attributes(&entry.attr)),
        Err(error) => reply.error(errno(error)),
    }
}

fn reply_empty(reply: ReplyEmpty, result: Result<(), Errno>) {
    match result {
        Ok(()) => reply.ok(),
        Err(errno) => reply.error(errno),
    }
}

fn reply_opened(reply: ReplyOpen, result: Result<Opened, Errno>) {
    match result {
        Ok(opened) => reply.opened(FileHandle(opened.handle.0), flags(&opened)),
        Err(errno) => reply.error(errno),
    }
}

fn flags(opened: &Opened) -> FopenFlags {
    let how = match opened.content {
        Content::Cached => FopenFlags::FOPEN_KEEP_CACHE,
        Content::Direct | Content::Backed(_) => FopenFlags::FOPEN_DIRECT_IO,
    };
    if opened.flush { how } else { how | FopenFlags::FOPEN_NOFLUSH }
}

/// A name an image or container could have; anything else is answered by `refuse`.
macro_rules! utf8 {
    ($self:ident, $name:ident, $reply:ident) => {
        match $name.to_str() {
            Some(name) => name,
            None => return $reply.error(errno($self.tree.refuse_name($name))),
        }
    };
}

impl Filesystem for Adapter {
    fn init(&mut self, _req: &Request, config: &mut KernelConfig) -> io::Result<()> {
        for wanted in WANTED {
            // What the kernel lacks costs speed, nothing else.
            let granted = config.add_capabilities(wanted).is_ok();
            if wanted == InitFlags::FUSE_PASSTHROUGH {
                self.passthrough = granted && config.set_max_stack_depth(1).is_ok();
            }
        }
        // The library's own limit is higher, so neither can fail; the defaults would do as well.
        let _ = config.set_max_write(MAX_WRITE);
        Ok(())
    }

    fn destroy(&mut self) {
        self.tree.close();
    }

    fn lookup(&self, _req: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        match name.to_str() {
            Some(name) => reply_entry(reply, self.tree.lookup(node(parent), name)),
            None => reply.error(Errno::ENOENT),
        }
    }

    fn getattr(&self, _req: &Request, ino: INodeNo, _fh: Option<FileHandle>, reply: ReplyAttr) {
        reply_attr(reply, self.tree.attr(node(ino)));
    }

    fn setattr(
        &self,
        _req: &Request,
        ino: INodeNo,
        mode: Option<u32>,
        uid: Option<u32>,
        gid: Option<u32>,
        size: Option<u64>,
        atime: Option<TimeOrNow>,
        mtime: Option<TimeOrNow>,
        _ctime: Option<SystemTime>,
        _fh: Option<FileHandle>,
        _crtime: Option<SystemTime>,
        _chgtime: Option<SystemTime>,
        _bkuptime: Option<SystemTime>,
        _flags: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        let time = |time| match time {
            TimeOrNow::SpecificTime(time) => time,
            TimeOrNow::Now => SystemTime::now(),
        };
        let changes = Changes {
            mode: mode.map(self::mode),
            uid,
            gid,
            size,
            accessed: atime.map(time),
            modified: mtime.map(time),
        };
        reply_attr(reply, self.tree.set_attr(node(ino), &changes));
    }

    fn mknod(
        &self,
        _req: &Request,
        _parent: INodeNo,
        name: &OsStr,
        _mode: u32,
        _umask: u32,
        _rdev: u32,
        reply: ReplyEntry,
    ) {
        reply.error(errno(self.tree.refuse_special(&name.to_string_lossy())));
    }

    fn symlink(&self, _req: &Request, _parent: INodeNo, name: &OsStr, _target: &Path, reply: ReplyEntry) {
        reply.error(errno(self.tree.refuse_special(&name.to_string_lossy())));
    }

    fn link(&self, _req: &Request, _ino: INodeNo, _newparent: INodeNo, newname: &OsStr, reply: ReplyEntry) {
        reply.error(errno(self.tree.refuse_special(&newname.to_string_lossy())));
    }

    fn mkdir(&self, _req: &Request, parent: INodeNo, name: &OsStr, mode: u32, umask: u32, reply: ReplyEntry) {
        let name = utf8!(self, name, reply);
        reply_entry(reply, self.tree.make_directory(node(parent), name, self::mode(mode & !umask)));
    }

    fn unlink(&self, _req: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let name = utf8!(self, name, reply);
        reply_empty(reply, self.tree.unlink(node(parent), name).map_err(errno));
    }

    fn rmdir(&self, _req: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let (name, tree) = (utf8!(self, name, reply).to_owned(), Arc::clone(&self.tree));
        self.pool.run(move || reply_empty(reply, tree.remove_directory(node(parent), &name).map_err(errno)));
    }

    fn rename(
        &self,
        _req: &Request,
        parent: INodeNo,
        name: &OsStr,
        newparent: INodeNo,
        newname: &OsStr,
        flags: RenameFlags,
        reply: ReplyEmpty,
    ) {
        let (name, newname) = (utf8!(self, name, reply), utf8!(self, newname, reply));
        let keep = flags.contains(RenameFlags::RENAME_NOREPLACE);
        if !(flags & !RenameFlags::RENAME_NOREPLACE).is_empty() {
            return reply.error(Errno::EINVAL);
        }
        let step = self.tree.rename((node(parent), name), (node(newparent), newname), keep);
        self.answer(step, reply, reply_empty);
    }

    fn open(&self, _req: &Request, ino: INodeNo, flags: OpenFlags, reply: ReplyOpen) {
        let write = flags.0 & libc::O_ACCMODE != libc::O_RDONLY;
        match self.tree.open(node(ino), write, flags.0 & libc::O_TRUNC != 0) {
            Step::Now(Ok(opened)) => {
                let fh = FileHandle(opened.handle.0);
                let id = match &opened.content {
                    Content::Backed(file) => self.backing(ino, fh, file, |file| reply.open_backing(file)),
                    Content::Cached | Content::Direct => None,
                };
                match id {
                    Some(id) => reply.opened_passthrough(fh, FopenFlags::empty(), &id),
                    None => reply_opened(reply, Ok(opened)),
                }
            }
            step => self.answer(step, reply, reply_opened),
        }
    }

    fn create(
        &self,
        _req: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        umask: u32,
        flags: i32,
        reply: ReplyCreate,
    ) {
        let name = utf8!(self, name, reply);
        let write = flags & libc::O_ACCMODE != libc::O_RDONLY;
        let (entry, opened) = match self.tree.create(node(parent), name, self::mode(mode & !umask), write) {
            Ok(created) => created,
            Err(error) => return reply.error(errno(error)),
        };
        let (fh, attr) = (FileHandle(opened.handle.0), attributes(&entry.attr));
        let id = match &opened.content {
            Content::Backed(file) => self.backing(attr.ino, fh, file, |file| reply.open_backing(file)),
            Content::Cached | Content::Direct => None,
        };
        match id {
            Some(id) => reply.created_passthrough(&entry.ttl, &attr, Generation(0), fh, FopenFlags::empty(), &id),
            None => reply.created(&entry.ttl, &attr, Generation(0), fh, FopenFlags::FOPEN_DIRECT_IO),
        }
    }

    fn read(
        &self,
        _req: &Request,
        _ino: INodeNo,
        fh: FileHandle,
        offset: u64,
        size: u32,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let size = usize::try_from(size).unwrap_or(usize::MAX);
        self.answer(self.tree.read(handle(fh), offset, size), reply, |reply, result| match result {
            Ok(data) => reply.data(data.as_ref()),
            Err(errno) => reply.error(errno),
        });
    }

    fn write(
        &self,
        _req: &Request,
        _ino: INodeNo,
        fh: FileHandle,
        offset: u64,
        data: &[u8],
        _write_flags: WriteFlags,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        self.answer(self.tree.write(handle(fh), offset, data), reply, |reply, result| match result {
            Ok(count) => reply.written(u32::try_from(count).unwrap_or(u32::MAX)),
            Err(errno) => reply.error(errno),
        });
    }

    fn flush(&self, _req: &Request, _ino: INodeNo, fh: FileHandle, _lock_owner: LockOwner, reply: ReplyEmpty) {
        self.answer(self.tree.flush(handle(fh)), reply, reply_empty);
    }

    fn release(
        &self,
        _req: &Request,
        _ino: INodeNo,
        fh: FileHandle,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        _flush: bool,
        reply: ReplyEmpty,
    ) {
        self.tree.release(handle(fh));
        self.release_backing(fh);
        reply.ok();
    }

    fn fsync(&self, _req: &Request, _ino: INodeNo, _fh: FileHandle, _datasync: bool, reply: ReplyEmpty) {
        // The registry lies in memory by intention: a machine that goes down takes the tasks with it.
        reply.ok();
    }

    fn fsyncdir(&self, _req: &Request, _ino: INodeNo, _fh: FileHandle, _datasync: bool, reply: ReplyEmpty) {
        reply.ok();
    }

    fn opendir(&self, _req: &Request, ino: INodeNo, _flags: OpenFlags, reply: ReplyOpen) {
        match self.tree.open_directory(node(ino)) {
            Ok(opened) => reply.opened(FileHandle(opened.handle.0), FopenFlags::empty()),
            Err(error) => reply.error(errno(error)),
        }
    }

    fn readdir(&self, _req: &Request, ino: INodeNo, fh: FileHandle, offset: u64, mut reply: ReplyDirectory) {
        let entries = match self.tree.entries(handle(fh)) {
            Ok(entries) => entries,
            Err(error) => return reply.error(errno(error)),
        };
        for (at, (name, id, directory)) in (1..).zip(dots(ino).into_iter().chain(names(&entries))).skip(skip(offset)) {
            let kind = if directory { FileType::Directory } else { FileType::RegularFile };
            if reply.add(id, at, kind, name) {
                break;
            }
        }
        reply.ok();
    }

    fn readdirplus(&self, _req: &Request, ino: INodeNo, fh: FileHandle, offset: u64, mut reply: ReplyDirectoryPlus) {
        let entries = match self.tree.entries(handle(fh)) {
            Ok(entries) => entries,
            Err(error) => return reply.error(errno(error)),
        };
        for (at, (name, id, _)) in (1..).zip(dots(ino).into_iter().chain(names(&entries))).skip(skip(offset)) {
            // The dots have no entries of their own in the kernel, and a name that is gone by now has none here.
            let Ok(entry) = self.tree.attr(node(id)) else { continue };
            let (ttl, attr) = (entry.ttl, attributes(&entry.attr));
            if reply.add(id, at, name, &ttl, &attr, Generation(0)) {
                break;
            }
        }
        reply.ok();
    }

    fn releasedir(&self, _req: &Request, _ino: INodeNo, fh: FileHandle, _flags: OpenFlags, reply: ReplyEmpty) {
        self.tree.release(handle(fh));
        reply.ok();
    }

    fn statfs(&self, _req: &Request, _ino: INodeNo, reply: ReplyStatfs) {
        match self.tree.statfs() {
            Ok(s) => {
                let size = |size: u64| u32::try_from(size).unwrap_or(4096);
                reply.statfs(
                    s.blocks(),
                    s.blocks_free(),
                    s.blocks_available(),
                    s.files(),
                    s.files_free(),
                    size(s.block_size()),
                    size(s.name_max()),
                    size(s.fragment_size()),
                );
            }
            Err(error) => reply.error(errno(error)),
        }
    }
}

fn dots(ino: INodeNo) -> [(&'static str, INodeNo, bool); 2] {
    [(".", ino, true), ("..", ino, true)]
}

fn names(entries: &[crate::tree::Listed]) -> impl Iterator<Item = (&str, INodeNo, bool)> {
    entries.iter().map(|listed| (listed.name.as_str(), INodeNo(listed.node.0), listed.directory))
}

fn skip(offset: u64) -> usize {
    usize::try_from(offset).unwrap_or(usize::MAX)
}
