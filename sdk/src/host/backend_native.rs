//! The imports in native tests: whatever [`crate::testing`] was told to answer.

use crate::host::corpus::Info;
use crate::host::generate::{Completion, Request};
use crate::host::log::Level;
use crate::host::metrics::Kind;
use crate::testing::world::{World, current};
use crate::types::{Attr, Result};

pub(crate) fn log_panics() {}

pub(super) fn log_enabled(level: Level) -> bool {
    current(|world| level >= world.log_level)
}

pub(super) fn log(level: Level, message: &str, fields: &[Attr]) {
    current(|world| world.log(level, message, fields));
}

pub(super) fn config_get(key: &str) -> Option<String> {
    current(|world| world.config_get(key))
}

pub(super) fn config_all_json() -> String {
    current(|world| serde_json::Value::Object(world.config.clone()).to_string())
}

pub(super) fn metric_register(kind: Kind, name: &str) -> Result<u32> {
    current(|world| world.metric_register(kind, name))
}

pub(super) fn metric_observe(id: u32, value: f64) {
    current(|world| world.metric_observe(id, value));
}

pub(super) fn kv_get(key: &str) -> Result<Option<Vec<u8>>> {
    current(|world| Ok(world.kv_get(key)))
}

pub(super) fn kv_set(key: &str, value: &[u8], ttl_ms: Option<u64>) -> Result<()> {
    current(|world| {
        world.kv_set(key, value.to_vec(), ttl_ms);
        Ok(())
    })
}

pub(super) fn kv_delete(key: &str) -> Result<()> {
    current(|world| {
        world.kv.remove(key);
        Ok(())
    })
}

pub(super) fn kv_incr(key: &str, by: i64, ttl_ms: Option<u64>) -> Result<i64> {
    current(|world| world.kv_incr(key, by, ttl_ms))
}

pub(super) fn kv_swap_if(key: &str, old: Option<&[u8]>, new: &[u8]) -> Result<bool> {
    current(|world| {
        let is_old = world.kv_get(key).as_deref() == old;
        if is_old {
            world.kv_set(key, new.to_vec(), None);
        }
        Ok(is_old)
    })
}

pub(super) fn wall_ms() -> u64 {
    current(|world| world.now_ms)
}

pub(super) fn mono_ns() -> u64 {
    current(|world| world.now_ms.saturating_mul(1_000_000))
}

pub(super) fn random_u64() -> u64 {
    current(World::random)
}

pub(super) fn tokenizer_count(text: &str) -> Result<u32> {
    Ok(tokenizer_encode(text)?.len() as u32)
}

pub(super) fn tokenizer_encode(text: &str) -> Result<Vec<u32>> {
    current(|world| Ok(world.words.encode(text)))
}

pub(super) fn tokenizer_decode(ids: &[u32]) -> Result<String> {
    current(|world| world.words.decode(ids))
}

pub(super) fn generate(request: Request) -> Result<Completion> {
    current(|world| world.generate(request))
}

pub(super) fn budget_tokens() -> u32 {
    current(|world| world.budget_tokens)
}

pub(super) fn list_corpora() -> Vec<Info> {
    current(|world| world.corpora.iter().map(|corpus| corpus.info.clone()).collect())
}

pub(super) fn ngram_counts(adapters: &[String], text: &str, n: u32) -> Result<Vec<Vec<u64>>> {
    current(|world| world.ngram_counts(adapters, text, n))
}
