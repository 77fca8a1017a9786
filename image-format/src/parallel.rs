//! Work on many things at once.

use std::num::NonZero;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::sync_channel;

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
    let of = |items: &[T], results: &mut [Option<R>]| {
        for (item, result) in items.iter().zip(results) {
            *result = Some(work(item));
        }
    };
    let processors = std::thread::available_parallelism().map_or(1, NonZero::get);
    let share = items.len().div_ceil(processors).max(FEWEST);
    std::thread::scope(|scope| {
        let mut shares = items.chunks(share).zip(results.chunks_mut(share));
        let own = shares.next();
        for (items, results) in shares {
            // Where no thread is to be had, the share is worked on below.
            let _ = std::thread::Builder::new().spawn_scoped(scope, || of(items, results));
        }
        if let Some((items, results)) = own {
            of(items, results);
        }
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
        match one.join() {
            Ok(one) => (one, other),
            Err(panic) => std::panic::resume_unwind(panic),
        }
    })
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
            for _ in 0..processors {
                let done = done.clone();
                let help = move || while take().is_some_and(|item| done.send(work(item)).is_ok()) {};
                let started = std::thread::Builder::new().spawn_scoped(scope, help);
                if started.is_err() {
                    break;
                }
            }
            drop(done);
            results.into_iter().for_each(&mut out);
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
