//! One server measured, or two by turns: whatever the machine does meanwhile, it does to both.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;

use super::client::{Client, End, Until};
use super::drive::{Arrivals, Drive, Length};
use super::plan::{Plan, Popularity, PromptForm, Workload};
use super::summary::{Summary, median};
use super::target::{Endpoint, Target};
use crate::{BenchError, reading};

/// Streams that warm a server up for an open loop.
const WARM_STREAMS: usize = 16;

/// Requests that say how long one takes at rest.
const ALONE: usize = 3;
/// How much longer one may take for a server to count as at rest.
const SETTLED: f64 = 1.3;
/// And what any may take longer by chance.
const SETTLED_NOISE: Duration = Duration::from_millis(5);
/// Longest wait for a server to come to rest.
const SETTLE_MAX: Duration = Duration::from_secs(120);

/// One row of a report: a workload, and when its requests come.
#[derive(Clone, Debug)]
pub struct Scenario {
    /// Its name in reports.
    pub name: String,
    /// When requests are sent.
    pub arrivals: Arrivals,
    /// What is asked.
    pub workload: Workload,
}

/// A scenario for each popularity at each kind of arrivals, named after both.
#[must_use]
pub fn scenarios(
    arrivals: &[Arrivals],
    popularities: &[Popularity],
    workload: &Workload,
) -> Vec<Scenario> {
    let scenario = |arrivals: Arrivals, popularity: Popularity| Scenario {
        name: format!("{arrivals}, {popularity}"),
        arrivals,
        workload: Workload { popularity, ..workload.clone() },
    };
    let each =
        |arrivals: &Arrivals| popularities.iter().map(|one| scenario(*arrivals, *one)).collect();
    arrivals.iter().flat_map(|arrivals| -> Vec<Scenario> { each(arrivals) }).collect()
}

/// What to measure.
#[derive(Clone, Debug)]
pub struct Comparison {
    /// One server, or ours and a peer.
    pub targets: Vec<Target>,
    /// One after the other, each with all repeats of all servers.
    pub scenarios: Vec<Scenario>,
    /// How long each measurement takes.
    pub length: Length,
    /// Requests to each server before its first measurement of a scenario.
    pub warmup: u64,
    /// Measurements of each server in each scenario; reported are their medians.
    pub repeats: usize,
    /// Longest wait for one answer.
    pub timeout: Duration,
    /// Decides prompts, adapters and arrivals. Each repeat has prompts of its own, so that no prefix
    /// cache holds them; both servers have the same.
    pub seed: u64,
    /// Adapters whose files the system is asked to forget before each measurement, so that cold loads
    /// read the disk.
    pub forget: Option<PathBuf>,
}

/// What was measured of one server.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct SideResult {
    /// The server's name in reports.
    pub label: String,
    /// Its address.
    pub url: String,
    /// Medians of `runs`, figure by figure.
    pub median: Summary,
    /// Every measurement, in order.
    pub runs: Vec<Summary>,
}

/// The first server's figures over the second's: the median of the ratios of each pair of
/// measurements, 0 where one is missing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Ratios {
    /// Above 1, the first is faster.
    pub output_tokens_per_s: f64,
    /// Above 1, the first is faster.
    pub requests_per_s: f64,
    /// Below 1, the first is faster.
    pub ttft_p50: f64,
    /// Below 1, the first is faster.
    pub itl_p50: f64,
}

/// What was measured in one scenario.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ScenarioResult {
    /// The scenario's name.
    pub name: String,
    /// One for each server.
    pub sides: Vec<SideResult>,
    /// If there are two servers.
    pub ratios: Option<Ratios>,
}

/// What happens, for who waits.
#[derive(Debug)]
#[non_exhaustive]
pub enum Progress<'a> {
    /// A server is warmed up for a scenario.
    Warming {
        /// The scenario's name.
        scenario: &'a str,
        /// The server's.
        label: &'a str,
    },
    /// A measurement is done.
    Measured {
        /// The scenario's name.
        scenario: &'a str,
        /// The server's.
        label: &'a str,
        /// From 1.
        repeat: usize,
        /// Its figures.
        summary: &'a Summary,
    },
}

impl fmt::Display for Progress<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Warming { scenario, label } => write!(f, "{scenario}: {label} warms up"),
            Self::Measured { scenario, label, repeat, summary } => write!(
                f,
                "{scenario}: {label} #{repeat}: {:.1} tokens/s, TTFT {:.1} ms, ITL {:.1} ms, \
                 {} completed, {} failed",
                summary.output_tokens_per_s,
                summary.ttft_ms.p50,
                summary.itl_ms.p50,
                summary.completed,
                summary.failed,
            ),
        }
    }
}

