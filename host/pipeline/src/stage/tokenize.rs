//! From what the client wrote to the tokens that the model reads.

use std::sync::Arc;

use ::request::{Message, Role, TokenId};
use serde_json::{Map, Value};

use crate::error::PipelineError;
use crate::request::{GenerateRequest, Input};
use crate::shared::Shared;
use crate::stage::blocking;

/// The conversation that plugins see. A completion's prompt is one turn of the user.
pub(crate) fn messages(shared: &Shared, input: &Input) -> Result<Vec<Message>, PipelineError> {
    match input {
        Input::Chat(messages) => Ok(messages.clone()),
        Input::Text(text) => Ok(vec![Message::new(Role::User, text.clone())]),
        Input::Tokens(tokens) => {
            check_vocabulary(shared, tokens)?;
            let text = shared.tokenizer.decode(tokens, false).map_err(internal)?;
            Ok(vec![Message::new(Role::User, text)])
        }
    }
}

/// The prompt's tokens. `changed` says that a plugin rewrote `messages`, so that they count rather
/// than what the client sent.
pub(crate) async fn prompt(
    shared: &Arc<Shared>,
    request: &GenerateRequest,
    messages: Vec<Message>,
    changed: bool,
) -> Result<Vec<TokenId>, PipelineError> {
    if let (Input::Tokens(tokens), false) = (&request.input, changed) {
        return Ok(tokens.clone());
    }
    let is_chat = matches!(request.input, Input::Chat(_));
    let mut variables = request.template_variables.clone();
    if !request.tools.is_empty() {
        variables.insert("tools".to_owned(), request.tools.clone().into());
    }
    let shared = Arc::clone(shared);
    blocking(move || {
        if is_chat {
            return chat(&shared, &messages, variables);
        }
        let text: String = messages.into_iter().map(|message| message.content).collect();
        shared.tokenizer.encode(&text, true).map_err(internal)
    })
    .await?
}

/// Renders and encodes a conversation. The template writes its own special tokens, so none are
/// added.
pub(crate) fn chat(
    shared: &Shared,
    messages: &[Message],
    variables: Map<String, Value>,
) -> Result<Vec<TokenId>, PipelineError> {
    let text = render(shared, messages, (true, variables))?;
    shared.tokenizer.encode(&text, false).map_err(internal)
}

/// The conversation as the model's template writes it.
pub(crate) fn render(
    shared: &Shared,
    messages: &[Message],
    (add_generation_prompt, variables): (bool, Map<String, Value>),
) -> Result<String, PipelineError> {
    let Some(template) = &shared.chat_template else {
        let message = format!("the model `{}` has no chat template", shared.base.name);
        return Err(PipelineError::Invalid { param: "messages", message });
    };
    template
        .render(messages, add_generation_prompt, variables)
        .map_err(|error| PipelineError::Invalid { param: "messages", message: error.to_string() })
}

/// Refuses token ids that the model does not have.
pub(crate) fn check_vocabulary(shared: &Shared, tokens: &[TokenId]) -> Result<(), PipelineError> {
    let size = shared.base.vocab_size;
    match tokens.iter().find(|token| **token as usize >= size) {
        None => Ok(()),
        Some(token) => {
            let message = format!("token id {token} is not below the vocabulary size {size}");
            Err(PipelineError::Invalid { param: "prompt", message })
        }
    }
}

fn internal(error: impl std::fmt::Display) -> PipelineError {
    PipelineError::Internal { message: format!("failed to tokenize: {error}") }
}
