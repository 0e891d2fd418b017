//! The clock that interrupts guests: a thread that ticks the engine's epoch every millisecond while
//! calls are running, and the deadline that a call is held to.
//!
//! A deadline counts the processor time of the calling thread, so that a guest is not blamed for a
//! busy machine; wall time ends a call only at a multiple of it. Nothing here runs guest code.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};
use wasmtime::Engine;

/// One tick of the epoch.
pub(crate) const TICK: Duration = Duration::from_millis(1);
/// Ticks without a call after which the thread sleeps until there is one.
const IDLE_TICKS_MAX: u32 = 100;

#[derive(Debug, Default)]
struct Shared {
    /// Calls that need ticks.
    active: AtomicU32,
    parked: AtomicBool,
    stop: AtomicBool,
}

/// Owner of the ticking thread, which ends when this is dropped.
#[derive(Debug)]
pub(crate) struct Ticker {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl Ticker {
    /// Starts the thread for `engine`.
    pub(crate) fn start(engine: Engine) -> std::io::Result<Self> {
        let shared = Arc::new(Shared::default());
        let of_thread = Arc::clone(&shared);
        let thread = std::thread::Builder::new()
            .name("plugin-clock".to_owned())
            .spawn(move || tick(&of_thread, &engine))?;
        Ok(Self { shared, thread: Some(thread) })
    }

    /// Keeps the clock ticking until the guard is dropped.
    pub(crate) fn enter(&self) -> Ticking {
        self.shared.active.fetch_add(1, Ordering::SeqCst);
        if self.shared.parked.load(Ordering::SeqCst)
            && let Some(thread) = &self.thread
        {
            thread.thread().unpark();
        }
        Ticking { shared: Arc::clone(&self.shared) }
    }
}

impl Drop for Ticker {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
            // The last owner may be the thread itself only if it owned a ticker, which it does not.
            let _ = thread.join();
        }
    }
}

/// A call that needs ticks.
#[derive(Debug)]
pub(crate) struct Ticking {
    shared: Arc<Shared>,
}

impl Drop for Ticking {
    fn drop(&mut self) {
        self.shared.active.fetch_sub(1, Ordering::SeqCst);
    }
}

fn tick(shared: &Shared, engine: &Engine) {
    let mut idle = 0;
    while !shared.stop.load(Ordering::SeqCst) {
        if shared.active.load(Ordering::SeqCst) > 0 {
            idle = 0;
        } else {
            idle += 1;
        }
        if idle <= IDLE_TICKS_MAX {
            std::thread::park_timeout(TICK);
            engine.increment_epoch();
            continue;
        }
        // Announced before the last look, so that a call that begins now either is seen here or
        // sees the announcement and wakes this thread.
        shared.parked.store(true, Ordering::SeqCst);
        if shared.active.load(Ordering::SeqCst) == 0 && !shared.stop.load(Ordering::SeqCst) {
            std::thread::park();
        }
        shared.parked.store(false, Ordering::SeqCst);
        idle = 0;
    }
}

/// What one call is held to.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Deadline {
    limit: Duration,
    wall_max: Duration,
    cpu_start: Duration,
    wall_start: Instant,
}

impl Deadline {
    /// A deadline of `limit_ms` of this thread's processor time from now, and `wall_factor` times
    /// that of wall time.
    pub(crate) fn start(limit_ms: u64, wall_factor: u64) -> Self {
        let limit = Duration::from_millis(limit_ms);
        let factor = u32::try_from(wall_factor.max(1)).unwrap_or(u32::MAX);
        Self {
            limit,
            wall_max: limit.saturating_mul(factor),
            cpu_start: thread_cpu(),
            wall_start: Instant::now(),
        }
    }

    /// Ticks until it is worth looking again; `None` once it is over.
    pub(crate) fn ticks_left(&self) -> Option<u64> {
        let cpu_left = self.limit.checked_sub(thread_cpu().saturating_sub(self.cpu_start))?;
        let wall_left = self.wall_max.checked_sub(self.wall_start.elapsed())?;
        let left = cpu_left.min(wall_left);
        if left.is_zero() {
            return None;
        }
        Some(u64::try_from(left.as_millis()).unwrap_or(u64::MAX).max(1))
    }
}

/// Processor time of the calling thread.
fn thread_cpu() -> Duration {
    let now = clock_gettime(ClockId::ThreadCPUTime);
    let seconds = u64::try_from(now.tv_sec).unwrap_or(0);
    Duration::from_secs(seconds) + Duration::from_nanos(u64::try_from(now.tv_nsec).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processor_time_counts_and_waiting_does_not() {
        let deadline = Deadline::start(5, 1_000);
        let begun = Instant::now();
        // Waits without a processor for longer than the limit.
        std::thread::park_timeout(Duration::from_millis(20));
        if begun.elapsed() >= Duration::from_millis(10) {
            assert!(deadline.ticks_left().is_some(), "waiting was counted");
        }
        while deadline.ticks_left().is_some() {
            assert!(begun.elapsed() < Duration::from_secs(60), "work is not counted");
            std::hint::spin_loop();
        }
    }

    #[test]
    fn wall_time_ends_it_at_last() {
        let deadline = Deadline::start(1, 3);
        let begun = Instant::now();
        while deadline.ticks_left().is_some() {
            assert!(begun.elapsed() < Duration::from_secs(60), "the wall limit does not hold");
            std::thread::park_timeout(TICK);
        }
    }

    #[test]
    fn the_clock_stops_with_its_owner_ticking_or_parked() {
        let engine = Engine::default();
        let ticker = Ticker::start(engine.clone()).expect("thread");
        let ticking = ticker.enter();
        drop(ticker);
        drop(ticking);
        let idle = Ticker::start(engine).expect("thread");
        while !idle.shared.parked.load(Ordering::SeqCst) {
            std::thread::yield_now();
        }
        drop(idle);
    }
}
