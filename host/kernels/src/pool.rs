//! Threads that work on one op at a time: fork, share out tasks, join, hundreds of times a step.
//!
//! Between the ops of a step the threads spin, for waking one takes longer than many an op; they sleep
//! soon after the last. A thread that the system keeps from running is not waited for unless it has
//! begun a task. How tasks fall to threads changes no bit: each writes its own part of the output.
//!
//! It never nests: a task that calls another op runs it alone.

use std::any::Any;
use std::cell::{Cell, UnsafeCell};
use std::hint::spin_loop;
use std::io;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::ptr;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// How long a thread without work spins before it sleeps. Longer than what lies between two ops of a
/// step, shorter than what an idle server should burn.
const SPIN: Duration = Duration::from_micros(100);
/// Looks at the state between two looks at the clock.
const LOOKS: usize = 64;

/// The lowest bit of the state: threads may still join the job.
const OPEN: u64 = 1;
/// One thread inside the job; up to 2¹⁵ of them lie above `OPEN`.
const INSIDE: u64 = 2;
const INSIDE_MASK: u64 = 0xfffe;
/// One job; the rest of the state counts them.
const EPOCH: u64 = 1 << 16;

/// Most threads of a pool.
pub const THREADS_MAX: usize = 1024;

thread_local! {
    /// The pool that ops of this thread are shared out over.
    static CURRENT: Cell<*const Shared> = const { Cell::new(ptr::null()) };
    /// Which thread of its pool this one is; the one that installs it is the first.
    static INDEX: Cell<usize> = const { Cell::new(0) };
}

/// What all threads look at.
struct Shared {
    /// Number of the job, threads inside it, whether it is open.
    state: AtomicU64,
    /// Next task to be taken.
    next: AtomicUsize,
    /// Written by the thread that opens a job, while nobody is inside.
    job: UnsafeCell<Job>,
    threads: usize,
    asleep: AtomicUsize,
    ending: AtomicBool,
    lock: Mutex<()>,
    wake: Condvar,
    panic: Mutex<Option<Box<dyn Any + Send>>>,
}

// SAFETY: `job` is written only by the thread that has the pool installed, while the state is closed
// and nobody is inside; it is read only by threads inside. The state's orderings make the write
// visible. Everything else is `Sync` by itself.
unsafe impl Sync for Shared {}
// SAFETY: the pointer in `job` is only followed by threads inside, see `fork`.
unsafe impl Send for Shared {}

/// A closure that lives on the stack of the thread in `fork`.
#[derive(Clone, Copy)]
struct Job {
    data: *const (),
    call: unsafe fn(*const (), usize),
    tasks: usize,
}

unsafe fn nothing(_: *const (), _: usize) {}

/// A fixed number of threads, the caller's own included. Dropping it ends them.
pub struct Pool {
    shared: Arc<Shared>,
    workers: Vec<JoinHandle<()>>,
}

impl Pool {
    /// Starts `threads - 1` threads beside the one that will call [`Pool::install`].
    ///
    /// # Errors
    /// A thread that the system refuses.
    ///
    /// # Panics
    /// If `threads` is zero or above [`THREADS_MAX`].
    pub fn new(threads: usize) -> io::Result<Self> {
        assert!((1..=THREADS_MAX).contains(&threads), "threads of a pool");
        let shared = Arc::new(Shared {
            state: AtomicU64::new(0),
            next: AtomicUsize::new(0),
            job: UnsafeCell::new(Job { data: ptr::null(), call: nothing, tasks: 0 }),
            threads,
            asleep: AtomicUsize::new(0),
            ending: AtomicBool::new(false),
            lock: Mutex::new(()),
            wake: Condvar::new(),
            panic: Mutex::new(None),
        });
        let mut pool = Self { shared, workers: Vec::new() };
        for index in 1..threads {
            let shared = Arc::clone(&pool.shared);
            let builder = std::thread::Builder::new().name(format!("compute-{index}"));
            pool.workers.push(builder.spawn(move || {
                INDEX.set(index);
                shared.work();
            })?);
        }
        Ok(pool)
    }

