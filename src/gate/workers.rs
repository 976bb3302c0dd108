//! Threads for connections: one each, parked for a while when their connection is
//! over, because a client that does not keep alive brings the next one at once.

use crate::sync::{lock, wait_until};
use std::any::Any;
use std::collections::{HashMap, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::{self, JoinHandle, ThreadId};
use std::time::{Duration, Instant};

/// Bytes of stack. Only touched pages cost memory: a few for HTTP, more for a
/// WebSocket session, whose library wants room.
const STACK: usize = 256 * 1024;

/// Threads that stay parked; more than a browser's burst of connections.
const MAX_PARKED: usize = 16;

type Work<J> = Box<dyn Fn(J) + Send + Sync>;

/// The threads, and the jobs that wait for one.
pub(super) struct Workers<J>(Arc<Shared<J>>);

struct Shared<J> {
    work: Work<J>,
    parked: Duration,
    most: usize,
    state: Mutex<Pool<J>>,
    wake: Condvar,
    ended: Condvar,
}

struct Pool<J> {
    jobs: VecDeque<J>,
    parked: usize,
    threads: HashMap<ThreadId, JoinHandle<()>>,
    ended: Vec<ThreadId>,
    closed: bool,
}

impl<J: Send + 'static> Workers<J> {
    /// Threads that do `work` with each job, and stay `parked` for so long after it:
    /// at most `most`, which is at least as many as there are ever jobs.
    pub fn new(work: Work<J>, parked: Duration, most: usize) -> Self {
        let state = Pool {
            jobs: VecDeque::new(),
            parked: 0,
            threads: HashMap::new(),
            ended: Vec::new(),
            closed: false,
        };
        Self(Arc::new(Shared {
            work,
            parked,
            most,
            state: Mutex::new(state),
            wake: Condvar::new(),
            ended: Condvar::new(),
        }))
    }

    /// Gives a job to a thread that is parked or about to be, or to a new one. Never
    /// queues it behind another job.
    ///
    /// # Errors
    /// Gives the job back when no thread can be started.
    pub fn start(&self, job: J) -> Result<(), J> {
        let mut state = lock(&self.0.state);
        state.reap();
        state.jobs.push_back(job);
        if state.parked >= state.jobs.len() {
            drop(state);
            self.0.wake.notify_one();
            return Ok(());
        }
        if state.threads.len() >= self.0.most {
            // Then one of them is through with its job, and looks for another first.
            return Ok(());
        }
        let shared = Arc::clone(&self.0);
        let spawned = thread::Builder::new()
            .name("gate-connection".to_owned())
            .stack_size(STACK)
            .spawn(move || shared.run());
        match spawned {
            Ok(handle) => {
                state.threads.insert(handle.thread().id(), handle);
                Ok(())
            }
            Err(error) => {
                log::warn!("no thread for another connection: {error}");
                state.jobs.pop_back().map_or(Ok(()), Err)
            }
        }
    }

    /// Takes no more jobs and joins every thread that ends by `until`. Gives the
    /// number of those that did not.
    pub fn join(&self, until: Instant) -> usize {
        let mut state = lock(&self.0.state);
        state.closed = true;
        self.0.wake.notify_all();
        let wants = |state: &mut Pool<J>| {
            state.reap();
            !state.threads.is_empty()
        };
        wait_until(until, &self.0.ended, state, wants).threads.len()
    }

    #[cfg(test)]
    pub fn count(&self) -> usize {
        let state = lock(&self.0.state);
        state.threads.len() - state.ended.len()
    }
}

impl<J> Pool<J> {
    /// Joins the threads that are through; they hold no lock and end at once.
    fn reap(&mut self) {
        for id in std::mem::take(&mut self.ended) {
            if let Some(handle) = self.threads.remove(&id) {
                let _ = handle.join();
            }
        }
    }
}

impl<J> Shared<J> {
    fn run(&self) {
        let mut state = lock(&self.state);
        loop {
            if let Some(job) = state.jobs.pop_front() {
                drop(state);
                if let Err(panic) = catch_unwind(AssertUnwindSafe(|| (self.work)(job))) {
                    log::error!("a connection ended by a panic: {}", text_of(&*panic));
                }
                state = lock(&self.state);
                continue;
            }
            if state.closed || state.parked >= MAX_PARKED {
                break;
            }
            state.parked += 1;
            let (guard, waited) =
                self.wake.wait_timeout(state, self.parked).unwrap_or_else(PoisonError::into_inner);
            state = guard;
            state.parked -= 1;
            if waited.timed_out() && state.jobs.is_empty() {
                break;
            }
        }
        state.ended.push(thread::current().id());
        drop(state);
        self.ended.notify_all();
    }
}

fn text_of(panic: &(dyn Any + Send)) -> &str {
    match (panic.downcast_ref::<&str>(), panic.downcast_ref::<String>()) {
        (Some(text), _) => text,
        (_, Some(text)) => text,
        _ => "no text",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;

    #[test]
    fn threads_are_reused_survive_a_panic_and_all_end() {
        let (tell, told) = mpsc::channel();
        let work = Box::new(move |job: usize| {
            assert!(job != 1, "on purpose");
            tell.send(thread::current().id()).unwrap();
        });
        let workers = Workers::new(work, Duration::from_secs(60), 100);
        let mut seen = std::collections::HashSet::new();
        for job in 0..200 {
            workers.start(job).unwrap();
            if job != 1 {
                seen.insert(told.recv().unwrap());
            }
        }
        assert!(seen.len() <= MAX_PARKED + 2, "{}", seen.len());
        assert_eq!(workers.join(Instant::now() + Duration::from_secs(10)), 0);
    }

    #[test]
    fn a_job_never_waits_for_another_one() {
        let gate = Arc::new(std::sync::Barrier::new(40));
        let work = Box::new(move |(): ()| {
            gate.wait();
        });
        let workers = Workers::new(work, Duration::ZERO, 40);
        for _ in 0..40 {
            workers.start(()).unwrap();
        }
        assert_eq!(workers.join(Instant::now() + Duration::from_secs(10)), 0);
    }
}
