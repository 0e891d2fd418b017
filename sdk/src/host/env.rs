//! Clock and randomness. Scorers do not get it: a component of theirs that imports it is refused.

use super::backend;

/// Milliseconds since 1970.
#[must_use]
pub fn wall_ms() -> u64 {
    backend::wall_ms()
}

/// Nanoseconds of a clock that never goes back.
#[must_use]
pub fn mono_ns() -> u64 {
    backend::mono_ns()
}

/// 64 random bits.
#[must_use]
pub fn random_u64() -> u64 {
    backend::random_u64()
}
