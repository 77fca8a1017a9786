//! Threads for what takes long, so that the loop that serves the mount never waits.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// A thread without work for so long ends.
const IDLE: Duration = Duration::from_secs(10);

type Work = Box<dyn FnOnce() + Send>;

/// As many threads as there is work at a time. Not bounded: the work may wait for other work, or for minutes.
#[derive(Clone, Default)]
pub(super) struct Pool(Arc<Shared>);

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    work: Condvar,
}

#[derive(Default)]
struct State {
    queue: VecDeque<Work>,
    idle: usize,
}

impl Pool {
    /// Runs the work on a thread that has none, or a new one. Without threads to be had, here.
    pub(super) fn run(&self, work: impl FnOnce() + Send + 'static) {
        let mut state = self.0.lock();
        state.queue.push_back(Box::new(work));
        if state.idle >= state.queue.len() {
            self.0.work.notify_one();
            return;
        }
        drop(state);
        let shared = Arc::clone(&self.0);
        if std::thread::Builder::new().name("crfs-work".to_owned()).spawn(move || shared.serve()).is_err() {
            let work = self.0.lock().queue.pop_back();
            if let Some(work) = work {
                work();
            }
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn serve(&self) {
        let mut state = self.lock();
        loop {
            if let Some(work) = state.queue.pop_front() {
                drop(state);
                work();
                state = self.lock();
                continue;
            }
            state.idle += 1;
            let (woken, waited) = self.work.wait_timeout(state, IDLE).unwrap_or_else(PoisonError::into_inner);
            state = woken;
            state.idle -= 1;
            if waited.timed_out() && state.queue.is_empty() {
                return;
            }
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use std::sync::mpsc;

    #[test]
    fn work_that_waits_for_other_work_is_no_deadlock() {
        let pool = Pool::default();
        let (done, all) = mpsc::channel();
        let mut before: Option<mpsc::Receiver<()>> = None;
        let mut senders = Vec::new();
        for number in 0..20 {
            let (sender, receiver) = mpsc::channel();
            senders.push(sender);
            let wait = before.replace(receiver);
            let done = done.clone();
            pool.run(move || {
                if let Some(wait) = wait {
                    let _ = wait.recv_timeout(Duration::from_secs(10));
                }
                done.send(number).unwrap();
            });
        }
        for sender in senders.into_iter().rev() {
            sender.send(()).unwrap_or(());
        }
        let mut seen: Vec<i32> = (0..20).map(|_| all.recv_timeout(Duration::from_secs(10)).unwrap()).collect();
        seen.sort_unstable();
        assert_eq!(seen, (0..20).collect::<Vec<_>>());
    }
}
