//! `/tokenize` and `/detokenize`, as vLLM has them.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use request::TokenId;
use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::http::auth::Tenant;
use crate::http::body::JsonBody;
use crate::http::error::ApiError;
use crate::http::state::PublicState;
use crate::http::wire::chat::WireMessage;
use crate::http::wire::tools::{ChatTool, ToolUse};

/// Text or a conversation to encode.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct TokenizeBody {
    // One tokenizer serves the base and every adapter.
    #[serde(default, rename = "model")]
    _model: IgnoredAny,
    prompt: Option<String>,
    messages: Option<Vec<WireMessage>>,
    add_special_tokens: Option<bool>,
    add_generation_prompt: Option<bool>,
    return_token_strs: Option<bool>,
    chat_template_kwargs: Option<Map<String, Value>>,
    tools: Option<Vec<ChatTool>>,
}

#[derive(Debug, Serialize)]
pub(crate) struct Tokenized {
    count: usize,
    max_model_len: usize,
    tokens: Vec<TokenId>,
    token_strs: Option<Vec<String>>,
}

/// `POST /tokenize`
pub(crate) async fn tokenize(
    State(state): State<PublicState>,
    _tenant: Tenant,
    JsonBody(body): JsonBody<TokenizeBody>,
) -> Result<Json<Tokenized>, ApiError> {
    let (text, special, param) = match (body.prompt, body.messages) {
        (Some(text), None) => (text, body.add_special_tokens.unwrap_or(true), "prompt"),
        (None, Some(messages)) => {
            let messages = messages.into_iter().enumerate();
            let messages: Result<Vec<_>, ApiError> =
                messages.map(|(index, message)| message.into_message(index)).collect();
            let mut variables = body.chat_template_kwargs.unwrap_or_default();
            if let Some(tools) = body.tools.filter(|tools| !tools.is_empty()) {
                variables.insert("tools".to_owned(), ToolUse::offered(tools)?.into());
            }
            let generation = body.add_generation_prompt.unwrap_or(true);
            let text = state.pipeline.render_chat(&messages?, generation, variables)?;
            (text, body.add_special_tokens.unwrap_or(false), "messages")
        }
        _ => {
            let message = "exactly one of prompt and messages must be given";
            return Err(ApiError::invalid_param("prompt", message));
        }
    };
    let tokenizer = Arc::clone(state.pipeline.tokenizer());
    let strings = body.return_token_strs.unwrap_or(false);
    let work = move || {
        let tokens = tokenizer.encode(&text, special)?;
        let decode = |id: &TokenId| tokenizer.decode(&[*id], false);
        let strings = strings.then(|| tokens.iter().map(decode).collect::<Result<_, _>>());
        Ok((tokens, strings.transpose()?))
    };
    let (tokens, token_strs) = blocking(work, param).await?;
    let max_model_len = state.pipeline.base().context_tokens;
    Ok(Json(Tokenized { count: tokens.len(), max_model_len, tokens, token_strs }))
}

/// Tokens to decode.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct DetokenizeBody {
    #[serde(default, rename = "model")]
    _model: IgnoredAny,
    tokens: Vec<TokenId>,
}

#[derive(Debug, Serialize)]
pub(crate) struct Detokenized {
    prompt: String,
}

/// `POST /detokenize`
pub(crate) async fn detokenize(
    State(state): State<PublicState>,
    _tenant: Tenant,
    JsonBody(body): JsonBody<DetokenizeBody>,
) -> Result<Json<Detokenized>, ApiError> {
    let vocab_size = state.pipeline.base().vocab_size;
    let outside = body.tokens.iter().find(|id| **id as usize >= vocab_size);
    if let Some(id) = outside {
        let message = format!("tokens has {id}, and the vocabulary has {vocab_size} tokens");
        return Err(ApiError::invalid_param("tokens", message));
    }
    let tokenizer = Arc::clone(state.pipeline.tokenizer());
    let prompt = blocking(move || tokenizer.decode(&body.tokens, false), "tokens").await?;
    Ok(Json(Detokenized { prompt }))
}

/// Long texts take long enough to hold up a thread that serves streams.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, tokenization::TokenizationError> + Send + 'static,
    param: &'static str,
) -> Result<T, ApiError> {
    let refused = move |error: tokenization::TokenizationError| {
        ApiError::invalid_param(param, error.to_string())
    };
    let Json(done) = crate::http::blocking(move || work().map_err(refused)).await?;
    Ok(done)
}
