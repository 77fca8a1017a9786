//! Records as the text files of a tree, and which paths the tree has.

use super::{Image, ProcessImage, ThreadImage};
use crate::files::File;
use crate::manifest::{Manifest, PathEntry, PathKind};
use crate::mounts::data_size;
use crate::process::Absent;
use crate::sysv::SysV;
use crate::text::{append_lines, append_object};
use crate::types::{FileId, Pid};
use crate::{layout, parallel};
use serde::Serialize;
use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

/// Records of a kind whose text is made by one thread in a row: a group is written while the next ones are made.
const GROUP: usize = 32;

/// Text files, one after the other.
#[derive(Debug, Default)]
pub struct Texts {
    bytes: Vec<u8>,
    /// Their paths, and where each ends.
    files: Vec<(String, usize)>,
}

impl Texts {
    /// All of them in a row.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Path and content of each.
    pub fn files(&self) -> impl Iterator<Item = (&str, &[u8])> {
        let starts = std::iter::once(0).chain(self.files.iter().map(|(_, end)| *end));
        self.files.iter().zip(starts).map(|((path, end), start)| (path.as_str(), &self.bytes[start..*end]))
    }

    fn object<T: Serialize>(&mut self, path: String, record: &T) {
        append_object(&mut self.bytes, record);
        self.files.push((path, self.bytes.len()));
    }

    fn lines<T: Serialize>(&mut self, path: String, records: &[T]) {
        append_lines(&mut self.bytes, records);
        self.files.push((path, self.bytes.len()));
    }

    fn clear(&mut self) {
        self.bytes.clear();
        self.files.clear();
    }
}

/// What is rendered in a row.
enum Group<'a> {
    Manifest(&'a Manifest),
    Container(&'a Image),
    Files(&'a [(&'a FileId, &'a File)]),
    Processes(&'a [&'a ProcessImage]),
    Threads(&'a [(Pid, Pid, &'a ThreadImage)]),
}

impl Group<'_> {
    fn render(&self, texts: &mut Texts) {
        match self {
            Group::Manifest(manifest) => texts.object(layout::MANIFEST.to_owned(), manifest),
            Group::Container(image) => image.render_container(texts),
            Group::Files(files) => files.iter().for_each(|(id, file)| texts.object(layout::file_entry(**id), file)),
            Group::Processes(processes) => processes.iter().for_each(|process| process.render(texts)),
            Group::Threads(threads) => threads.iter().for_each(|(pid, tid, thread)| thread.render(*pid, *tid, texts)),
        }
    }
}

impl Image {
    /// The image's text files by path, but for `manifest`, `mem.sums` and `contents.sums`.
    #[must_use]
    pub fn render(&self) -> BTreeMap<String, Vec<u8>> {
        let mut files = BTreeMap::new();
        let owned = |(path, bytes): (&str, &[u8])| (path.to_owned(), bytes.to_vec());
        self.render_each(false, |texts| files.extend(texts.files().map(owned)));
        files
    }

