//! The words that hooks and imports speak: owned, plain, and independent of how they cross the
//! boundary. Nothing here checks what the host will check.

use std::fmt;

/// A value of an [`Attr`].
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// Text.
    Text(String),
    /// A signed integer.
    Int(i64),
    /// A float.
    Float(f64),
    /// A truth value.
    Bool(bool),
    /// Bytes.
    Bytes(Vec<u8>),
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<String> for Value {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

impl From<i64> for Value {
    fn from(number: i64) -> Self {
        Self::Int(number)
    }
}

impl From<f64> for Value {
    fn from(number: f64) -> Self {
        Self::Float(number)
    }
}

impl From<bool> for Value {
    fn from(truth: bool) -> Self {
        Self::Bool(truth)
    }
}

/// A named value: how records of the contract grow without a new version.
#[derive(Clone, Debug, PartialEq)]
pub struct Attr {
    /// Its name.
    pub key: String,
    /// Its value.
    pub value: Value,
}

impl Attr {
    /// `key` is `value`.
    pub fn new(key: impl Into<String>, value: impl Into<Value>) -> Self {
        Self { key: key.into(), value: value.into() }
    }
}

/// Who speaks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Role {
    /// The operator or developer.
    System,
    /// The person.
    User,
    /// The model.
    Assistant,
    /// A tool's result.
    Tool,
    /// A role that this version has no name for.
    Other(String),
}

/// A reference to something that is not text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Media {
    /// MIME type.
    pub mime: String,
    /// Where it is.
    pub uri: String,
}

/// One part of a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Part {
    /// Text.
    Text(String),
    /// A JSON document.
    Json(String),
    /// Media.
    Media(Media),
    /// A part that this version has no name for: its type and its JSON. Pass it on as it is.
    Other(String, String),
}

/// One turn of a conversation.
#[derive(Clone, Debug, PartialEq)]
pub struct Message {
    /// Who speaks.
    pub role: Role,
    /// The speaker's name, where roles are not enough.
    pub name: Option<String>,
    /// What is said.
    pub parts: Vec<Part>,
    /// What later versions may add.
    pub attrs: Vec<Attr>,
}

impl Message {
    /// A message of one text part.
    ///
    /// ```
    /// use mortise_sdk::{Message, Role};
    /// assert_eq!(Message::new(Role::User, "hello").text(), "hello");
    /// ```
    pub fn new(role: Role, text: impl Into<String>) -> Self {
        Self { role, name: None, parts: vec![Part::Text(text.into())], attrs: Vec::new() }
    }

    /// A system message.
    pub fn system(text: impl Into<String>) -> Self {
        Self::new(Role::System, text)
    }

    /// A person's message.
    pub fn user(text: impl Into<String>) -> Self {
        Self::new(Role::User, text)
    }

    /// The model's message.
    pub fn assistant(text: impl Into<String>) -> Self {
        Self::new(Role::Assistant, text)
    }

    /// All text parts, one after the other.
    #[must_use]
    pub fn text(&self) -> String {
        self.texts().collect()
    }

    /// The text parts.
    pub fn texts(&self) -> impl Iterator<Item = &str> {
        self.parts.iter().filter_map(|part| match part {
            Part::Text(text) => Some(text.as_str()),
            _ => None,
        })
    }

    /// The text parts, to be changed in place.
    pub fn texts_mut(&mut self) -> impl Iterator<Item = &mut String> {
        self.parts.iter_mut().filter_map(|part| match part {
            Part::Text(text) => Some(text),
            _ => None,
        })
    }
}

/// What the client asked of the sampler; `None` is the server's default.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Sampling {
    /// Most tokens of the answer.
    pub max_tokens: Option<u32>,
    /// 0 is greedy.
    pub temperature: Option<f32>,
    /// Nucleus of this mass.
    pub top_p: Option<f32>,
    /// Strings that end the answer.
    pub stop: Vec<String>,
    /// Seed of the random choices.
    pub seed: Option<u64>,
    /// What later versions may add.
    pub attrs: Vec<Attr>,
}

/// What every hook is told about the request.
#[derive(Clone, Debug, PartialEq)]
pub struct RequestInfo {
    /// The request's id, which is also its receipt's.
    pub id: String,
    /// Who asks.
    pub tenant: String,
    /// `chat` or `completion`.
    pub endpoint: String,
    /// As the client wrote it: `auto`, the base model, an adapter or `agent:<name>`.
    pub model: String,
    /// The adapter that will answer; `None` before routing and for the base model.
    pub adapter: Option<String>,
    /// Whether the client reads the answer as it comes.
    pub streaming: bool,
    /// What later versions may add.
    pub attrs: Vec<Attr>,
}

/// Tokens used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Of the prompt.
    pub prompt_tokens: u32,
    /// Of the answer.
    pub completion_tokens: u32,
}

/// An answer of policy to the client, not a fault of the plugin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reject {
    /// HTTP status, 400 to 499 or 503.
    pub status: u16,
    /// Machine-readable reason.
    pub code: String,
    /// For the reader.
    pub message: String,
    /// When to try again, in milliseconds.
    pub retry_after_ms: Option<u32>,
}

impl Reject {
    /// A refusal without a time to try again.
    pub fn new(status: u16, code: impl Into<String>, message: impl Into<String>) -> Self {
        Self { status, code: code.into(), message: message.into(), retry_after_ms: None }
    }
}

/// A failure: of the plugin, when a hook returns it; of the host, when an import does.
#[derive(Clone, Debug, PartialEq)]
pub struct Error {
    /// An open kebab-case set: denied, not-found, invalid, timeout, over-budget, unavailable,
    /// cancelled, conflict, internal.
    pub code: String,
    /// For the reader.
    pub message: String,
    /// Whether the same call may succeed later.
    pub retryable: bool,
    /// What later versions may add.
    pub attrs: Vec<Attr>,
}

impl Error {
    /// An error that trying again does not cure.
    pub fn new(code: impl Into<String>, message: impl Into<String>) -> Self {
        Self { code: code.into(), message: message.into(), retryable: false, attrs: Vec::new() }
    }

    /// Code `invalid`: a setting or an argument is wrong.
    pub fn invalid(message: impl Into<String>) -> Self {
        Self::new("invalid", message)
    }

    /// Code `internal`: the plugin's own fault.
    pub fn internal(message: impl Into<String>) -> Self {
        Self::new("internal", message)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.code, self.message)
    }
}

impl std::error::Error for Error {}

/// What every hook and import may return.
pub type Result<T> = std::result::Result<T, Error>;
