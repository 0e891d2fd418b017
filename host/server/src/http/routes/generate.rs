//! `/v1/chat/completions` and `/v1/completions`.

use std::time::{SystemTime, UNIX_EPOCH};

use axum::extract::State;
use axum::response::Response;
use pipeline::{GenerateRequest, Input};
use request::RequestId;
use serde_json::Map;

use crate::http::adapter_wait;
use crate::http::answer::{self, Endpoint, Envelope};
use crate::http::auth::Tenant;
use crate::http::body::JsonBody;
use crate::http::calls::{self, Reading};
use crate::http::error::ApiError;
use crate::http::observed::Observed;
use crate::http::request_id;
use crate::http::state::PublicState;
use crate::http::stream;
use crate::http::wire::chat::ChatBody;
use crate::http::wire::completions::CompletionBody;
use crate::http::wire::sampling::{Common, Shape};
use crate::telemetry::Arrival;

/// `POST /v1/chat/completions`
pub(crate) async fn chat(
    State(state): State<PublicState>,
    Tenant(tenant): Tenant,
    arrival: Arrival,
    JsonBody(mut body): JsonBody<ChatBody>,
) -> Result<Response, ApiError> {
    body.check()?;
    let mut common = body.common();
    let logprobs = body.logprobs()?;
    let shape = common.shape(logprobs.is_some())?;
    let (sampling, serving) = (common.sampling(logprobs)?, common.serving());
    let mut tools = body.tools(state.tool_calls)?;
    let grammar = tools.bounded(common.grammar()?)?;
    let max_tokens = body.tokens_max(common.max_tokens)?;
    if max_tokens == Some(0) {
        let message = "max_tokens must be at least 1, got 0";
        return Err(ApiError::invalid_param("max_tokens", message));
    }
    let request = GenerateRequest {
        id: new_id("chatcmpl"),
        tenant,
        seed: common.seed(),
        n: common.n.unwrap_or(1),
        model: common.model,
        input: Input::Chat(body.messages()?),
        sampling,
        serving,
        template_variables: body.chat_template_kwargs.take().unwrap_or_default(),
        tools: tools.offered,
        grammar,
        max_tokens,
        echo: false,
        streaming: shape.stream,
        every_token: shape.token_ids,
        attribution: shape.attribution,
    };
    answer((&state, &arrival), vec![request], (Endpoint::Chat, tools.reading), shape).await
}

/// `POST /v1/completions`
pub(crate) async fn completions(
    State(state): State<PublicState>,
    Tenant(tenant): Tenant,
    arrival: Arrival,
    JsonBody(mut body): JsonBody<CompletionBody>,
) -> Result<Response, ApiError> {
    let common = body.common();
    body.check(common.n)?;
    let shape = common.shape(body.logprobs.is_some())?;
    let requests = completion_requests(&state, tenant, body, common, shape)?;
    answer((&state, &arrival), requests, (Endpoint::Completion, Reading::Text), shape).await
}

/// One request per prompt.
fn completion_requests(
    state: &PublicState,
    tenant: String,
    mut body: CompletionBody,
    mut common: Common,
    shape: Shape,
) -> Result<Vec<GenerateRequest>, ApiError> {
    let echo = body.echo.unwrap_or(false);
    let mut sampling = common.sampling(body.logprobs)?;
    if echo {
        sampling.prompt_logprobs = body.logprobs;
    }
    let (serving, grammar) = (common.serving(), common.grammar()?);
    let request = |input| GenerateRequest {
        id: new_id("cmpl"),
        tenant: tenant.clone(),
        seed: common.seed(),
        n: common.n.unwrap_or(1),
        model: common.model.clone(),
        input,
        sampling: sampling.clone(),
        serving: serving.clone(),
        template_variables: Map::new(),
        tools: Vec::new(),
        grammar: grammar.clone(),
        max_tokens: common.max_tokens,
        echo,
        streaming: shape.stream,
        every_token: shape.token_ids,
        attribution: shape.attribution,
    };
    Ok(body.inputs(state.limits.prompts_max)?.into_iter().map(request).collect())
}

/// Submits every request and writes the answers. If one is refused, those before it are dropped,
/// which cancels them.
async fn answer(
    (state, arrival): (&PublicState, &Arrival),
    requests: Vec<GenerateRequest>,
    (endpoint, reading): (Endpoint, Reading),
    shape: Shape,
) -> Result<Response, ApiError> {
    state.admit()?;
    let created = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let first = requests.first().ok_or_else(|| ApiError::invalid("no prompt was given"))?;
    let (id, n) = (first.id.clone(), first.n);
    let fingerprint = format!("fp_{}", state.pipeline.base().digest.short());
    let mut answers = Vec::new();
    for request in requests {
        let submitted = Observed::submit(state, arrival, request, endpoint.operation()).await;
        answers.push(submitted.map_err(|error| named(error.into(), endpoint, &reading))?);
    }
    let envelope = Envelope { endpoint, id: id.clone(), created, fingerprint, shape, n, reading };
    let waits: Vec<_> = answers.iter().map(|answer| answer.adapter_wait).collect();
    let mut response = match shape.stream {
        true => stream::events(answers, envelope),
        false => answer::collect(answers, envelope).await?,
    };
    request_id::set(&mut response, &id);
    adapter_wait::set(&mut response, waits);
    Ok(response)
}

/// The prompt's field has another name in completions, and what must call is bound by its tools.
fn named(mut error: ApiError, endpoint: Endpoint, reading: &Reading) -> ApiError {
    let overflow = error.code.as_deref() == Some("context_length_exceeded");
    if overflow && endpoint == Endpoint::Completion {
        error.param = Some("prompt".to_owned());
    }
    calls::named(error, reading)
}

fn new_id(prefix: &str) -> RequestId {
    RequestId::new(prefix, rand::random())
}
