//! What the mocks know. Each harness has a world of its own; while it calls a plugin, that world is
//! the current one of the thread.

use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;

use crate::host::corpus::Info;
use crate::host::generate::{Completion, Request};
use crate::host::log::Level;
use crate::host::metrics::Kind;
use crate::testing::words::Words;
use crate::types::{Attr, Error, Message, Result, Usage};

/// A line that a plugin logged.
#[derive(Clone, Debug, PartialEq)]
pub struct LogLine {
    /// How much it matters.
    pub level: Level,
    /// What it says.
    pub message: String,
    /// Its fields.
    pub fields: Vec<Attr>,
}

/// A corpus of the mock: its documents as tokens.
pub(crate) struct Corpus {
    pub(crate) info: Info,
    pub(crate) documents: Vec<Vec<u32>>,
}

/// Answers an agent's calls.
pub(crate) type Model = Box<dyn FnMut(&Request) -> Result<String>>;

pub(crate) struct World {
    pub(crate) config: serde_json::Map<String, serde_json::Value>,
    pub(crate) log_level: Level,
    pub(crate) logs: Vec<LogLine>,
    /// Name, kind and observed values.
    pub(crate) metrics: Vec<(String, Kind, Vec<f64>)>,
    /// Value, and the time in milliseconds at which it is gone.
    pub(crate) kv: BTreeMap<String, (Vec<u8>, Option<u64>)>,
    pub(crate) now_ms: u64,
    pub(crate) random_state: u64,
    pub(crate) words: Words,
    pub(crate) corpora: Vec<Corpus>,
    pub(crate) model: Option<Model>,
    pub(crate) budget_tokens: u32,
    pub(crate) requests: Vec<Request>,
}

impl Default for World {
    fn default() -> Self {
        Self {
            config: serde_json::Map::new(),
            log_level: Level::Trace,
            logs: Vec::new(),
            metrics: Vec::new(),
            kv: BTreeMap::new(),
            now_ms: 1_700_000_000_000,
            random_state: 0,
            words: Words::default(),
            corpora: Vec::new(),
            model: None,
            budget_tokens: 4096,
            requests: Vec::new(),
        }
    }
}

pub(crate) type SharedWorld = Rc<RefCell<World>>;

thread_local! {
    static CURRENT: RefCell<SharedWorld> = RefCell::default();
}

/// Runs `call` on the current world. A harness's own closures must not call imports in turn.
pub(crate) fn current<T>(call: impl FnOnce(&mut World) -> T) -> T {
    let world = CURRENT.with_borrow(Rc::clone);
    let mut world = world.borrow_mut();
    call(&mut world)
}

/// Makes `world` the current one for the time of `call`.
pub(crate) fn enter<T>(world: &SharedWorld, call: impl FnOnce() -> T) -> T {
    /// Puts the world before back, also when `call` panics.
    struct Restore(SharedWorld);
    impl Drop for Restore {
        fn drop(&mut self) {
            CURRENT.set(Rc::clone(&self.0));
        }
    }
    let _restore = Restore(CURRENT.replace(Rc::clone(world)));
    call()
}

impl World {
    pub(crate) fn log(&mut self, level: Level, message: &str, fields: &[Attr]) {
        if level >= self.log_level {
            let message = message.to_owned();
            self.logs.push(LogLine { level, message, fields: fields.to_vec() });
        }
    }

    pub(crate) fn config_get(&self, key: &str) -> Option<String> {
        self.config.get(key).map(|value| match value {
            serde_json::Value::String(text) => text.clone(),
            other => other.to_string(),
        })
    }

    pub(crate) fn metric_register(&mut self, kind: Kind, name: &str) -> Result<u32> {
        let allowed = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_';
        if name.is_empty() || name.len() > 64 || !name.bytes().all(allowed) {
            return Err(Error::invalid(format!("metric name `{name}`")));
        }
        match self.metrics.iter().position(|(known, ..)| known == name) {
            Some(id) if self.metrics[id].1 == kind => Ok(id as u32),
            Some(_) => Err(Error::new("conflict", format!("metric `{name}` is of another kind"))),
            None => {
                self.metrics.push((name.to_owned(), kind, Vec::new()));
                Ok(self.metrics.len() as u32 - 1)
            }
        }
    }

