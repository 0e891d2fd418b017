//! The model's chat template: Jinja as Hugging Face runs it.

use std::fs;
use std::path::Path;

use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Kwargs, Serde, Value as JinjaValue};
use minijinja::{Environment, Error, ErrorKind};
use minijinja_contrib::pycompat::unknown_method_callback;
use request::Message;
use serde_json::{Map, Value};

use crate::error::TokenizationError;
use crate::gguf;
use crate::python_json::dumps;
use crate::tool_calls::ToolCallFormat;

/// Steps that one rendering may take. Real templates take some hundred per message.
const RENDER_STEPS_MAX: u64 = 2_000_000;
/// Name of the one template.
const NAME: &str = "chat";

/// A compiled chat template with the special tokens it names. Immutable; share it behind an `Arc`.
#[derive(Debug)]
pub struct ChatTemplate {
    environment: Environment<'static>,
    /// `bos_token`, `eos_token` and their like.
    special_tokens: Map<String, Value>,
}

impl ChatTemplate {
    /// The template of a model's directory: `chat_template.jinja`, else `chat_template` in
    /// `tokenizer_config.json`, there a text or a list in which `default` is taken. `None` if there
    /// is neither.
    ///
    /// # Errors
    /// Names the file, and the line of a template that does not parse.
    pub fn from_dir(dir: &Path) -> Result<Option<Self>, TokenizationError> {
        let config_path = dir.join("tokenizer_config.json");
        let config: Map<String, Value> = match read(&config_path)? {
            None => Map::new(),
            Some(text) => serde_json::from_str(&text).map_err(|error| TokenizationError::File {
                path: config_path.clone(),
                reason: error.to_string(),
            })?,
        };
        let source = match read(&dir.join("chat_template.jinja"))? {
            Some(source) => Some(source),
            None => from_config(&config)
                .map_err(|reason| TokenizationError::File { path: config_path, reason })?,
        };
        source.map(|source| Self::new(&source, special_tokens(&config))).transpose()
    }

    /// The template in the metadata of the GGUF file at `path`; `None` if there is none.
    ///
    /// # Errors
    /// Names the file and the key of another type, or the line of a template that does not parse.
    pub fn from_gguf(
        path: &Path,
        metadata: &Map<String, Value>,
    ) -> Result<Option<Self>, TokenizationError> {
        let found = gguf::chat_template(metadata);
        let found =
            found.map_err(|reason| TokenizationError::File { path: path.to_owned(), reason })?;
        found.map(|(source, special_tokens)| Self::new(&source, special_tokens)).transpose()
    }

    /// Compiles `source`.
    ///
    /// # Errors
    /// The line that does not parse.
    pub fn new(
        source: &str,
        special_tokens: Map<String, Value>,
    ) -> Result<Self, TokenizationError> {
        let mut environment = Environment::new();
        let syntax = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build();
        environment.set_syntax(syntax.map_err(template_error)?);
        environment.set_fuel(Some(RENDER_STEPS_MAX));
        environment.set_unknown_method_callback(unknown_method_callback);
        environment.add_function("raise_exception", raise_exception);
        environment.add_function("strftime_now", strftime_now);
        environment.add_filter("tojson", tojson);
        let source = without_generation_tags(source);
        environment.add_template_owned(NAME, source).map_err(template_error)?;
        Ok(Self { environment, special_tokens })
    }

    /// How a model with this template writes calls of tools; `None` if the template knows no tools, or
    /// shows no way that is known here.
    #[must_use]
    pub fn tool_call_format(&self) -> Option<ToolCallFormat> {
        let template = self.environment.get_template(NAME).ok()?;
        let source = template.source();
        if !source.contains("tools") {
            return None;
        }
        if source.contains("<tool_call>") {
            return Some(ToolCallFormat::Hermes);
        }
        source.contains("\"parameters\"").then_some(ToolCallFormat::Llama3Json)
    }

