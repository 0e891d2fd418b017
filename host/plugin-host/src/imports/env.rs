//! `env`: clock and randomness, because languages that freeze their seed at build time need both.
//! Time is coarsened to a microsecond, which is enough for plugins and too little for timing
//! attacks on the cache.

use std::sync::LazyLock;
use std::time::{Instant, SystemTime};

use crate::bindings::env::Host;
use crate::guest::Guest;

static START: LazyLock<Instant> = LazyLock::new(Instant::now);

impl Host for Guest {
    fn wall_ms(&mut self) -> u64 {
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
    }

    fn mono_ns(&mut self) -> u64 {
        let micros = u64::try_from(START.elapsed().as_micros()).unwrap_or(u64::MAX / 1000);
        micros.saturating_mul(1000)
    }

    fn random_u64(&mut self) -> u64 {
        rand::random()
    }
}
