//! A soak: many clients at once, most of them ill-behaved, and an operator who changes adapters
//! meanwhile; then quiet, in which the server must hold nothing any more. Finds leaks; measures no
//! speed.
//!
//! Parts: `act` (what clients do, seeded and pure), `visitor` (one client's visit), `operator` (loads
//! and unloads), `gauges` (what the server says of itself), `verdict` (whether that is clean).

mod act;
mod gauges;
mod operator;
mod verdict;
mod visitor;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::{Instant, interval, sleep};

use super::client::{Failure, causes, discover, refusal};
use super::drive::Length;
use super::plan::{Plan, Popularity, PromptForm, Tokens, Workload};
use crate::BenchError;
use act::{Act, Names};
use gauges::Gauges;
use operator::Operator;
use verdict::Tally;
use visitor::{Ended, Visitor};

pub use act::Mix;
pub use verdict::{Memory, Sample, SoakReport};

/// What a client waits after a refusal, so that a server that is full is not flooded.
const AFTER_REFUSAL: Duration = Duration::from_millis(20);
/// Time between two looks at a server that is to become quiet.
const LOOK: Duration = Duration::from_millis(200);
/// Longest wait for one look.
const LOOK_MAX: Duration = Duration::from_secs(30);

/// Who changes adapters, and how often.
#[derive(Clone, Debug)]
pub struct Changes {
    /// The admin listener, or the public one where clients may change adapters.
    pub url: String,
    /// The admin token, or an API key.
    pub token: Option<String>,
    /// The adapters' folder on the server's machine, from which it may load.
    pub files: PathBuf,
    /// Changes per second.
    pub per_s: f64,
}

/// A soak.
#[derive(Clone, Debug)]
pub struct Soak {
    /// The server.
    pub url: String,
    /// Sent as `Authorization: Bearer`.
    pub api_key: Option<String>,
    /// The base model's name; the first of `/v1/models` if not given.
    pub model: Option<String>,
    /// Clients at once.
    pub streams: usize,
    /// How long, or how many visits.
    pub length: Length,
    /// What clients ask.
    pub mix: Mix,
    /// Tokens of each prompt.
    pub prompt_tokens: Tokens,
    /// Tokens of each answer.
    pub output_tokens: Tokens,
    /// Prompts have ids below this.
    pub vocab: usize,
    /// Adapters that are asked for.
    pub adapters: usize,
    /// What their names begin with, before five digits.
    pub adapter_prefix: String,
    /// How often each.
    pub popularity: Popularity,
    /// Who changes adapters meanwhile.
    pub changes: Option<Changes>,
    /// Time between two samples of the server's memory.
    pub sample: Duration,
    /// Longest wait for quiet.
    pub quiet: Duration,
    /// Longest wait for one answer.
    pub timeout: Duration,
    /// Most that the memory may grow from the middle to the end, as a share of what it was.
    pub growth_max: f64,
    /// Decides what everybody does.
    pub seed: u64,
}

/// Everything that is at work.
struct Scene {
    plan: Plan,
    mix: Mix,
    visitor: Visitor,
    operator: Option<Operator>,
    next: AtomicU64,
    visits_max: u64,
    until: Option<Instant>,
    over: AtomicBool,
    tally: Tally,
}

/// Soaks a server.
///
/// # Errors
/// A setting that can't be, or a server that does not answer or does not tell what is looked at.
pub async fn soak(soak: &Soak, mut told: impl FnMut(&Sample)) -> Result<SoakReport, BenchError> {
    let looker = soak.client()?;
    let url = Visitor::address(&soak.url)?;
    let before = look(&looker, &url).await.map_err(|reason| soak.refused(reason))?;
    if let Some(name) = before.missing() {
        return Err(soak.refused(format!("its /metrics have no {name}")));
    }
    let begin = Instant::now();
    let scene = Arc::new(soak.scene(begin).await?);
    let mut tasks = JoinSet::new();
    for stream in 0..soak.streams {
        tasks.spawn(Arc::clone(&scene).visits(stream));
    }
    let changes = soak.changes.as_ref().map(|changes| changes.per_s);
    let changing = tokio::spawn(Arc::clone(&scene).changes(changes.unwrap_or_default()));
    let (mut samples, mut ticks) = (Vec::new(), interval(soak.sample));
    while !tasks.is_empty() {
        tokio::select! {
            _ = tasks.join_next() => {}
            _ = ticks.tick() => match look(&looker, &url).await {
                Ok(gauges) => {
                    let sample = Sample::of(&gauges, begin.elapsed(), scene.tally.visits());
                    told(&sample);
                    samples.push(sample);
                }
                Err(reason) => scene.tally.count(&Ended::Foreign(Failure::new("metrics", reason))),
            },
        }
    }
    scene.over.store(true, Ordering::Relaxed);
    // The operator's last change ends before names are taken away.
    drop(changing.await);
    if let Some(operator) = &scene.operator {
        operator.leave().await;
    }
    let driven = begin.elapsed();
    let scene = Arc::into_inner(scene).expect("everybody has left");
    // Their connections are open files of the server.
    drop((scene.visitor, scene.operator));
    let mut quiet = soak.wait_for_quiet(&looker, &url, &before).await;
    if let Ok(gauges) = &quiet.1 {
        samples.push(Sample::of(gauges, begin.elapsed(), scene.tally.visits()));
    }
    let held = match &mut quiet.1 {
        Ok(gauges) => gauges.held(&before),
        Err(reason) => vec![format!("the server does not answer: {reason}")],
    };
    let memory = Memory::of(&samples, driven, soak.growth_max);
    Ok(SoakReport::new(driven, quiet.0, scene.tally, (held, memory), samples))
}

