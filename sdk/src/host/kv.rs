//! State that outlives the instance: private to the plugin, shared by its versions, local to the
//! node, bounded by a quota. Instances keep nothing that a later request could rely on.

use super::backend;
use crate::types::Result;

/// The value of `key`.
///
/// # Errors
/// The host's refusal, `invalid` for a key that is too long.
pub fn get(key: &str) -> Result<Option<Vec<u8>>> {
    backend::kv_get(key)
}

/// Sets `key`; with `ttl_ms` it is gone after so many milliseconds.
///
/// # Errors
/// The host's refusal, `over-budget` when the quota is used up.
pub fn set(key: &str, value: &[u8], ttl_ms: Option<u64>) -> Result<()> {
    backend::kv_set(key, value, ttl_ms)
}

/// Removes `key`, whether or not it was there.
///
/// # Errors
/// The host's refusal.
pub fn delete(key: &str) -> Result<()> {
    backend::kv_delete(key)
}

/// Adds to a number kept as 8 little-endian bytes and gives the sum; a missing key counts as 0.
///
/// # Errors
/// `invalid` if the value is not 8 bytes long.
pub fn incr(key: &str, by: i64, ttl_ms: Option<u64>) -> Result<i64> {
    backend::kv_incr(key, by, ttl_ms)
}

/// Sets `key` only if its present value is `old`, and tells whether it did.
///
/// # Errors
/// The host's refusal.
pub fn swap_if(key: &str, old: Option<&[u8]>, new: &[u8]) -> Result<bool> {
    backend::kv_swap_if(key, old, new)
}
