//! Preprocessors: the conversation before the model sees it.

use std::marker::PhantomData;

use crate::bindings::preprocessor::exports::mortise::hooks::preprocessor as wit;
use crate::convert::all;
use crate::export::{Identity, with_plugin};
use crate::types::{Message, Reject, RequestInfo, Result, Sampling};

/// What a preprocessor decides.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    /// Go on as it was.
    Unchanged,
    /// Go on with these.
    Change {
        /// The whole conversation.
        messages: Vec<Message>,
        /// `None` leaves the sampling as it was.
        sampling: Option<Sampling>,
    },
    /// The answer; the model is not asked.
    Respond(Message),
    /// Nobody answers.
    Reject(Reject),
}

/// Sees the conversation before the model does. An instance lives for one request.
///
/// ```
/// use mortise_sdk::{Message, Outcome, Preprocessor, RequestInfo, Result, Sampling};
///
/// /// Answers greetings without asking the model.
/// struct Greeter;
///
/// impl Preprocessor for Greeter {
///     fn new() -> Result<Self> {
///         Ok(Self)
///     }
///
///     fn process(
///         &mut self,
///         _request: &RequestInfo,
///         messages: Vec<Message>,
///         _sampling: &Sampling,
///     ) -> Result<Outcome> {
///         Ok(match messages.last() {
///             Some(last) if last.text() == "hello" => Outcome::Respond(Message::assistant("Hi!")),
///             _ => Outcome::Unchanged,
///         })
///     }
/// }
///
/// mortise_sdk::export!(preprocessor: Greeter);
///
/// let harness = mortise_sdk::testing::Harness::new();
/// let outcome = harness.preprocess::<Greeter>(vec![Message::user("hello")]);
/// assert_eq!(outcome, Ok(Outcome::Respond(Message::assistant("Hi!"))));
/// ```
pub trait Preprocessor: Sized + 'static {
    /// Reads the settings. Called once per instance, and when the plugin is installed: an error
    /// here leaves the version before in place.
    ///
    /// # Errors
    /// What is wrong with the settings.
    fn new() -> Result<Self>;

    /// Looks at the conversation, and may change it, answer it or refuse it.
    ///
    /// # Errors
    /// The plugin's failure; what it does to the request is the operator's `on_failure`.
    fn process(
        &mut self,
        request: &RequestInfo,
        messages: Vec<Message>,
        sampling: &Sampling,
    ) -> Result<Outcome>;
}

impl From<Outcome> for wit::Outcome {
    fn from(outcome: Outcome) -> Self {
        match outcome {
            Outcome::Unchanged => Self::Unchanged,
            Outcome::Change { messages, sampling } => Self::Change(wit::Change {
                messages: all(messages),
                sampling: sampling.map(Into::into),
            }),
            Outcome::Respond(message) => Self::Respond(message.into()),
            Outcome::Reject(reject) => Self::Reject(reject.into()),
        }
    }
}

/// The exported interface of a [`Preprocessor`].
#[doc(hidden)]
pub struct Component<I>(PhantomData<I>);

impl<I: Identity<Plugin: Preprocessor>> wit::Guest for Component<I> {
    fn process(
        info: wit::RequestInfo,
        messages: Vec<wit::Message>,
        sampling: wit::Sampling,
    ) -> std::result::Result<wit::Outcome, wit::Error> {
        let outcome = with_plugin(|plugin: &mut I::Plugin| {
            plugin.process(&info.into(), all(messages), &sampling.into())
        })?;
        Ok(outcome.into())
    }
}