    /// Threads, the caller's included.
    #[must_use]
    pub fn threads(&self) -> usize {
        self.shared.threads
    }

    /// Runs `work` on this thread; every op it calls is shared out over the pool.
    pub fn install<R>(&mut self, work: impl FnOnce() -> R) -> R {
        let _restore = Restore(CURRENT.replace(Arc::as_ptr(&self.shared)));
        work()
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.shared.ending.store(true, Ordering::SeqCst);
        self.shared.wake_all();
        for worker in self.workers.drain(..) {
            // A worker catches the panics of its tasks, so it does not panic itself.
            let _ = worker.join();
        }
    }
}

impl std::fmt::Debug for Pool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pool").field("threads", &self.threads()).finish_non_exhaustive()
    }
}

/// Puts back what the thread had installed before, after a panic too.
struct Restore(*const Shared);

impl Drop for Restore {
    fn drop(&mut self) {
        CURRENT.set(self.0);
    }
}

impl Shared {
    fn lock(&self) -> std::sync::MutexGuard<'_, ()> {
        // Nothing is guarded but the moment between a look and a sleep.
        self.lock.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wake_all(&self) {
        drop(self.lock());
        self.wake.notify_all();
    }

    /// The life of a worker: find an open job it has not seen, join it, take tasks until there are
    /// none.
    fn work(&self) {
        let mut seen = 0;
        while let Some(state) = self.next_job(seen) {
            seen = state & !(EPOCH - 1);
            let joined = self.state.compare_exchange(
                state,
                state + INSIDE,
                Ordering::AcqRel,
                Ordering::Relaxed,
            );
            if joined.is_err() {
                // Another joined or the job was closed in the meantime: look again.
                seen = seen.wrapping_sub(EPOCH);
                continue;
            }
            // SAFETY: this thread is inside, so the job is not written until it has left.
            let job = unsafe { *self.job.get() };
            if let Err(panic) = catch_unwind(AssertUnwindSafe(|| self.take_tasks(&job))) {
                *self.panic.lock().unwrap_or_else(PoisonError::into_inner) = Some(panic);
            }
            self.state.fetch_sub(INSIDE, Ordering::Release);
        }
    }

    /// Waits for a job other than `seen` that is open; `None` when the pool ends.
    fn next_job(&self, seen: u64) -> Option<u64> {
        let is_new = |state: u64| state & OPEN != 0 && state & !(EPOCH - 1) != seen;
        let mut since = Instant::now();
        loop {
            for _ in 0..LOOKS {
                let state = self.state.load(Ordering::Acquire);
                if is_new(state) {
                    return Some(state);
                }
                spin_loop();
            }
            if self.ending.load(Ordering::Relaxed) {
                return None;
            }
            if since.elapsed() < SPIN {
                continue;
            }
            self.asleep.fetch_add(1, Ordering::SeqCst);
            let mut guard = self.lock();
            // Whoever opens a job changes the state before it looks for sleepers; we are counted
            // before we look at the state. So one of the two sees the other.
            while !is_new(self.state.load(Ordering::SeqCst)) && !self.ending.load(Ordering::SeqCst)
            {
                guard = self.wake.wait(guard).unwrap_or_else(PoisonError::into_inner);
            }
            drop(guard);
            self.asleep.fetch_sub(1, Ordering::SeqCst);
            since = Instant::now();
        }
    }

    fn take_tasks(&self, job: &Job) {
        loop {
            let index = self.next.fetch_add(1, Ordering::Relaxed);
            if index >= job.tasks {
                return;
            }
            // SAFETY: `data` is the closure that `call` was made for. It lives until `fork` returns,
            // which waits for this thread to leave.
            unsafe { (job.call)(job.data, index) };
        }
    }

