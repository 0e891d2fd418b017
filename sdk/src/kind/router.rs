//! Routers: who answers a request for `model: "auto"`.

use std::marker::PhantomData;

use crate::bindings::router::exports::mortise::hooks::router as wit;
use crate::convert::{all, both_ways};
use crate::export::{Identity, with_plugin};
use crate::types::{Attr, Message, Reject, RequestInfo, Result};

/// A model that a router may choose.
#[derive(Clone, Debug, PartialEq)]
pub struct Candidate {
    /// The base model's name or an adapter's.
    pub model: String,
    /// Whether it is an adapter.
    pub is_adapter: bool,
    /// What later versions may add.
    pub attrs: Vec<Attr>,
}

/// What a router decides.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// No opinion: the base model answers.
    Pass,
    /// One of the candidates, by its name.
    To(String),
    /// Nobody answers.
    Reject(Reject),
}

/// Decides who answers a request for `model: "auto"`. An instance lives for one request.
///
/// ```
/// use mortise_sdk::{Candidate, Decision, Message, RequestInfo, Result, Router, config};
///
/// /// Sends code to the adapter that the operator named.
/// struct CodeFirst {
///     adapter: String,
/// }
///
/// impl Router for CodeFirst {
///     fn new() -> Result<Self> {
///         Ok(Self { adapter: config::get("adapter").unwrap_or_default() })
///     }
///
///     fn route(
///         &mut self,
///         _request: &RequestInfo,
///         messages: &[Message],
///         candidates: &[Candidate],
///     ) -> Result<Decision> {
///         let is_code = messages.last().is_some_and(|message| message.text().contains("fn "));
///         let is_there = candidates.iter().any(|candidate| candidate.model == self.adapter);
///         Ok(if is_code && is_there { Decision::To(self.adapter.clone()) } else { Decision::Pass })
///     }
/// }
///
/// mortise_sdk::export!(router: CodeFirst);
///
/// let harness = mortise_sdk::testing::Harness::new().config("adapter", "rust");
/// let decision = harness.route::<CodeFirst>(&[Message::user("fn main() {}")], &["rust", "law"]);
/// assert_eq!(decision, Ok(Decision::To("rust".into())));
/// ```
pub trait Router: Sized + 'static {
    /// Reads the settings. Called once per instance, and when the plugin is installed: an error
    /// here leaves the version before in place.
    ///
    /// # Errors
    /// What is wrong with the settings.
    fn new() -> Result<Self>;

    /// Chooses among `candidates`.
    ///
    /// # Errors
    /// The plugin's failure; what it does to the request is the operator's `on_failure`.
    fn route(
        &mut self,
        request: &RequestInfo,
        messages: &[Message],
        candidates: &[Candidate],
    ) -> Result<Decision>;
}

both_ways!(wit::Candidate, Candidate { model, is_adapter; into; lists attrs });

impl From<Decision> for wit::Decision {
    fn from(decision: Decision) -> Self {
        match decision {
            Decision::Pass => Self::Pass,
            Decision::To(model) => Self::To(model),
            Decision::Reject(reject) => Self::Reject(reject.into()),
        }
    }
}

/// The exported interface of a [`Router`].
#[doc(hidden)]
pub struct Component<I>(PhantomData<I>);

impl<I: Identity<Plugin: Router>> wit::Guest for Component<I> {
    fn route(
        info: wit::RequestInfo,
        messages: Vec<wit::Message>,
        candidates: Vec<wit::Candidate>,
    ) -> std::result::Result<wit::Decision, wit::Error> {
        let (messages, candidates) = (all(messages), all(candidates));
        let decision = with_plugin(|plugin: &mut I::Plugin| {
            plugin.route(&info.into(), &messages, &candidates)
        })?;
        Ok(decision.into())
    }
}
