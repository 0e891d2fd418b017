//! [`Harness`]: builds a world and calls plugins in it.

use std::collections::BTreeSet;
use std::rc::Rc;

use serde_json::Value as Json;

use crate::host::corpus::Info;
use crate::host::generate::Request;
use crate::host::log::Level;
use crate::host::metrics::Kind;
use crate::kind::agent::Agent;
use crate::kind::postprocessor::{Action, Postprocessor};
use crate::kind::preprocessor::{Outcome, Preprocessor};
use crate::kind::router::{Candidate, Decision, Router};
use crate::kind::scorer::{Evidence, SHARES_TOTAL, Scorer, Share};
use crate::testing::world::{Corpus, LogLine, SharedWorld, World, enter, scripted};
use crate::types::{Error, Message, Reject, RequestInfo, Result, Sampling};

/// A world of mocks, and the host's side of every kind.
pub struct Harness {
    world: SharedWorld,
    request: RequestInfo,
}

impl Default for Harness {
    fn default() -> Self {
        Self::new()
    }
}

/// Building the world.
impl Harness {
    /// No settings, no corpora, no answers; everything is logged.
    #[must_use]
    pub fn new() -> Self {
        let request = RequestInfo {
            id: "req-1".to_owned(),
            tenant: "default".to_owned(),
            endpoint: "chat".to_owned(),
            model: "auto".to_owned(),
            adapter: None,
            streaming: false,
            attrs: Vec::new(),
        };
        Self { world: SharedWorld::default(), request }
    }

    /// The settings that a `plugin.toml` gives by default. Use it with `include_str!`, and the tests
    /// hold the file too.
    ///
    /// # Panics
    /// If the text is not TOML or its `config` not a table.
    #[must_use]
    pub fn from_manifest(plugin_toml: &str) -> Self {
        let manifest: Json = toml::from_str(plugin_toml).expect("plugin.toml is TOML");
        let harness = Self::new();
        if let Some(config) = manifest.get("config") {
            let table = config.as_object().expect("`config` is a table").clone();
            harness.world.borrow_mut().config = table;
        }
        harness
    }

    fn set(self, change: impl FnOnce(&mut World)) -> Self {
        change(&mut self.world.borrow_mut());
        self
    }

    /// Sets a key of the config.
    #[must_use]
    pub fn config(self, key: &str, value: impl Into<Json>) -> Self {
        self.set(|world| {
            world.config.insert(key.to_owned(), value.into());
        })
    }

    /// What hooks are told about the request.
    #[must_use]
    pub fn request(mut self, request: RequestInfo) -> Self {
        self.request = request;
        self
    }

    /// Lines below `level` are dropped, and [`crate::log::enabled`] says so.
    #[must_use]
    pub fn log_level(self, level: Level) -> Self {
        self.set(|world| world.log_level = level)
    }

    /// Milliseconds since 1970; the clock stands still until the next call.
    #[must_use]
    pub fn now_ms(self, now_ms: u64) -> Self {
        self.set(|world| world.now_ms = now_ms)
    }

    /// Gives `adapter` a corpus of `(owner, text)` documents. Tokens are words here: a mock, but one
    /// that counts.
    #[must_use]
    pub fn corpus(self, adapter: &str, documents: &[(&str, &str)]) -> Self {
        let owners: BTreeSet<&str> = documents.iter().map(|(owner, _)| *owner).collect();
        self.set(|world| {
            let encode = |(_, text): &(&str, &str)| world.words.encode(text);
            let documents: Vec<Vec<u32>> = documents.iter().map(encode).collect();
            let info = Info {
                adapter: adapter.to_owned(),
                tokens: documents.iter().map(|tokens| tokens.len() as u64).sum(),
                documents: documents.len() as u32,
                owners: owners.len() as u32,
            };
            world.corpora.push(Corpus { info, documents });
        })
    }

    /// What the model answers, in order; then it is `unavailable`.
    #[must_use]
    pub fn answers<'a>(self, answers: impl IntoIterator<Item = &'a str>) -> Self {
        let answers = answers.into_iter().map(str::to_owned).collect();
        self.set(|world| world.model = Some(scripted(answers)))
    }

    /// A model of your own. It must not call imports.
    #[must_use]
    pub fn model(self, model: impl FnMut(&Request) -> Result<String> + 'static) -> Self {
        self.set(|world| world.model = Some(Box::new(model)))
    }

    /// Tokens that all runs together may use.
    #[must_use]
    pub fn budget_tokens(self, tokens: u32) -> Self {
        self.set(|world| world.budget_tokens = tokens)
    }
}

/// Calling plugins.
impl Harness {
    /// Runs `call` with this harness's imports.
    pub fn with<T>(&self, call: impl FnOnce() -> T) -> T {
        enter(&self.world, call)
    }

    /// Asks a router about `candidates`, all of them adapters.
    ///
    /// # Errors
    /// The plugin's, or `invalid` where it broke a rule of the host.
    pub fn route<P: Router>(&self, messages: &[Message], candidates: &[&str]) -> Result<Decision> {
        let candidate = |model: &&str| Candidate {
            model: (*model).to_owned(),
            is_adapter: true,
            attrs: Vec::new(),
        };
        self.route_among::<P>(messages, &candidates.iter().map(candidate).collect::<Vec<_>>())
    }

    /// Asks a router.
    ///
    /// # Errors
    /// As [`Self::route`].
    pub fn route_among<P: Router>(
        &self,
        messages: &[Message],
        candidates: &[Candidate],
    ) -> Result<Decision> {
        let decision = self.with(|| P::new()?.route(&self.request, messages, candidates))?;
        match &decision {
            Decision::To(model) if candidates.iter().all(|known| known.model != *model) => {
                Err(Error::invalid(format!("`{model}` is not a candidate")))
            }
            Decision::Reject(reject) => check_reject(reject).map(|()| decision),
            _ => Ok(decision),
        }
    }