    /// Runs all tasks on this thread and on whoever joins.
    fn fork<F: Fn(usize) + Sync>(&self, tasks: usize, task: &F) {
        unsafe fn call<F: Fn(usize)>(data: *const (), index: usize) {
            // SAFETY: `data` was made from a reference to an `F` that is still borrowed.
            let task = unsafe { &*data.cast::<F>() };
            task(index);
        }
        let job = Job { data: ptr::from_ref(task).cast(), call: call::<F>, tasks };
        // SAFETY: the state is closed and nobody is inside: the fork before waited for that.
        unsafe { *self.job.get() = job };
        self.next.store(0, Ordering::Relaxed);
        let closed = self.state.load(Ordering::Relaxed);
        self.state.store(closed.wrapping_add(EPOCH) | OPEN, Ordering::SeqCst);
        if self.asleep.load(Ordering::SeqCst) > 0 {
            self.wake_all();
        }
        let closing = Closing(self);
        self.take_tasks(&job);
        drop(closing);
        let panic = self.panic.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(panic) = panic {
            resume_unwind(panic);
        }
    }
}

/// Closes the job and waits for who is inside, also when a task of this thread panics: the closure
/// lies on this thread's stack.
struct Closing<'a>(&'a Shared);

impl Drop for Closing<'_> {
    fn drop(&mut self) {
        let mut state = self.0.state.fetch_and(!OPEN, Ordering::AcqRel);
        let mut looks = 0_usize;
        while state & INSIDE_MASK != 0 {
            looks += 1;
            // Whoever is inside may be waiting for this very processor.
            if looks.is_multiple_of(LOOKS * 16) {
                std::thread::yield_now();
            } else {
                spin_loop();
            }
            state = self.0.state.load(Ordering::Acquire);
        }
    }
}

/// Threads that [`for_tasks`] would share out over.
pub(crate) fn threads() -> usize {
    let current = CURRENT.get();
    if current.is_null() {
        return 1;
    }
    // SAFETY: set by `install`, which borrows the pool and restores the value before it returns.
    unsafe { (*current).threads }
}

/// The parts of something that threads have for themselves, until they have nothing left to do: what a
/// thread has asked for ahead of time is in its own cache.
pub(crate) struct Shares {
    count: usize,
    /// Per thread, the first of its share that nobody has taken.
    next: Vec<AtomicUsize>,
}

impl Shares {
    /// `0..count` in as many shares as the installed pool has threads.
    pub(crate) fn of(count: usize) -> Self {
        let threads = threads();
        let next = (0..threads).map(|thread| AtomicUsize::new(count * thread / threads)).collect();
        Self { count, next }
    }

    fn end(&self, thread: usize) -> usize {
        self.count * (thread + 1) / self.next.len()
    }

    fn this_thread(&self) -> usize {
        INDEX.get() % self.next.len()
    }

    /// The next of this thread's share, or else of another's.
    pub(crate) fn take(&self) -> Option<usize> {
        let threads = self.next.len();
        (0..threads).map(|other| (self.this_thread() + other) % threads).find_map(|thread| {
            let taken = self.next[thread].fetch_add(1, Ordering::Relaxed);
            (taken < self.end(thread)).then_some(taken)
        })
    }

    /// What of this thread's share is to be taken for `done` parts of `of` to be.
    pub(crate) fn advance(&self, done: usize, of: usize) -> Range<usize> {
        let thread = self.this_thread();
        let first = self.count * thread / self.next.len();
        let until = first + (self.end(thread) - first) * done.min(of) / of;
        let from = self.next[thread].fetch_max(until, Ordering::Relaxed);
        from.min(until)..until
    }
}

/// Runs `task` for `0..tasks` over the installed pool, or here if there is none. They begin in order and
/// end in any. A panic of a task is this call's.
pub fn for_tasks(tasks: usize, task: impl Fn(usize) + Sync) {
    let current = CURRENT.get();
    // SAFETY: set by `install`, which borrows the pool and restores the value before it returns.
    let shared = (!current.is_null()).then(|| unsafe { &*current });
    match shared.filter(|shared| shared.threads > 1 && tasks > 1) {
        None => (0..tasks).for_each(task),
        Some(shared) => {
            // Tasks do not nest.
            let _restore = Restore(CURRENT.replace(ptr::null()));
            shared.fork(tasks, &task);
        }
    }
}

