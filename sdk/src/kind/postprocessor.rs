//! Postprocessors: the answer as it streams.

use std::marker::PhantomData;

use crate::bindings::postprocessor::exports::mortise::hooks::postprocessor as wit;
use crate::export::{Identity, with_plugin};
use crate::types::{RequestInfo, Result};

/// What becomes of a piece of text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// It goes on as it came. Not allowed while text is held: the order would change.
    Pass,
    /// Nothing goes on yet; the plugin keeps what it needs.
    Hold,
    /// This goes on in place of the text and of all that was held.
    Replace(String),
    /// This goes on, and the answer ends here with `content_filter`.
    Stop(String),
}

/// Sees the answer as it streams. An instance lives for one stream, so what it holds belongs to that
/// stream alone. After [`Self::new`] and [`Self::open`] comes [`Self::push`] for each piece of text,
/// then, unless it stopped, [`Self::finish`] once.
///
/// ```
/// use mortise_sdk::{Action, Postprocessor, RequestInfo, Result};
///
/// /// Sends whole lines only.
/// struct Lines {
///     held: String,
/// }
///
/// impl Postprocessor for Lines {
///     fn new() -> Result<Self> {
///         Ok(Self { held: String::new() })
///     }
///
///     fn push(&mut self, text: String) -> Result<Action> {
///         self.held.push_str(&text);
///         Ok(match self.held.rfind('\n') {
///             Some(end) => Action::Replace(self.held.drain(..=end).collect()),
///             None => Action::Hold,
///         })
///     }
///
///     fn finish(&mut self, _finish_reason: &str) -> Result<String> {
///         Ok(std::mem::take(&mut self.held))
///     }
/// }
///
/// mortise_sdk::export!(postprocessor: Lines);
///
/// let harness = mortise_sdk::testing::Harness::new();
/// let mut stream = harness.stream::<Lines>().expect("opens");
/// assert_eq!(stream.push("one\ntw"), Ok("one\n".into()));
/// assert_eq!(stream.push("o"), Ok("".into()));
/// assert_eq!(stream.finish("stop"), Ok("two".into()));
/// ```
pub trait Postprocessor: Sized + 'static {
    /// Reads the settings. Called once per instance, and when the plugin is installed: an error
    /// here leaves the version before in place.
    ///
    /// # Errors
    /// What is wrong with the settings.
    fn new() -> Result<Self>;

    /// Learns whose answer this is.
    ///
    /// # Errors
    /// The plugin's failure; what it does to the request is the operator's `on_failure`.
    fn open(&mut self, _request: &RequestInfo) -> Result<()> {
        Ok(())
    }

    /// The next piece of text, never empty and never half a character.
    ///
    /// # Errors
    /// As [`Self::open`].
    fn push(&mut self, text: String) -> Result<Action>;

    /// The last text: what is still held, or nothing.
    ///
    /// # Errors
    /// As [`Self::open`].
    fn finish(&mut self, finish_reason: &str) -> Result<String>;
}

impl From<Action> for wit::Action {
    fn from(action: Action) -> Self {
        match action {
            Action::Pass => Self::Pass,
            Action::Hold => Self::Hold,
            Action::Replace(text) => Self::Replace(text),
            Action::Stop(text) => Self::Stop(text),
        }
    }
}

/// The exported interface of a [`Postprocessor`].
#[doc(hidden)]
pub struct Component<I>(PhantomData<I>);

impl<I: Identity<Plugin: Postprocessor>> wit::Guest for Component<I> {
    fn open(info: wit::RequestInfo) -> std::result::Result<(), wit::Error> {
        Ok(with_plugin(|plugin: &mut I::Plugin| plugin.open(&info.into()))?)
    }

    fn push(text: String) -> std::result::Result<wit::Action, wit::Error> {
        Ok(with_plugin(|plugin: &mut I::Plugin| plugin.push(text))?.into())
    }

    fn finish(finish_reason: String) -> std::result::Result<String, wit::Error> {
        Ok(with_plugin(|plugin: &mut I::Plugin| plugin.finish(&finish_reason))?)
    }
}