    pub(crate) fn metric_observe(&mut self, id: u32, value: f64) {
        if let Some((_, kind, values)) = self.metrics.get_mut(id as usize)
            && (*kind != Kind::Counter || value >= 0.0)
        {
            values.push(value);
        }
    }

    pub(crate) fn kv_get(&self, key: &str) -> Option<Vec<u8>> {
        let (value, gone_ms) = self.kv.get(key)?;
        gone_ms.is_none_or(|gone_ms| self.now_ms < gone_ms).then(|| value.clone())
    }

    pub(crate) fn kv_set(&mut self, key: &str, value: Vec<u8>, ttl_ms: Option<u64>) {
        let gone_ms = ttl_ms.map(|ttl_ms| self.now_ms.saturating_add(ttl_ms));
        self.kv.insert(key.to_owned(), (value, gone_ms));
    }

    pub(crate) fn kv_incr(&mut self, key: &str, by: i64, ttl_ms: Option<u64>) -> Result<i64> {
        let before = match self.kv_get(key).map(<[u8; 8]>::try_from) {
            None => 0,
            Some(Ok(bytes)) => i64::from_le_bytes(bytes),
            Some(Err(_)) => return Err(Error::invalid(format!("`{key}` is not a number"))),
        };
        let sum = before.wrapping_add(by);
        self.kv_set(key, sum.to_le_bytes().to_vec(), ttl_ms);
        Ok(sum)
    }

    /// SplitMix64: every test sees the same numbers.
    pub(crate) fn random(&mut self) -> u64 {
        self.random_state = self.random_state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed =
            (self.random_state ^ (self.random_state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    pub(crate) fn generate(&mut self, request: Request) -> Result<Completion> {
        let Some(model) = self.model.as_mut() else {
            return Err(Error::new("unavailable", "the harness has no answers"));
        };
        let mut prompt_tokens = 0;
        for message in &request.messages {
            prompt_tokens += self.words.encode(&message.text()).len() as u32;
        }
        if prompt_tokens >= self.budget_tokens {
            let left = self.budget_tokens;
            let message = format!("the prompt has {prompt_tokens} tokens, {left} are left");
            return Err(Error::new("over-budget", message));
        }
        let answer = model(&request)?;
        let left = self.budget_tokens - prompt_tokens;
        let most = request.sampling.max_tokens.unwrap_or(left).min(left) as usize;
        let mut ids = self.words.encode(&answer);
        let finish_reason = if ids.len() > most { "length" } else { "stop" };
        ids.truncate(most);
        let message = Message::assistant(self.words.decode(&ids)?);
        let completion_tokens = ids.len() as u32;
        self.budget_tokens = left - completion_tokens;
        self.requests.push(request);
        Ok(Completion {
            message,
            finish_reason: finish_reason.to_owned(),
            usage: Usage { prompt_tokens, completion_tokens },
            attrs: Vec::new(),
        })
    }

    pub(crate) fn ngram_counts(
        &mut self,
        adapters: &[String],
        text: &str,
        n: u32,
    ) -> Result<Vec<Vec<u64>>> {
        if !(1..=16).contains(&n) {
            return Err(Error::invalid(format!("n is {n}, not 1 to 16")));
        }
        let text = self.words.encode(text);
        let row = |adapter: &String| {
            let corpus = self.corpora.iter().find(|corpus| corpus.info.adapter == *adapter);
            let unknown = || Error::new("not-found", format!("no corpus of `{adapter}`"));
            let documents = &corpus.ok_or_else(unknown)?.documents;
            let count = |run: &[u32]| {
                let windows = documents.iter().flat_map(|tokens| tokens.windows(run.len()));
                windows.filter(|window| *window == run).count() as u64
            };
            Ok(text.windows(n as usize).map(count).collect())
        };
        adapters.iter().map(row).collect()
    }
}

/// Answers in order; after the last one the model is unavailable.
pub(crate) fn scripted(answers: VecDeque<String>) -> Model {
    let mut answers = answers;
    Box::new(move |_| {
        answers.pop_front().ok_or_else(|| Error::new("unavailable", "the script has ended"))
    })
}
