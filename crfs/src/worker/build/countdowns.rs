//! What has to be set again when the container first runs.

use super::builder::LetGo;
use crate::registry::{Countdowns, CountedTimerfd, CountedTimers, CountedWait, HostThread};
use crate::resource::{interval_timer, posix_timer};
use image_format::files::{FileKind, Timerfd};
use image_format::thread::Resume;
use image_format::{Image, Pid, ProcessImage, Timespec};
use std::collections::BTreeSet;

/// `TFD_TIMER_ABSTIME`
const ABSOLUTE: u32 = 1;

/// What counts a length of time in the image, of the tasks that were made of it.
pub(super) fn of(image: &Image, tasks: &[LetGo]) -> Countdowns {
    let (mut all, mut done) = (Countdowns::default(), BTreeSet::new());
    // A stub init is of no image.
    let processes = tasks.iter().filter_map(|task| Some((task, image.processes.get(&task.pid)?)));
    for (task, process) in processes {
        let thread = |tid: Pid| {
            let thread = task.threads.get(&tid)?.raw();
            Some(HostThread { process: task.host.raw(), thread })
        };
        for (&tid, record) in &process.threads {
            let resume = record.frame.syscall.as_ref().map(|call| &call.resume);
            if let (Some(&Resume::Remaining(remaining)), Some(thread)) = (resume, thread(tid)) {
                all.waits.push(CountedWait { thread, remaining });
            }
        }
        let own = process.first_thread().map(|(tid, _)| (tid, &process.fds));
        let others = process.threads.iter().filter_map(|(&tid, record)| Some((tid, record.fds.as_ref()?)));
        for (tid, fds) in own.into_iter().chain(others) {
            let Some(thread) = thread(tid) else { continue };
            for fd in fds {
                if let Some(FileKind::Timerfd(timer)) = image.files.get(&fd.file).map(|file| &file.kind)
                    && counts_time(timer)
                    && done.insert(fd.file)
                {
                    all.timerfds.push(CountedTimerfd { thread, fd: fd.fd, timer: timer.clone() });
                }
            }
        }
        all.timers.extend(timers(task, process));
    }
    all
}

fn counts_time(timer: &Timerfd) -> bool {
    timer.settime_flags & ABSOLUTE == 0 && timer.remaining != Timespec::default()
}

fn timers(task: &LetGo, process: &ProcessImage) -> Option<CountedTimers> {
    let (first, thread) = process.first_thread()?;
    let timers = process.timers();
    let interval = timers.interval.into_iter().filter(|timer| interval_timer::restore::counts_time(timer));
    let posix = timers.posix.into_iter().filter(|timer| posix_timer::restore::counts_time(timer));
    let (interval, posix): (Vec<_>, Vec<_>) = (interval.cloned().collect(), posix.cloned().collect());
    let has_any = !interval.is_empty() || !posix.is_empty();
    has_any.then(|| CountedTimers {
        pid: task.pid,
        host: task.host.raw(),
        first,
        interval,
        posix,
        pending: process.pending.clone(),
        own_pending: thread.pending.clone(),
        attr: thread.attr.clone(),
    })
}