/// Measures every scenario.
///
/// # Errors
/// A setting that can't be, or a server that can't answer a scenario's first request. Later failures
/// are counted and do not end a measurement.
pub async fn compare(
    comparison: &Comparison,
    mut progress: impl FnMut(Progress<'_>),
) -> Result<Vec<ScenarioResult>, BenchError> {
    comparison.check()?;
    let mut clients = Vec::new();
    for target in &comparison.targets {
        clients.push(Arc::new(Client::connect(target).await?));
    }
    let mut results = Vec::new();
    for scenario in &comparison.scenarios {
        let mut at_rest = Vec::new();
        for client in &clients {
            let label = &client.target().label;
            progress(Progress::Warming { scenario: &scenario.name, label });
            comparison.warm(scenario, client).await?;
            if clients.len() > 1 {
                at_rest.push(comparison.alone(scenario, client).await?);
            }
        }
        let mut runs = vec![Vec::new(); clients.len()];
        for repeat in 0..comparison.repeats {
            let mut order: Vec<usize> = (0..clients.len()).collect();
            // Who goes first goes second the next time.
            if repeat % 2 == 1 {
                order.reverse();
            }
            for side in order {
                let summary = comparison.measure(scenario, &clients[side], repeat).await?;
                progress(Progress::Measured {
                    scenario: &scenario.name,
                    label: &clients[side].target().label,
                    repeat: repeat + 1,
                    summary: &summary,
                });
                runs[side].push(summary);
                if let Some(time) = at_rest.get(side) {
                    comparison.settle(scenario, &clients[side], *time).await?;
                }
            }
        }
        let targets = clients.iter().map(|client| client.target());
        let sides = targets.zip(runs).map(|(target, runs)| side(target, runs)).collect();
        results.push(result(scenario.name.clone(), sides));
    }
    Ok(results)
}

fn side(target: &Target, runs: Vec<Summary>) -> SideResult {
    let median = Summary::median(&runs);
    SideResult { label: target.label.clone(), url: target.url.clone(), median, runs }
}

fn result(name: String, sides: Vec<SideResult>) -> ScenarioResult {
    let ratios = match sides.as_slice() {
        [ours, peer] => Some(Ratios::of(&ours.runs, &peer.runs)),
        _ => None,
    };
    ScenarioResult { name, sides, ratios }
}

impl Ratios {
    fn of(ours: &[Summary], peer: &[Summary]) -> Self {
        let of = |pick: fn(&Summary) -> f64| {
            let pairs = ours.iter().zip(peer).map(|(ours, peer)| (pick(ours), pick(peer)));
            let known = pairs.filter(|(ours, peer)| *ours > 0.0 && *peer > 0.0);
            median(known.map(|(ours, peer)| ours / peer).collect())
        };
        Self {
            output_tokens_per_s: of(|one| one.output_tokens_per_s),
            requests_per_s: of(|one| one.requests_per_s),
            ttft_p50: of(|one| one.ttft_ms.p50),
            itl_p50: of(|one| one.itl_ms.p50),
        }
    }
}

impl Comparison {
    fn check(&self) -> Result<(), BenchError> {
        let refuse = |name, reason: &str| Err(BenchError::setting(name, reason));
        if self.repeats == 0 {
            return refuse("repeat", "must be at least 1");
        }
        match self.length {
            Length::Requests(0) => return refuse("requests", "must be at least 1"),
            Length::Time(time) if time.is_zero() => return refuse("seconds", "must be above 0"),
            _ => {}
        }
        for scenario in &self.scenarios {
            match scenario.arrivals {
                Arrivals::Closed { streams: 0 } => {
                    return refuse("concurrency", "must be at least 1");
                }
                Arrivals::Open { rate_per_s, .. } if !(1e-3..=1e6).contains(&rate_per_s) => {
                    return refuse("rate", "must be from 0.001 to 1000000 requests per second");
                }
                _ => {}
            }
            let is_chat = self.targets.iter().any(|target| target.endpoint == Endpoint::Chat);
            if is_chat && scenario.workload.form == PromptForm::Ids {
                return refuse("prompt-form", "chats take text alone");
            }
            Plan::new(&scenario.workload, 0)?;
        }
        Ok(())
    }

    /// One request that must succeed, and then the others.
    async fn warm(&self, scenario: &Scenario, client: &Arc<Client>) -> Result<(), BenchError> {
        // Below the seeds of measurements, whose prompts must be new.
        let seed = self.seed.wrapping_sub(1);
        let plan = Arc::new(Plan::new(&scenario.workload, seed)?);
        let until = Until { cut: None, timeout: self.timeout };
        let now = tokio::time::Instant::now();
        let (_, end) = client.send(&plan.request(u64::MAX - 1, 0), now, until).await;
        if let End::Failed(failure) = end {
            let reason =
                format!("the first request failed: {}: {}", failure.cause, failure.message);
            return Err(BenchError::Server { url: client.target().url.clone(), reason });
        }
        let arrivals = match scenario.arrivals {
            Arrivals::Closed { streams } => Arrivals::Closed { streams },
            Arrivals::Open { .. } => Arrivals::Closed { streams: WARM_STREAMS },
        };
        let drive = Drive { client: client.clone(), plan, arrivals, timeout: self.timeout };
        drive.run(Length::Requests(self.warmup)).await;
        Ok(())
    }

    /// The time that a server at rest takes for a request: the best of a few.
    async fn alone(
        &self,
        scenario: &Scenario,
        client: &Arc<Client>,
    ) -> Result<Duration, BenchError> {
        let mut best = Duration::MAX;
        for _ in 0..ALONE {
            best = best.min(self.probe(scenario, client).await?);
        }
        Ok(best)
    }

    /// Waits until a server takes about as long for a request as at rest. Some go on computing for clients
    /// that have left, on the cores that the other server has next.
    async fn settle(
        &self,
        scenario: &Scenario,
        client: &Arc<Client>,
        at_rest: Duration,
    ) -> Result<(), BenchError> {
        let begun = tokio::time::Instant::now();
        while begun.elapsed() < SETTLE_MAX {
            if self.probe(scenario, client).await? <= at_rest.mul_f64(SETTLED) + SETTLED_NOISE {
                break;
            }
        }
        Ok(())
    }

    async fn probe(
        &self,
        scenario: &Scenario,
        client: &Arc<Client>,
    ) -> Result<Duration, BenchError> {
        let plan = Plan::new(&scenario.workload, self.seed.wrapping_sub(1))?;
        let until = Until { cut: None, timeout: self.timeout };
        let begun = tokio::time::Instant::now();
        client.send(&plan.request(u64::MAX - 2, 0), begun, until).await;
        Ok(begun.elapsed())
    }

    async fn measure(
        &self,
        scenario: &Scenario,
        client: &Arc<Client>,
        repeat: usize,
    ) -> Result<Summary, BenchError> {
        if let Some(dir) = &self.forget {
            reading::forget_all(dir)?;
        }
        let seed = self.seed.wrapping_add(repeat as u64);
        let plan = Arc::new(Plan::new(&scenario.workload, seed)?);
        let (client, arrivals) = (client.clone(), scenario.arrivals);
        let drive = Drive { client, plan, arrivals, timeout: self.timeout };
        Ok(Summary::of(&drive.run(self.length).await))
    }
}

#[cfg(test)]
mod tests {
    use super::super::plan::Tokens;
    use super::*;

    #[test]
    fn scenarios_are_every_pair() {
        let workload = Workload {
            prompt_tokens: Tokens { min: 1, max: 1 },
            output_tokens: Tokens { min: 1, max: 1 },
            form: PromptForm::Ids,
            vocab: 1000,
            adapters: 2,
            popularity: Popularity::None,
        };
        let arrivals = [
            Arrivals::Closed { streams: 1 },
            Arrivals::Closed { streams: 8 },
            Arrivals::Open { rate_per_s: 2.5, in_flight_max: 9 },
        ];
        let popularities = [Popularity::None, Popularity::Zipf(1.0)];
        let scenarios = scenarios(&arrivals, &popularities, &workload);
        let names: Vec<&str> = scenarios.iter().map(|scenario| scenario.name.as_str()).collect();
        let expect = [
            "1 stream, none",
            "1 stream, zipf:1",
            "8 streams, none",
            "8 streams, zipf:1",
            "2.5 req/s, none",
            "2.5 req/s, zipf:1",
        ];
        assert_eq!(names, expect);
        assert_eq!(scenarios[3].workload.popularity, Popularity::Zipf(1.0));
        assert_eq!(scenarios[4].arrivals, arrivals[2]);
    }

    #[test]
    fn ratios_are_the_medians_of_pairs() {
        let run = |tokens: f64| Summary { output_tokens_per_s: tokens, ..Summary::default() };
        let ours = [30.0, 20.0, 90.0].map(run);
        let peer = [10.0, 20.0, 30.0].map(run);
        let ratios = Ratios::of(&ours, &peer);
        assert_eq!(ratios.output_tokens_per_s, 3.0);
        assert_eq!(ratios.requests_per_s, 0.0, "no pair has any");
    }
}