    /// Hands a conversation to a preprocessor.
    ///
    /// # Errors
    /// As [`Self::route`].
    pub fn preprocess<P: Preprocessor>(&self, messages: Vec<Message>) -> Result<Outcome> {
        let sampling = Sampling::default();
        let outcome = self.with(|| P::new()?.process(&self.request, messages, &sampling))?;
        match &outcome {
            Outcome::Change { messages, .. } if messages.is_empty() => {
                Err(Error::invalid("the conversation is empty"))
            }
            Outcome::Reject(reject) => check_reject(reject).map(|()| outcome),
            _ => Ok(outcome),
        }
    }

    /// Opens a stream through a postprocessor.
    ///
    /// # Errors
    /// The plugin's.
    pub fn stream<P: Postprocessor>(&self) -> Result<Stream<P>> {
        let plugin = self.with(|| {
            let mut plugin = P::new()?;
            plugin.open(&self.request)?;
            Ok::<P, Error>(plugin)
        })?;
        Ok(Stream { world: Rc::clone(&self.world), plugin, held: false, stopped: false })
    }

    /// What a client reads of an answer that comes in `pieces`.
    ///
    /// # Errors
    /// As [`Self::route`].
    pub fn stream_all<'a, P: Postprocessor>(
        &self,
        pieces: impl IntoIterator<Item = &'a str>,
    ) -> Result<String> {
        let mut stream = self.stream::<P>()?;
        let mut read = String::new();
        for piece in pieces {
            read += &stream.push(piece)?;
            if stream.stopped() {
                return Ok(read);
            }
        }
        read += &stream.finish("stop")?;
        Ok(read)
    }

    /// Asks a scorer.
    ///
    /// # Errors
    /// As [`Self::route`].
    pub fn score<P: Scorer>(&self, evidence: &Evidence) -> Result<Vec<Share>> {
        let shares = self.with(|| P::new()?.score(&self.request, evidence))?;
        let sum: u64 = shares.iter().map(|share| u64::from(share.parts)).sum();
        let owners: BTreeSet<u32> = shares.iter().map(|share| share.owner).collect();
        if !shares.is_empty() && sum != u64::from(SHARES_TOTAL) {
            return Err(Error::invalid(format!("the shares sum to {sum}")));
        }
        if owners.len() != shares.len() {
            return Err(Error::invalid("an owner has two shares"));
        }
        match owners.last() {
            Some(owner) if *owner >= evidence.owners => {
                Err(Error::invalid(format!("owner {owner} of {}", evidence.owners)))
            }
            _ => Ok(shares),
        }
    }

    /// Lets an agent answer.
    ///
    /// # Errors
    /// The plugin's.
    pub fn run<P: Agent>(&self, messages: Vec<Message>) -> Result<Message> {
        self.with(|| P::new()?.run(&self.request, messages))
    }
}

/// Looking at what happened.
impl Harness {
    /// Every line logged so far.
    #[must_use]
    pub fn logs(&self) -> Vec<LogLine> {
        self.world.borrow().logs.clone()
    }

    /// Values that a metric observed, in order; empty for a metric that nobody registered.
    #[must_use]
    pub fn observed(&self, name: &str) -> Vec<f64> {
        let world = self.world.borrow();
        let metric = world.metrics.iter().find(|(known, ..)| known == name);
        metric.map(|(_, _, values)| values.clone()).unwrap_or_default()
    }

    /// Sum of a counter.
    #[must_use]
    pub fn counter(&self, name: &str) -> f64 {
        let world = self.world.borrow();
        let counter =
            |(known, kind, _): &&(String, Kind, Vec<f64>)| known == name && *kind == Kind::Counter;
        world.metrics.iter().find(counter).map_or(0.0, |(_, _, values)| values.iter().sum())
    }

    /// What agents asked of the model, in order.
    #[must_use]
    pub fn requests(&self) -> Vec<Request> {
        self.world.borrow().requests.clone()
    }
}

fn check_reject(reject: &Reject) -> Result<()> {
    if (400..=499).contains(&reject.status) || reject.status == 503 {
        return Ok(());
    }
    Err(Error::invalid(format!("status {} of a reject", reject.status)))
}

/// A stream through a postprocessor, as the host would run it.
pub struct Stream<P> {
    world: SharedWorld,
    plugin: P,
    held: bool,
    stopped: bool,
}

impl<P: Postprocessor> Stream<P> {
    /// What goes on to the client after the next piece.
    ///
    /// # Errors
    /// The plugin's, or `invalid` where it broke a rule of the host.
    pub fn push(&mut self, text: &str) -> Result<String> {
        if self.stopped {
            return Err(Error::invalid("the stream has stopped"));
        }
        match enter(&self.world, || self.plugin.push(text.to_owned()))? {
            Action::Pass if self.held => Err(Error::invalid("`pass` while text is held")),
            Action::Pass => Ok(text.to_owned()),
            Action::Hold => {
                self.held = true;
                Ok(String::new())
            }
            Action::Replace(text) => {
                self.held = false;
                Ok(text)
            }
            Action::Stop(text) => {
                self.stopped = true;
                Ok(text)
            }
        }
    }

    /// Whether the plugin ended the answer.
    #[must_use]
    pub fn stopped(&self) -> bool {
        self.stopped
    }

    /// The last text.
    ///
    /// # Errors
    /// As [`Self::push`].
    pub fn finish(mut self, finish_reason: &str) -> Result<String> {
        enter(&self.world, || self.plugin.finish(finish_reason))
    }
}
