//! Agents: programs that answer in the model's place.

use std::marker::PhantomData;

use crate::bindings::agent::exports::mortise::hooks::agent as wit;
use crate::convert::all;
use crate::export::{Identity, with_plugin};
use crate::types::{Message, RequestInfo, Result};

/// Answers `model: "agent:<name>"`, usually by asking the host's models through
/// [`crate::generate`]. An instance lives for one run.
///
/// ```
/// use mortise_sdk::{Agent, Message, RequestInfo, Result, generate};
///
/// /// Asks the model twice: for a draft, and to improve it.
/// struct Twice;
///
/// impl Agent for Twice {
///     fn new() -> Result<Self> {
///         Ok(Self)
///     }
///
///     fn run(&mut self, _request: &RequestInfo, mut messages: Vec<Message>) -> Result<Message> {
///         let ask = |messages: &[Message]| {
///             generate::run(generate::Request { messages: messages.to_vec(), ..Default::default() })
///         };
///         messages.push(ask(&messages)?.message);
///         messages.push(Message::user("Improve your answer."));
///         Ok(ask(&messages)?.message)
///     }
/// }
///
/// mortise_sdk::export!(agent: Twice);
///
/// let harness = mortise_sdk::testing::Harness::new().answers(["a draft", "an answer"]);
/// let answer = harness.run::<Twice>(vec![Message::user("Write.")]).expect("answers");
/// assert_eq!(answer.text(), "an answer");
/// ```
pub trait Agent: Sized + 'static {
    /// Reads the settings. Called once per instance, and when the plugin is installed: an error
    /// here leaves the version before in place.
    ///
    /// # Errors
    /// What is wrong with the settings.
    fn new() -> Result<Self>;

    /// Answers the conversation.
    ///
    /// # Errors
    /// The plugin's failure; what it does to the request is the operator's `on_failure`.
    fn run(&mut self, request: &RequestInfo, messages: Vec<Message>) -> Result<Message>;
}

/// The exported interface of an [`Agent`].
#[doc(hidden)]
pub struct Component<I>(PhantomData<I>);

impl<I: Identity<Plugin: Agent>> wit::Guest for Component<I> {
    fn run(
        info: wit::RequestInfo,
        messages: Vec<wit::Message>,
    ) -> std::result::Result<wit::Message, wit::Error> {
        let answer = with_plugin(|plugin: &mut I::Plugin| plugin.run(&info.into(), all(messages)))?;
        Ok(answer.into())
    }
}