impl Soak {
    async fn scene(&self, begin: Instant) -> Result<Scene, BenchError> {
        let refuse = |name, reason: &str| Err(BenchError::setting(name, reason));
        if self.streams == 0 {
            return refuse("streams", "must be at least 1");
        }
        let changes_per_s = self.changes.as_ref().map_or(1.0, |changes| changes.per_s);
        if !(1e-3..=1e3).contains(&changes_per_s) {
            return refuse("changes-per-s", "must be from 0.001 to 1000");
        }
        if self.sample.is_zero() {
            return refuse("sample-s", "must be above 0");
        }
        let (visits_max, until) = match self.length {
            Length::Requests(0) => return refuse("requests", "must be at least 1"),
            Length::Requests(requests) => (requests, None),
            Length::Time(time) => (u64::MAX, Some(begin + time)),
        };
        let workload = Workload {
            prompt_tokens: self.prompt_tokens,
            output_tokens: self.output_tokens,
            form: PromptForm::Ids,
            vocab: self.vocab,
            adapters: self.adapters,
            popularity: self.popularity,
        };
        let plan = Plan::new(&workload, self.seed)?;
        let (http, url) = (self.client()?, Visitor::address(&self.url)?);
        let base = match &self.model {
            Some(model) => model.clone(),
            None => {
                let found =
                    discover(&http, self.url.trim_end_matches('/'), self.api_key.as_deref());
                found.await.map_err(|reason| self.refused(reason))?
            }
        };
        let names = Names { base, prefix: self.adapter_prefix.clone() };
        let operator = self.changes.as_ref().map(|changes| self.operator(changes, &names));
        let (api_key, timeout) = (self.api_key.clone(), self.timeout);
        Ok(Scene {
            plan,
            mix: self.mix,
            visitor: Visitor { http, url, api_key, names, timeout },
            operator: operator.transpose()?,
            next: AtomicU64::new(0),
            visits_max,
            until,
            over: AtomicBool::new(false),
            tally: Tally::default(),
        })
    }

    fn operator(&self, changes: &Changes, names: &Names) -> Result<Operator, BenchError> {
        if self.adapters == 0 {
            return Err(BenchError::setting("adapters", "changes need at least 1"));
        }
        Ok(Operator {
            http: self.client()?,
            url: Visitor::address(&changes.url)?,
            token: changes.token.clone(),
            files: changes.files.clone(),
            names: names.clone(),
            adapters: self.adapters,
            seed: self.seed,
        })
    }

    fn client(&self) -> Result<reqwest::Client, BenchError> {
        let built = reqwest::Client::builder().no_proxy().build();
        built.map_err(|error| self.refused(causes(&error)))
    }

    fn refused(&self, reason: String) -> BenchError {
        BenchError::Server { url: self.url.clone(), reason }
    }

    /// How long it took until nothing was held, or the whole wait; and the last look.
    async fn wait_for_quiet(
        &self,
        looker: &reqwest::Client,
        url: &reqwest::Url,
        before: &Gauges,
    ) -> (Duration, Result<Gauges, String>) {
        let begin = Instant::now();
        loop {
            let looked = look(looker, url).await;
            let quiet = looked.as_ref().is_ok_and(|gauges| gauges.held(before).is_empty());
            if quiet || begin.elapsed() >= self.quiet {
                return (begin.elapsed(), looked);
            }
            sleep(LOOK).await;
        }
    }
}

impl Scene {
    /// The visits of one client.
    async fn visits(self: Arc<Self>, stream: usize) {
        while self.until.is_none_or(|until| Instant::now() < until) {
            let index = self.next.fetch_add(1, Ordering::Relaxed);
            if index >= self.visits_max {
                return;
            }
            let act = Act::draw(&self.plan, self.mix, (index, stream));
            let ended = self.visitor.visit(&act).await;
            self.tally.count(&ended);
            if matches!(ended, Ended::Busy | Ended::Foreign(_)) {
                sleep(AFTER_REFUSAL).await;
            }
        }
    }

    /// The operator's changes, until clients have left.
    async fn changes(self: Arc<Self>, per_s: f64) {
        let Some(operator) = self.operator.clone() else { return };
        let mut ticks = interval(Duration::from_secs_f64(1.0 / per_s));
        for index in 0.. {
            ticks.tick().await;
            if self.over.load(Ordering::Relaxed) {
                return;
            }
            self.tally.changed(&operator.change(index).await);
        }
    }
}

async fn look(http: &reqwest::Client, url: &reqwest::Url) -> Result<Gauges, String> {
    let mut url = url.clone();
    url.set_path("/metrics");
    let response = http.get(url).timeout(LOOK_MAX).send().await;
    let response = response.map_err(|error| causes(&error))?;
    if !response.status().is_success() {
        return Err(refusal(response).await.message);
    }
    let text = response.text().await.map_err(|error| causes(&error))?;
    Ok(Gauges::parse(&text))
}
