//! A load generator: drives servers over HTTP as many clients at once would, and measures what they
//! see. Works with every server that has OpenAI's `/v1/completions` or `/v1/chat/completions`.
//!
//! Parts: `plan` (what is asked, by which adapter, when: seeded and pure), `target` (how it is asked
//! of one kind of server), `events` (server-sent events), `client` (one request), `drive` (closed
//! and open loops), `summary` (percentiles), `compare` (scenarios, sides, repeats), `soak` (ill-behaved
//! clients, and what they leave behind).

mod client;
mod compare;
mod drive;
mod events;
mod plan;
mod soak;
mod summary;
mod target;

pub use compare::{
    Comparison, Progress, Ratios, Scenario, ScenarioResult, SideResult, compare, scenarios,
};
pub use drive::{Arrivals, Length};
pub use plan::{Popularity, PromptForm, Tokens, Workload};
pub use soak::{Changes, Memory, Mix, Sample, Soak, SoakReport, soak};
pub use summary::{Failures, Percentiles, Summary};
pub use target::{Dialect, Endpoint, Target};

#[cfg(test)]
mod fake;
#[cfg(test)]
mod tests;
