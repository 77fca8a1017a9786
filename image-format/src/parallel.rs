//! Work on many things at once.

use std::num::NonZero;

/// A thread is not worth starting for less.
const FEWEST: usize = 32;

/// What `work` makes of each item, in their order. Many items are shared among as many threads as there are processors.
pub fn map<T: Sync, R: Send>(items: &[T], work: impl Fn(&T) -> R + Sync) -> Vec<R> {
    let of = |share: &[T]| share.iter().map(&work).collect::<Vec<R>>();
    if items.len() <= FEWEST {
        // Asking how many processors there are takes longer than a few items.
        return of(items);
    }
    let processors = std::thread::available_parallelism().map_or(1, NonZero::get);
    let share = items.len().div_ceil(processors).max(FEWEST);
    std::thread::scope(|scope| {
        let (own, others) = items.split_at(share.min(items.len()));
        let begin = |share| std::thread::Builder::new().spawn_scoped(scope, move || of(share)).map_err(|_| share);
        let others: Vec<_> = others.chunks(share).map(begin).collect();
        let mut results = of(own);
        for other in others {
            match other.map(std::thread::ScopedJoinHandle::join) {
                Ok(Ok(more)) => results.extend(more),
                Ok(Err(panic)) => std::panic::resume_unwind(panic),
                // No thread was to be had.
                Err(share) => results.extend(of(share)),
            }
        }
        results
    })
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
}
