//! Reads what waits for a process and its threads, and the timers that send it.

use super::Job;
use super::records::Threads;
use crate::failure::Failure;
use crate::resource::container::Moment;
use crate::resource::subject::{Process, Subjects};
use crate::resource::{Findings, interval_timer, posix_timer, signal};
use crfs_kstate::Itimer;
use image_format::signal::PendingSignal;
use image_format::timer::Timer;
use image_format::{ProcessImage, layout};

/// Fills in the queues and timers of a process whose threads all stand still.
///
/// Timers run on meanwhile. One that expires between a look at it and one at the queues would be lost, or be told twice: so the timers are
/// looked at before and after, until none of them has expired in between. Each can do so once, since nobody takes its signal. What one
/// has sent after the moment that the clocks go on from is left out again, or it would be told before its time.
pub(super) fn read(
    job: &mut Job,
    subjects: &Subjects,
    subject: &Process,
    threads: &Threads,
    moment: &Moment,
    image: &mut ProcessImage,
    findings: &mut Findings,
) -> Result<(), Failure> {
    let mut timers = Timers::read(job, subject)?;
    loop {
        pending(job, subject, threads, image)?;
        let again = Timers::read(job, subject)?;
        if timers.none_expired(&again) {
            break;
        }
        timers = again;
    }
    let queued = image.pending.iter().chain(image.threads.values().flat_map(|thread| &thread.pending));
    let posix = match timers.posix {
        Some(timers) => posix_timer::records(timers, subject, subjects, queued, &mut job.proc, moment, findings)?,
        None => Vec::new(),
    };
    let mut fires_yet = false;
    if let Some(timers) = &timers.interval {
        let left_out = |signal: &PendingSignal| interval_timer::fires_yet(timers, moment, signal);
        fires_yet = image.pending.iter().any(left_out);
        image.pending.retain(|signal| !left_out(signal));
    }
    for queue in std::iter::once(&mut image.pending).chain(image.threads.values_mut().map(|thread| &mut thread.pending))
    {
        queue.retain(|signal| !posix_timer::restore::sends_yet(&posix, signal));
    }
    if let Some(first) = image.threads.get_mut(&subject.alive().tid) {
        let interval =
            timers.interval.map(|timers| interval_timer::records(&timers, moment, fires_yet)).unwrap_or_default();
        first.timers = interval.into_iter().map(Timer::Interval).chain(posix.into_iter().map(Timer::Posix)).collect();
    }
    Ok(())
}

/// A look at the timers of a process.
struct Timers {
    interval: Option<[Itimer; 3]>,
    posix: Option<posix_timer::Timers>,
}

impl Timers {
    fn read(job: &mut Job, subject: &Process) -> Result<Self, Failure> {
        let first = subject.alive();
        let object = layout::process_file(subject.pid, &layout::id_name(first.tid.0));
        Ok(Timers {
            interval: interval_timer::read(first.host, &object, &mut job.kernel)?,
            posix: posix_timer::read(subject, &mut job.proc, &mut job.kernel)?,
        })
    }

    fn none_expired(&self, after: &Timers) -> bool {
        let interval = match (&self.interval, &after.interval) {
            (Some(before), Some(after)) => interval_timer::none_expired(before, after),
            _ => true,
        };
        let posix = match (&self.posix, &after.posix) {
            (Some(before), Some(after)) => before.none_expired(after),
            _ => true,
        };
        interval && posix
    }
}

fn pending(job: &mut Job, subject: &Process, threads: &Threads, image: &mut ProcessImage) -> Result<(), Failure> {
    let object = layout::process_dir(subject.pid);
    let first = subject.alive();
    if let Some(still) = threads.get(&first.host) {
        image.pending = signal::pending(still, true, first.status.shared_pending, &object, &mut job.kernel)?;
    }
    for thread in &subject.threads {
        if let (Some(still), Some(image)) = (threads.get(&thread.host), image.threads.get_mut(&thread.tid)) {
            let object = layout::process_file(subject.pid, &layout::id_name(thread.tid.0));
            image.pending = signal::pending(still, false, thread.status.pending, &object, &mut job.kernel)?;
        }
    }
    Ok(())
}