    /// [`Image::render`], and `manifest` if it is wanted, group by group in no particular order: `out` takes one while the next ones are made by
    /// other threads, and the text of all of them never lies in memory at once.
    pub fn render_each(&self, manifest: bool, mut out: impl FnMut(&Texts)) {
        let files: Vec<_> = self.files.iter().collect();
        let processes: Vec<&ProcessImage> = self.processes.values().collect();
        let threads = processes
            .iter()
            .flat_map(|process| process.threads.iter().map(|(&tid, thread)| (process.process.pid, tid, thread)));
        let threads: Vec<_> = threads.collect();
        // The longest first: it names every file.
        let mut groups = Vec::from_iter(manifest.then_some(Group::Manifest(&self.manifest)));
        groups.push(Group::Container(self));
        groups.extend(files.chunks(GROUP).map(Group::Files));
        groups.extend(processes.chunks(GROUP).map(Group::Processes));
        groups.extend(threads.chunks(GROUP).map(Group::Threads));
        // Memory that was written to once costs less than fresh one.
        let used: Mutex<Vec<Texts>> = Mutex::default();
        let pool = || used.lock().unwrap_or_else(PoisonError::into_inner);
        let render = |group: &Group<'_>| {
            let mut texts = pool().pop().unwrap_or_default();
            group.render(&mut texts);
            texts
        };
        parallel::each(&groups, render, |mut texts| {
            out(&texts);
            texts.clear();
            pool().push(texts);
        });
    }

    /// What belongs to no process and is no open file description.
    fn render_container(&self, out: &mut Texts) {
        for name in layout::CONTAINER_ABSENT {
            out.lines::<Absent>(name.to_owned(), &[]);
        }
        out.lines(layout::STDIOS.to_owned(), &self.stdios);
        out.lines(layout::SECCOMP.to_owned(), &self.seccomp);
        out.lines(layout::SYSV_SHM.to_owned(), &self.sysv.segments);
        out.lines(layout::SYSV_SEM.to_owned(), &self.sysv.semaphores);
        out.lines(layout::SYSV_MSG.to_owned(), &self.sysv.queues);
        out.lines(layout::POSIX_MQ.to_owned(), &self.queues);
        out.lines(layout::LOCKS.to_owned(), &self.locks);
        out.lines(layout::UNNAMED.to_owned(), &self.unnamed);
        out.lines(layout::MOUNTS.to_owned(), &self.mounts);
        out.lines(layout::CGROUPS.to_owned(), &self.cgroups);
        out.lines(layout::NAMESPACES.to_owned(), &self.namespaces);
        for (&number, tree) in &self.trees {
            out.lines(layout::mount_tree(number), tree);
        }
        for (&number, pty) in &self.ttys {
            out.object(layout::tty_file(number), pty);
        }
    }

    /// Every path the image has but the manifest's own, sorted: what `manifest.paths` holds.
    #[must_use]
    pub fn paths(&self) -> Vec<PathEntry> {
        let entry = |path: String, kind, size| PathEntry { path, kind, size };
        let text = |path: String| {
            let kind = layout::kind(&path).unwrap_or(PathKind::Object);
            entry(path, kind, None)
        };
        let mut paths: Vec<PathEntry> = self.render_names().into_iter().map(text).collect();
        paths.push(entry(layout::FILES.to_owned(), PathKind::Directory, None));
        paths.push(text(layout::CONTENTS_SUMS.to_owned()));
        for (&pid, process) in &self.processes {
            paths.push(entry(layout::process_dir(pid), PathKind::Directory, None));
            paths.push(text(layout::process_file(pid, layout::MEM_SUMS)));
            paths.push(entry(layout::process_file(pid, layout::MEM_PAGES), PathKind::Raw, Some(process.pages_size())));
            for &tid in process.threads.keys() {
                paths.push(entry(layout::process_file(pid, &layout::id_name(tid.0)), PathKind::Directory, None));
            }
        }
        for (&id, file) in &self.files {
            if file.queue_size() > 0 {
                paths.push(entry(layout::socket_data(id), PathKind::Raw, Some(file.queue_size())));
            }
            if let Some(pipe) = file.pipe() {
                paths.push(entry(layout::pipe_data(pipe.pipe), PathKind::Raw, Some(pipe.queued)));
            }
        }
        for file in &self.unnamed {
            paths.push(entry(layout::unnamed_data(file.number), PathKind::Raw, Some(file.size)));
        }
        for (&number, tree) in &self.trees {
            paths.push(entry(layout::mount_data(number), PathKind::Raw, Some(data_size(tree))));
        }
        for (namespace, SysV { segments, queues, .. }) in self.ipc_namespaces() {
            for segment in segments {
                let path = layout::segment_data(namespace, segment.id);
                paths.push(entry(path, PathKind::Raw, Some(segment.content_size())));
            }
            for queue in queues {
                paths.push(entry(layout::queue_data(namespace, queue.id), PathKind::Raw, Some(queue.queued())));
            }
        }
        for queue in &self.queues {
            paths.push(entry(layout::posix_queue_data(queue.number), PathKind::Raw, Some(queue.queued())));
        }
        paths.sort();
        // The ends of a pipe share its data.
        paths.dedup_by(|later, entry| later.path == entry.path);
        paths
    }

    /// The names of [`Image::render`] without rendering.
    fn render_names(&self) -> Vec<String> {
        let mut names: Vec<String> = layout::CONTAINER_ABSENT.iter().map(|&name| name.to_owned()).collect();
        names.extend([layout::STDIOS, layout::SECCOMP].map(str::to_owned));
        names.extend([layout::LOCKS, layout::UNNAMED].map(str::to_owned));
        names.extend(layout::CONTAINER_FILES.map(str::to_owned));
        names.extend(self.files.keys().map(|&id| layout::file_entry(id)));
        names.extend(self.trees.keys().map(|&number| layout::mount_tree(number)));
        names.extend(self.ttys.keys().map(|&number| layout::tty_file(number)));
        for (&pid, process) in &self.processes {
            let own = layout::PROCESS_FILES.iter().map(|(name, _)| *name).filter(|&name| name != layout::MEM_SUMS);
            names.extend(own.map(|name| layout::process_file(pid, name)));
            for (&tid, thread) in &process.threads {
                names.extend(layout::THREAD_FILES.iter().map(|(name, _)| layout::thread_file(pid, tid, name)));
                names.extend(thread.fds.as_ref().map(|_| layout::thread_file(pid, tid, layout::FDS)));
            }
        }
        names
    }
}

impl ProcessImage {
    /// Its own files, without those of its threads.
    fn render(&self, out: &mut Texts) {
        let path = |name| layout::process_file(self.process.pid, name);
        out.object(path("process"), &self.process);
        out.object(path("attr"), &self.attr);
        out.lines(path("fds"), &self.fds);
        out.lines(path("aio"), &self.aio);
        out.lines(path("ldt"), &self.ldt);
        out.lines(path("numa"), &self.numa);
        out.lines(path("mem.segments"), &self.segments);
        out.lines(path("signal.action"), &self.actions);
        out.lines(path("signal.pending"), &self.pending);
        out.lines(path("sysv.semadj"), &self.semadj);
        out.lines(path("sysv.shmcount"), &self.attached());
        out.lines(path("thread.list"), &self.thread_list());
    }
}

impl ThreadImage {
    fn render(&self, pid: Pid, tid: Pid, out: &mut Texts) {
        let path = |name| layout::thread_file(pid, tid, name);
        out.object(path("attr"), &self.attr);
        out.object(path("signal"), &self.mask);
        out.object(path("signal.altstack"), &self.altstack);
        out.lines(path("signal.pending"), &self.pending);
        out.object(path("thread"), &self.fpu);
        out.object(path("thread.frame"), &self.frame);
        out.lines(path("timers"), &self.timers);
        out.object(path("tls"), &self.tls);
        out.lines(path("wait.zombies"), &self.zombies);
        if let Some(fds) = &self.fds {
            out.lines(path(layout::FDS), fds);
        }
    }
}