    /// Renders a conversation. `add_generation_prompt` ends it where the model is to go on; `extra`
    /// holds further variables, such as `tools` or `enable_thinking`.
    ///
    /// # Errors
    /// What the template raised, with the line.
    pub fn render(
        &self,
        messages: &[Message],
        add_generation_prompt: bool,
        extra: Map<String, Value>,
    ) -> Result<String, TokenizationError> {
        let mut variables = self.special_tokens.clone();
        // Templates test these against none, as Hugging Face passes them.
        for absent in ["tools", "documents"] {
            variables.insert(absent.to_owned(), Value::Null);
        }
        variables.extend(extra);
        let messages = serde_json::to_value(messages).expect("messages are plain data");
        variables.insert("messages".to_owned(), messages);
        variables.insert("add_generation_prompt".to_owned(), add_generation_prompt.into());
        let template = self.environment.get_template(NAME).map_err(template_error)?;
        template.render(Serde(&variables)).map_err(template_error)
    }
}

fn read(path: &Path) -> Result<Option<String>, TokenizationError> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(TokenizationError::Io { path: path.to_owned(), source }),
    }
}

fn from_config(config: &Map<String, Value>) -> Result<Option<String>, String> {
    match config.get("chat_template") {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(source)) => Ok(Some(source.clone())),
        Some(Value::Array(named)) => {
            let default = named.iter().find(|entry| entry["name"] == "default");
            let source = default.and_then(|entry| entry["template"].as_str());
            let source = source.ok_or("chat_template is a list without a `default`")?;
            Ok(Some(source.to_owned()))
        }
        Some(_) => Err("chat_template is neither a text nor a list".to_owned()),
    }
}

/// The special tokens that templates may name: each is a text, or an object with its `content`.
fn special_tokens(config: &Map<String, Value>) -> Map<String, Value> {
    let text = |value: &Value| match value {
        Value::String(_) => Some(value.clone()),
        Value::Object(token) => token.get("content").filter(|text| text.is_string()).cloned(),
        _ => None,
    };
    let named = config.iter().filter(|(key, _)| key.ends_with("_token"));
    named.filter_map(|(key, value)| Some((key.clone(), text(value)?))).collect()
}

/// `{% generation %}` marks the assistant's tokens for training; it changes no text.
fn without_generation_tags(source: &str) -> String {
    let mut rest = source;
    let mut out = String::with_capacity(source.len());
    while let Some(at) = rest.find("{%") {
        let Some(length) = rest[at..].find("%}") else { break };
        let tag = &rest[at..at + length + 2];
        let word = tag[2..tag.len() - 2].trim_matches(['-', '+', ' ', '\t', '\n']);
        out.push_str(&rest[..at]);
        match word {
            // A set that sets nothing keeps the tag's own whitespace control.
            "generation" | "endgeneration" => {
                out.push_str(&tag.replacen(word, "set _generation = 0", 1));
            }
            _ => out.push_str(tag),
        }
        rest = &rest[at + length + 2..];
    }
    out + rest
}

fn raise_exception(message: String) -> Result<JinjaValue, Error> {
    Err(Error::new(ErrorKind::InvalidOperation, message))
}

/// The local time as Python's `strftime` writes it.
fn strftime_now(format: &str) -> Result<String, Error> {
    let now = jiff::Zoned::now();
    jiff::fmt::strtime::format(format, &now)
        .map_err(|error| Error::new(ErrorKind::InvalidOperation, format!("strftime_now: {error}")))
}

fn tojson(value: Serde<Value>, options: Kwargs) -> Result<JinjaValue, Error> {
    Ok(JinjaValue::from_safe_string(dumps(&value, options.get("indent")?)))
}

fn template_error(error: Error) -> TokenizationError {
    let reason = error.detail().map_or_else(|| error.kind().to_string(), str::to_owned);
    TokenizationError::Template { line: error.line().unwrap_or_default(), reason }
}
