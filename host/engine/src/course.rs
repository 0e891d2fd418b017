//! How far a sequence has come, for whoever reads its stream: written by the engine's thread, read by any.
//! Takes no lock and holds nothing back.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

/// Times since the arrival, in microseconds, at least 1; 0 is what has not happened.
#[derive(Debug, Default)]
pub(crate) struct Course {
    cached_tokens: AtomicU32,
    generated_tokens: AtomicU32,
    started: AtomicU64,
    first_token: AtomicU64,
    last_token: AtomicU64,
    /// Nanoseconds of steps.
    computed: AtomicU64,
}

/// When things happened to a sequence, each since its arrival.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Timing {
    /// It ran for the first time.
    pub started: Option<Duration>,
    /// Its first token was chosen.
    pub first_token: Option<Duration>,
    /// The last token so far was chosen.
    pub last_token: Option<Duration>,
    /// Its share, by rows, of the steps that it was part of. The shares of all sequences add up to the
    /// time that the engine was busy.
    pub computed: Duration,
}

impl Timing {
    /// Two sequences of one request as one.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        let either =
            |a: Option<Duration>, b: Option<Duration>, both: fn(Duration, Duration) -> Duration| {
                a.zip(b).map(|(a, b)| both(a, b)).or(a).or(b)
            };
        Self {
            started: either(self.started, other.started, Duration::min),
            first_token: either(self.first_token, other.first_token, Duration::min),
            last_token: either(self.last_token, other.last_token, Duration::max),
            computed: self.computed.saturating_add(other.computed),
        }
    }
}

impl Course {
    pub(crate) fn start(&self, waited: Duration, cached_tokens: u32) {
        self.cached_tokens.store(cached_tokens, Ordering::Relaxed);
        self.started.store(microseconds(waited), Ordering::Relaxed);
    }

    pub(crate) fn token(&self, since_arrival: Duration) {
        self.generated_tokens.fetch_add(1, Ordering::Relaxed);
        let at = microseconds(since_arrival);
        if self.first_token.load(Ordering::Relaxed) == 0 {
            self.first_token.store(at, Ordering::Relaxed);
        }
        self.last_token.store(at, Ordering::Relaxed);
    }

    pub(crate) fn compute(&self, share: Duration) {
        let nanoseconds = u64::try_from(share.as_nanos()).unwrap_or(u64::MAX);
        self.computed.fetch_add(nanoseconds, Ordering::Relaxed);
    }

    pub(crate) fn cached_tokens(&self) -> u32 {
        self.cached_tokens.load(Ordering::Relaxed)
    }

    pub(crate) fn generated_tokens(&self) -> u32 {
        self.generated_tokens.load(Ordering::Relaxed)
    }

    pub(crate) fn timing(&self) -> Timing {
        let since = |at: &AtomicU64| {
            let at = at.load(Ordering::Relaxed);
            (at > 0).then(|| Duration::from_micros(at))
        };
        Timing {
            started: since(&self.started),
            first_token: since(&self.first_token),
            last_token: since(&self.last_token),
            computed: Duration::from_nanos(self.computed.load(Ordering::Relaxed)),
        }
    }
}

fn microseconds(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_not_happened_has_no_time() {
        let course = Course::default();
        assert_eq!(course.timing(), Timing::default());
        course.start(Duration::ZERO, 7);
        course.token(Duration::from_millis(2));
        course.token(Duration::from_millis(5));
        course.compute(Duration::from_nanos(3));
        course.compute(Duration::from_nanos(4));
        let timing = course.timing();
        assert_eq!((timing.started, course.cached_tokens()), (Some(Duration::from_micros(1)), 7));
        assert_eq!(timing.first_token, Some(Duration::from_millis(2)));
        assert_eq!(timing.last_token, Some(Duration::from_millis(5)));
        assert_eq!(timing.computed, Duration::from_nanos(7));
        assert_eq!(course.generated_tokens(), 2);
        let other = Timing { first_token: Some(Duration::from_millis(1)), ..Timing::default() };
        let both = timing.and(other);
        assert_eq!((both.first_token, both.last_token), (other.first_token, timing.last_token));
        assert_eq!(other.and(timing), both);
    }
}
