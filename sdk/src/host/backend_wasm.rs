//! The imports themselves.

use crate::bindings::imports::mortise::cap::tokenizer as wit_tokenizer;
use crate::bindings::imports::mortise::cap::{corpus as wit_corpus, generate as wit_generate};
use crate::bindings::imports::mortise::core::{
    config as wit_config, env as wit_env, kv as wit_kv, logging as wit_logging,
    metrics as wit_metrics,
};
use crate::convert::{all, both_ways, cases};
use crate::host::corpus::Info;
use crate::host::generate::{Completion, Request};
use crate::host::log::Level;
use crate::host::metrics::Kind;
use crate::types::{Attr, Result};

cases!(wit_logging::Level, Level {
    Trace = Trace, Debug = Debug, Info = Info, Warn = Warn, Error = Error
});
cases!(wit_metrics::Kind, Kind { Counter = Counter, Gauge = Gauge, Histogram = Histogram });
both_ways!(wit_generate::Request, Request { model; into sampling; lists messages, attrs });
both_ways!(wit_generate::Completion, Completion {
    finish_reason; into message, usage; lists attrs
});
both_ways!(wit_corpus::Info, Info { adapter, tokens, documents, owners; into; lists });

/// A panic traps, and a trap has no message: it goes to the log first.
pub(crate) fn log_panics() {
    std::panic::set_hook(Box::new(|panic| crate::log::error(&panic.to_string())));
}

pub(super) fn log_enabled(level: Level) -> bool {
    wit_logging::enabled(level.into())
}

pub(super) fn log(level: Level, message: &str, fields: &[Attr]) {
    wit_logging::log(level.into(), message, &all(fields.to_vec()));
}

pub(super) fn config_get(key: &str) -> Option<String> {
    wit_config::get(key)
}

pub(super) fn config_all_json() -> String {
    wit_config::all_json()
}

pub(super) fn metric_register(kind: Kind, name: &str) -> Result<u32> {
    Ok(wit_metrics::register(kind.into(), name)?)
}

pub(super) fn metric_observe(id: u32, value: f64) {
    wit_metrics::observe(id, value);
}

pub(super) fn kv_get(key: &str) -> Result<Option<Vec<u8>>> {
    Ok(wit_kv::get(key)?)
}

pub(super) fn kv_set(key: &str, value: &[u8], ttl_ms: Option<u64>) -> Result<()> {
    Ok(wit_kv::set(key, value, ttl_ms)?)
}

pub(super) fn kv_delete(key: &str) -> Result<()> {
    Ok(wit_kv::delete(key)?)
}

pub(super) fn kv_incr(key: &str, by: i64, ttl_ms: Option<u64>) -> Result<i64> {
    Ok(wit_kv::incr(key, by, ttl_ms)?)
}

pub(super) fn kv_swap_if(key: &str, old: Option<&[u8]>, new: &[u8]) -> Result<bool> {
    Ok(wit_kv::swap_if(key, old, new)?)
}

pub(super) fn wall_ms() -> u64 {
    wit_env::wall_ms()
}

pub(super) fn mono_ns() -> u64 {
    wit_env::mono_ns()
}

pub(super) fn random_u64() -> u64 {
    wit_env::random_u64()
}

pub(super) fn tokenizer_count(text: &str) -> Result<u32> {
    Ok(wit_tokenizer::count(text)?)
}

pub(super) fn tokenizer_encode(text: &str) -> Result<Vec<u32>> {
    Ok(wit_tokenizer::encode(text)?)
}

pub(super) fn tokenizer_decode(ids: &[u32]) -> Result<String> {
    Ok(wit_tokenizer::decode(ids)?)
}

pub(super) fn generate(request: Request) -> Result<Completion> {
    Ok(wit_generate::run(&request.into())?.into())
}

pub(super) fn budget_tokens() -> u32 {
    wit_generate::budget_tokens()
}

pub(super) fn list_corpora() -> Vec<Info> {
    all(wit_corpus::list_corpora())
}

pub(super) fn ngram_counts(adapters: &[String], text: &str, n: u32) -> Result<Vec<Vec<u64>>> {
    Ok(wit_corpus::ngram_counts(adapters, text, n)?)
}
