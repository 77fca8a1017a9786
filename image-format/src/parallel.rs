//! Work on many things at once.
//!
//! Threads that were started have ended when a function returns, for the kernel as well (`pthread_join`): the caller may go on to calls that only a
//! process of one thread may make. `std::thread::scope` alone waits for what they do, and not for their end.

use std::num::NonZero;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::sync_channel;
use std::thread::ScopedJoinHandle;

/// A thread is not worth starting for less.
const FEWEST: usize = 32;

/// What `work` makes of each item, in their order. Many items are shared among as many threads as there are processors.
pub fn map<T: Sync, R: Send>(items: &[T], work: impl Fn(&T) -> R + Sync) -> Vec<R> {
    if items.len() <= FEWEST {
        // Asking how many processors there are takes longer than a few items.
        return items.iter().map(work).collect();
    }
    // Each is written where it stays: fresh memory costs more than what most of this work is.
    let mut results = Vec::from_iter(items.iter().map(|_| None));
    let of = |(items, results): (&[T], &mut [Option<R>])| {
        for (item, result) in items.iter().zip(results) {
            *result = Some(work(item));
        }
    };
    let of = &of;
    let processors = std::thread::available_parallelism().map_or(1, NonZero::get);
    let share = items.len().div_ceil(processors).max(FEWEST);
    std::thread::scope(|scope| {
        let mut shares = items.chunks(share).zip(results.chunks_mut(share));
        let own = shares.next();
        // Where no thread is to be had, the share is worked on below.
        let start = |share| std::thread::Builder::new().spawn_scoped(scope, move || of(share)).ok();
        let started: Vec<_> = shares.filter_map(start).collect();
        if let Some(own) = own {
            of(own);
        }
        started.into_iter().for_each(join);
    });
    for (item, result) in items.iter().zip(&mut results) {
        result.get_or_insert_with(|| work(item));
    }
    results.into_iter().flatten().collect()
}

/// Does two things: where the first is `long` enough for it, on a thread of its own while the second is done here.
pub fn both<A: Send, B>(long: bool, one: impl FnOnce() -> A + Send, other: impl FnOnce() -> B) -> (A, B) {
    if !long {
        return (one(), other());
    }
    std::thread::scope(|scope| {
        let one = scope.spawn(one);
        let other = other();
        (join(one), other)
    })
}

/// Does the same by so many threads, of which the caller is one. Where fewer are to be had, by those.
pub fn by(threads: usize, work: impl Fn() + Sync) {
    std::thread::scope(|scope| {
        let start = |_| std::thread::Builder::new().spawn_scoped(scope, &work).ok();
        let started: Vec<_> = (1..threads).filter_map(start).collect();
        work();
        started.into_iter().for_each(join);
    });
}

/// Waits for the end of a thread. Its panic goes on in the caller.
fn join<T>(thread: ScopedJoinHandle<'_, T>) -> T {
    thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

/// A few things are done sooner than threads are started for them.
const FEWEST_EACH: usize = 8;

/// Hands what `work` makes of each item to `out`, in no particular order: `out` stays on this thread, while others work on the next items.
pub fn each<T: Sync, R: Send>(items: &[T], work: impl Fn(&T) -> R + Sync, mut out: impl FnMut(R)) {
    let next = AtomicUsize::new(0);
    let (work, take) = (&work, || items.get(next.fetch_add(1, Ordering::Relaxed)));
    if items.len() > FEWEST_EACH {
        let processors = std::thread::available_parallelism().map_or(1, NonZero::get);
        let (done, results) = sync_channel(processors);
        std::thread::scope(|scope| {
            let start = |_| {
                let done = done.clone();
                let help = move || while take().is_some_and(|item| done.send(work(item)).is_ok()) {};
                std::thread::Builder::new().spawn_scoped(scope, help).ok()
            };
            let started: Vec<_> = (0..processors).map_while(start).collect();
            drop(done);
            results.into_iter().for_each(&mut out);
            started.into_iter().for_each(join);
        });
    }
    // All of them where no thread was to be had.
    while let Some(item) = take() {
        out(work(item));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_are_in_order() {
        for count in [0, 1, FEWEST, FEWEST + 1, 1000] {
            let items: Vec<usize> = (0..count).collect();
            assert_eq!(map(&items, |item| item + 1), (1..=count).collect::<Vec<_>>());
        }
    }

    #[test]
    fn both_are_done() {
        for long in [false, true] {
            assert_eq!(both(long, || 1, || "two"), (1, "two"));
        }
    }

    #[test]
    fn as_many_do_it_as_were_asked() {
        for threads in [0, 1, 4] {
            let done = AtomicUsize::new(0);
            by(threads, || {
                done.fetch_add(1, Ordering::Relaxed);
            });
            assert_eq!(done.into_inner(), threads.max(1));
        }
        let panicked = std::panic::catch_unwind(|| by(2, || assert!(std::thread::current().name().is_some())));
        assert!(panicked.is_err(), "of a thread that was started, which has no name");
    }

    #[test]
    fn each_is_handed_out_once() {
        for count in [0, 1, FEWEST_EACH, FEWEST_EACH + 1, 1000] {
            let items: Vec<usize> = (0..count).collect();
            let mut found = Vec::new();
            each(&items, |item| item + 1, |result| found.push(result));
            found.sort_unstable();
            assert_eq!(found, (1..=count).collect::<Vec<_>>());
        }
    }
}