/// Tasks that later ones of the same round wait for.
pub(crate) struct Stage {
    left: AtomicUsize,
}

impl Stage {
    pub(crate) fn of(tasks: usize) -> Self {
        Self { left: AtomicUsize::new(tasks) }
    }

    /// Runs one of the tasks. One that panics counts as done: whoever waits must not wait forever, and
    /// the round fails as a whole.
    pub(crate) fn run(&self, task: impl FnOnce()) {
        struct Done<'a>(&'a AtomicUsize);
        impl Drop for Done<'_> {
            fn drop(&mut self) {
                self.0.fetch_sub(1, Ordering::Release);
            }
        }
        let _done = Done(&self.left);
        task();
    }

    /// Waits until all tasks are done. Each must have begun, on this thread or another.
    pub(crate) fn wait(&self) {
        let mut looks = 0_usize;
        while self.left.load(Ordering::Acquire) > 0 {
            looks += 1;
            // Whoever is at it may be waiting for this very processor.
            if looks.is_multiple_of(LOOKS * 16) {
                std::thread::yield_now();
            } else {
                spin_loop();
            }
        }
    }
}

/// A slice of which tasks write disjoint parts at the same time.
pub(crate) struct Parts<'a, T> {
    first: *mut T,
    len: usize,
    lifetime: std::marker::PhantomData<&'a mut [T]>,
}

// SAFETY: parts are disjoint, see `part`, so sharing `Parts` shares no element.
unsafe impl<T: Send> Sync for Parts<'_, T> {}
// SAFETY: as a `&mut [T]`.
unsafe impl<T: Send> Send for Parts<'_, T> {}

impl<'a, T> Parts<'a, T> {
    pub(crate) fn of(slice: &'a mut [T]) -> Self {
        let (first, len) = (slice.as_mut_ptr(), slice.len());
        Self { first, len, lifetime: std::marker::PhantomData }
    }

    /// The elements of `range`.
    ///
    /// # Safety
    /// While the part is in use, no other part has any of its elements.
    #[expect(clippy::mut_from_ref, reason = "the caller sees to it that parts are disjoint")]
    pub(crate) unsafe fn part(&self, range: Range<usize>) -> &mut [T] {
        assert!(range.start <= range.end && range.end <= self.len);
        // SAFETY: the range lies in the slice, which is borrowed for `'a`; the caller sees to it that
        // nobody else has these elements.
        unsafe { std::slice::from_raw_parts_mut(self.first.add(range.start), range.len()) }
    }

    /// All elements.
    ///
    /// # Safety
    /// While they are borrowed, nobody has a part.
    pub(crate) unsafe fn whole(&self) -> &[T] {
        // SAFETY: the slice is borrowed for `'a`; the caller sees to it that nobody writes to it.
        unsafe { std::slice::from_raw_parts(self.first, self.len) }
    }

    /// Address of an element.
    pub(crate) fn at(&self, index: usize) -> *mut T {
        assert!(index <= self.len);
        // SAFETY: within the slice, or one past its end.
        unsafe { self.first.add(index) }
    }
}

