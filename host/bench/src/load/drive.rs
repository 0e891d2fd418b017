//! Closed and open loops: many clients at once, and what all of them saw.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until};

use super::client::{Client, End, Failure, Seen, Until};
use super::plan::Plan;

/// What a stream waits after a failure, so that a server that refuses at once is not flooded.
const AFTER_FAILURE: Duration = Duration::from_millis(100);

/// When requests are sent.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Arrivals {
    /// This many streams, each sending its next request when its last one ended.
    Closed {
        /// How many.
        streams: usize,
    },
    /// A Poisson process: requests come whether earlier ones are answered or not.
    Open {
        /// Mean requests per second.
        rate_per_s: f64,
        /// Most that wait for answers at once; one more counts as failed and is not sent.
        in_flight_max: usize,
    },
}

impl fmt::Display for Arrivals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Closed { streams: 1 } => f.write_str("1 stream"),
            Self::Closed { streams } => write!(f, "{streams} streams"),
            Self::Open { rate_per_s, .. } => write!(f, "{rate_per_s} req/s"),
        }
    }
}

/// How long is measured.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Length {
    /// Until so many requests have ended.
    Requests(u64),
    /// For this time. A closed loop is cut then; an open one ends what came in it.
    Time(Duration),
}

/// What came of one request.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Outcome {
    pub(super) adapter: Option<usize>,
    pub(super) seen: Seen,
    pub(super) end: End,
}

/// One measurement.
#[derive(Debug)]
pub(super) struct Recorded {
    pub(super) wall: Duration,
    pub(super) outcomes: Vec<Outcome>,
}

/// Drives one server.
pub(super) struct Drive {
    pub(super) client: Arc<Client>,
    pub(super) plan: Arc<Plan>,
    pub(super) arrivals: Arrivals,
    pub(super) timeout: Duration,
}

impl Drive {
    /// Measures for `length`.
    pub(super) async fn run(&self, length: Length) -> Recorded {
        let begin = Instant::now();
        let (requests, time) = match length {
            Length::Requests(requests) => (requests, None),
            Length::Time(time) => (u64::MAX, Some(begin + time)),
        };
        let outcomes = match self.arrivals {
            Arrivals::Closed { streams } => self.closed(streams, requests, time).await,
            Arrivals::Open { rate_per_s, in_flight_max } => {
                self.open((rate_per_s, in_flight_max), requests, (begin, time)).await
            }
        };
        Recorded { wall: begin.elapsed(), outcomes }
    }

    async fn closed(&self, streams: usize, requests: u64, cut: Option<Instant>) -> Vec<Outcome> {
        let next = Arc::new(AtomicU64::new(0));
        let mut tasks = JoinSet::new();
        for stream in 0..streams {
            let (client, plan, next) = (self.client.clone(), self.plan.clone(), next.clone());
            let until = Until { cut, timeout: self.timeout };
            tasks.spawn(async move {
                let mut outcomes = Vec::new();
                while cut.is_none_or(|cut| Instant::now() < cut) {
                    let index = next.fetch_add(1, Ordering::Relaxed);
                    if index >= requests {
                        break;
                    }
                    let request = plan.request(index, stream);
                    let (seen, end) = client.send(&request, Instant::now(), until).await;
                    let failed = matches!(end, End::Failed(_));
                    outcomes.push(Outcome { adapter: request.adapter, seen, end });
                    if failed {
                        sleep(AFTER_FAILURE).await;
                    }
                }
                outcomes
            });
        }
        tasks.join_all().await.into_iter().flatten().collect()
    }

    async fn open(
        &self,
        (rate_per_s, in_flight_max): (f64, usize),
        requests: u64,
        (begin, last): (Instant, Option<Instant>),
    ) -> Vec<Outcome> {
        let in_flight = Arc::new(AtomicUsize::new(0));
        let (mut tasks, mut outcomes) = (JoinSet::new(), Vec::new());
        let mut due = begin;
        let mut intervals = self.plan.intervals(rate_per_s);
        for index in 0..requests {
            due += intervals.next().expect("intervals without an end");
            if last.is_some_and(|last| due >= last) {
                break;
            }
            sleep_until(due).await;
            while let Some(done) = tasks.try_join_next() {
                outcomes.push(done.expect("a request's task does not panic"));
            }
            let stream = usize::try_from(index).unwrap_or(usize::MAX);
            let request = self.plan.request(index, stream);
            if in_flight.load(Ordering::Relaxed) >= in_flight_max {
                let message = format!("{in_flight_max} requests wait already");
                let end = End::Failed(Failure::new("not sent", message));
                outcomes.push(Outcome { adapter: request.adapter, seen: Seen::default(), end });
                continue;
            }
            in_flight.fetch_add(1, Ordering::Relaxed);
            let (client, in_flight) = (self.client.clone(), in_flight.clone());
            let until = Until { cut: None, timeout: self.timeout };
            tasks.spawn(async move {
                let (seen, end) = client.send(&request, due, until).await;
                in_flight.fetch_sub(1, Ordering::Relaxed);
                Outcome { adapter: request.adapter, seen, end }
            });
        }
        outcomes.extend(tasks.join_all().await);
        outcomes
    }
}
