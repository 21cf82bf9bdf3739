//! The threads of one handle, on which its asynchronous requests run.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

/// A request with its completion.
pub type Job = Box<dyn FnOnce() + Send>;

/// Dropping it runs what is queued and ends the threads.
pub struct Pool {
    shared: Arc<Shared>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    queue: VecDeque<Job>,
    running: usize,
    ending: bool,
}

impl Pool {
    pub fn new(threads: usize) -> std::io::Result<Self> {
        let shared = Arc::new(Shared { state: Mutex::default(), changed: Condvar::new() });
        let pool = Self { shared, threads: Mutex::default() };
        for _ in 0..threads {
            let shared = Arc::clone(&pool.shared);
            let thread = std::thread::Builder::new()
                .name("vddk-stub-io".to_owned())
                .spawn(move || shared.work())?;
            pool.threads.lock().unwrap_or_else(PoisonError::into_inner).push(thread);
        }
        Ok(pool)
    }

    pub fn submit(&self, job: Job) {
        self.shared.lock().queue.push_back(job);
        self.shared.changed.notify_all();
    }

    /// Returns when every request submitted so far has been completed.
    pub fn wait(&self) {
        let mut state = self.shared.lock();
        while state.running > 0 || !state.queue.is_empty() {
            state = self.shared.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// How many requests have not been completed.
    pub fn outstanding(&self) -> usize {
        let state = self.shared.lock();
        state.running + state.queue.len()
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.shared.lock().ending = true;
        self.shared.changed.notify_all();
        let threads =
            std::mem::take(&mut *self.threads.lock().unwrap_or_else(PoisonError::into_inner));
        for thread in threads {
            // A completion that closes the handle runs on one of these threads.
            if thread.thread().id() != std::thread::current().id() {
                let _ = thread.join();
            }
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn work(&self) {
        let mut state = self.lock();
        loop {
            if let Some(job) = state.queue.pop_front() {
                state.running += 1;
                drop(state);
                job();
                state = self.lock();
                state.running -= 1;
                self.changed.notify_all();
            } else if state.ending {
                return;
            } else {
                state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Barrier;
    use std::sync::atomic::{AtomicUsize, Ordering};

    #[test]
    fn several_at_once_and_all_done_after_wait() {
        let pool = Pool::new(3).unwrap();
        let together = Arc::new(Barrier::new(3));
        let done = Arc::new(AtomicUsize::new(0));
        for _ in 0..9 {
            let (together, done) = (Arc::clone(&together), Arc::clone(&done));
            pool.submit(Box::new(move || {
                together.wait();
                done.fetch_add(1, Ordering::SeqCst);
            }));
        }
        pool.wait();
        assert_eq!(done.load(Ordering::SeqCst), 9);
        assert_eq!(pool.outstanding(), 0);
    }

    #[test]
    fn dropping_runs_what_is_queued() {
        let done = Arc::new(AtomicUsize::new(0));
        let pool = Pool::new(1).unwrap();
        for _ in 0..5 {
            let done = Arc::clone(&done);
            pool.submit(Box::new(move || {
                done.fetch_add(1, Ordering::SeqCst);
            }));
        }
        drop(pool);
        assert_eq!(done.load(Ordering::SeqCst), 5);
    }
}