/// Runs `task` for each `chunk` elements of `slice` and its index.
pub(crate) fn for_chunks<T: Send>(
    slice: &mut [T],
    chunk: usize,
    task: impl Fn(usize, &mut [T]) + Sync,
) {
    let len = slice.len();
    let parts = Parts::of(slice);
    for_tasks(len.div_ceil(chunk), |index| {
        let range = index * chunk..((index + 1) * chunk).min(len);
        // SAFETY: chunks of different indices are disjoint, and each index is one task.
        task(index, unsafe { parts.part(range) });
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_part_of_shares_is_taken_once() {
        for (threads, count) in [(1, 5), (3, 0), (3, 2), (4, 1000)] {
            Pool::new(threads).unwrap().install(|| {
                let taken: Vec<AtomicUsize> = (0..count).map(|_| AtomicUsize::new(0)).collect();
                let shares = Shares::of(count);
                for_tasks(count, |_| {
                    let part = shares.take().unwrap();
                    taken[part].fetch_add(1, Ordering::Relaxed);
                });
                assert!(taken.iter().all(|taken| taken.load(Ordering::Relaxed) == 1));
                assert_eq!(shares.take(), None);
            });
        }
    }

    #[test]
    fn a_share_is_gone_through_in_order() {
        Pool::new(2).unwrap().install(|| {
            let shares = Shares::of(9);
            let parts: Vec<_> = (1..=4).map(|done| shares.advance(done, 3)).collect();
            assert_eq!(parts, [0..1, 1..2, 2..4, 4..4]);
            assert!(shares.advance(1, 3).is_empty(), "what is done stays done");
        });
    }

    #[test]
    fn every_task_runs_once_whatever_the_threads() {
        for threads in [1, 2, 3, 8] {
            let mut pool = Pool::new(threads).unwrap();
            pool.install(|| {
                assert_eq!(super::threads(), threads);
                for round in 0..200 {
                    let len = round % 37;
                    let mut counts = vec![0_u32; len];
                    for_chunks(&mut counts, 1, |index, chunk| chunk[0] += 1 + index as u32);
                    let expected: Vec<u32> = (1..=len as u32).collect();
                    assert_eq!(counts, expected);
                }
            });
            assert_eq!(super::threads(), 1, "installed for the length of the call");
        }
    }

    #[test]
    fn later_tasks_wait_for_a_stage_even_if_it_fails() {
        for threads in [1, 2, 4] {
            let mut pool = Pool::new(threads).unwrap();
            pool.install(|| {
                for fails in [None, Some(0), Some(2)] {
                    let (stage, done) = (Stage::of(3), AtomicUsize::new(0));
                    let run = || {
                        for_tasks(20, |index| {
                            if index < 3 {
                                stage.run(|| {
                                    assert_ne!(Some(index), fails);
                                    done.fetch_add(1, Ordering::Relaxed);
                                });
                            } else {
                                stage.wait();
                                assert!(fails.is_some() || done.load(Ordering::Relaxed) == 3);
                            }
                        });
                    };
                    assert_eq!(catch_unwind(AssertUnwindSafe(run)).is_err(), fails.is_some());
                }
            });
        }
    }

    #[test]
    fn threads_that_slept_are_woken() {
        let mut pool = Pool::new(3).unwrap();
        while pool.shared.asleep.load(Ordering::SeqCst) < 2 {
            std::thread::yield_now();
        }
        // A task that waits for the other ones: all three threads must come.
        let inside = AtomicUsize::new(0);
        pool.install(|| {
            for_tasks(3, |_| {
                inside.fetch_add(1, Ordering::SeqCst);
                while inside.load(Ordering::SeqCst) < 3 {
                    std::thread::yield_now();
                }
            });
        });
    }

    #[test]
    fn a_task_inside_a_task_runs_alone() {
        let mut pool = Pool::new(2).unwrap();
        let ran = AtomicUsize::new(0);
        pool.install(|| {
            for_tasks(4, |_| {
                for_tasks(5, |_| {
                    let _ = ran.fetch_add(1, Ordering::SeqCst);
                })
            });
        });
        assert_eq!(ran.into_inner(), 20);
    }

    #[test]
    fn a_panic_reaches_the_caller_and_the_pool_goes_on() {
        let mut pool = Pool::new(2).unwrap();
        for bad in 0..8 {
            let run = AssertUnwindSafe(|| {
                pool.install(|| for_tasks(8, |index| assert_ne!(index, bad, "told to")));
            });
            assert!(catch_unwind(run).is_err());
        }
        let mut counts = [0; 9];
        pool.install(|| for_chunks(&mut counts, 2, |_, chunk| chunk.fill(1)));
        assert_eq!(counts, [1; 9]);
    }
}
