//! Records as the text files of a tree, and which paths the tree has.

use super::{Image, ProcessImage, ThreadImage};
use crate::manifest::{PathEntry, PathKind};
use crate::mounts::data_size;
use crate::process::Absent;
use crate::text::{render_lines, render_object};
use crate::types::Pid;
use crate::{layout, parallel};
use std::collections::BTreeMap;

/// Processes, or threads, whose text is made before any of it is written.
const RENDERED_AT_ONCE: usize = 256;

impl Image {
    /// The image's text files by path, but for `manifest`, `mem.sums` and `contents.sums`.
    #[must_use]
    pub fn render(&self) -> BTreeMap<String, Vec<u8>> {
        let mut files = BTreeMap::new();
        self.render_each(|path, bytes| drop(files.insert(path, bytes)));
        files
    }

    /// [`Image::render`] group by group, in no particular order: the text of all of them never lies in memory at once.
    pub fn render_each(&self, mut out: impl FnMut(String, Vec<u8>)) {
        for name in layout::CONTAINER_ABSENT {
            out(name.to_owned(), render_lines::<Absent>(&[]));
        }
        out(layout::STDIOS.to_owned(), render_lines(&self.stdios));
        out(layout::SECCOMP.to_owned(), render_lines(&self.seccomp));
        out(layout::SYSV_SHM.to_owned(), render_lines(&self.sysv.segments));
        out(layout::SYSV_SEM.to_owned(), render_lines(&self.sysv.semaphores));
        out(layout::SYSV_MSG.to_owned(), render_lines(&self.sysv.queues));
        out(layout::POSIX_MQ.to_owned(), render_lines(&self.queues));
        out(layout::LOCKS.to_owned(), render_lines(&self.locks));
        out(layout::UNNAMED.to_owned(), render_lines(&self.unnamed));
        out(layout::MOUNTS.to_owned(), render_lines(&self.mounts));
        out(layout::CGROUPS.to_owned(), render_lines(&self.cgroups));
        out(layout::NAMESPACES.to_owned(), render_lines(&self.namespaces));
        for (&number, tree) in &self.trees {
            out(layout::mount_tree(number), render_lines(tree));
        }
        let files: Vec<_> = self.files.iter().collect();
        for group in files.chunks(RENDERED_AT_ONCE) {
            let texts = parallel::map(group, |&(&id, file)| (layout::file_entry(id), render_object(file)));
            texts.into_iter().for_each(|(path, bytes)| out(path, bytes));
        }
        for (&number, pty) in &self.ttys {
            out(layout::tty_file(number), render_object(pty));
        }
        let processes: Vec<&ProcessImage> = self.processes.values().collect();
        for group in processes.chunks(RENDERED_AT_ONCE) {
            let texts = parallel::map(group, |process| process.render());
            texts.into_iter().flatten().for_each(|(path, bytes)| out(path, bytes));
        }
        let threads =
            self.processes.iter().flat_map(|(pid, process)| process.threads.iter().map(move |thread| (pid, thread)));
        let threads: Vec<_> = threads.collect();
        for group in threads.chunks(RENDERED_AT_ONCE) {
            let texts = parallel::map(group, |&(&pid, (&tid, thread))| thread.render(pid, tid));
            texts.into_iter().flatten().for_each(|(path, bytes)| out(path, bytes));
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
        for segment in &self.sysv.segments {
            paths.push(entry(layout::segment_data(segment.id), PathKind::Raw, Some(segment.content_size())));
        }
        for queue in &self.sysv.queues {
            paths.push(entry(layout::queue_data(queue.id), PathKind::Raw, Some(queue.queued())));
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
    fn render(&self) -> Vec<(String, Vec<u8>)> {
        let own = [
            ("process", render_object(&self.process)),
            ("attr", render_object(&self.attr)),
            ("fds", render_lines(&self.fds)),
            ("aio", render_lines(&self.aio)),
            ("ldt", render_lines(&self.ldt)),
            ("numa", render_lines(&self.numa)),
            ("mem.segments", render_lines(&self.segments)),
            ("signal.action", render_lines(&self.actions)),
            ("signal.pending", render_lines(&self.pending)),
            ("sysv.semadj", render_lines(&self.semadj)),
            ("sysv.shmcount", render_lines(&self.attached())),
            ("thread.list", render_lines(&self.thread_list())),
        ];
        own.into_iter().map(|(name, bytes)| (layout::process_file(self.process.pid, name), bytes)).collect()
    }
}

impl ThreadImage {
    fn render(&self, pid: Pid, tid: Pid) -> Vec<(String, Vec<u8>)> {
        let own = [
            ("attr", render_object(&self.attr)),
            ("signal", render_object(&self.mask)),
            ("signal.altstack", render_object(&self.altstack)),
            ("signal.pending", render_lines(&self.pending)),
            ("thread", render_object(&self.fpu)),
            ("thread.frame", render_object(&self.frame)),
            ("timers", render_lines(&self.timers)),
            ("tls", render_object(&self.tls)),
            ("wait.zombies", render_lines(&self.zombies)),
        ];
        let fds = self.fds.as_ref().map(|fds| (layout::FDS, render_lines(fds)));
        own.into_iter().chain(fds).map(|(name, bytes)| (layout::thread_file(pid, tid, name), bytes)).collect()
    }
}
