//! `/v1/responses`: OpenAI's newer endpoint, without its store.

use std::time::{SystemTime, UNIX_EPOCH};

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use pipeline::{GenerateRequest, Input};
use request::RequestId;
use serde_json::Map;

use crate::http::adapter_wait;
use crate::http::auth::Tenant;
use crate::http::body::JsonBody;
use crate::http::calls::{self, CallReader};
use crate::http::error::ApiError;
use crate::http::observed::Observed;
use crate::http::request_id;
use crate::http::responses::ResponseWriter;
use crate::http::state::PublicState;
use crate::http::wire::responses::ResponsesBody;
use crate::telemetry::{Arrival, Operation};

/// `POST /v1/responses`
pub(crate) async fn responses(
    State(state): State<PublicState>,
    Tenant(tenant): Tenant,
    arrival: Arrival,
    JsonBody(mut body): JsonBody<ResponsesBody>,
) -> Result<Response, ApiError> {
    body.check()?;
    state.admit()?;
    let mut tools = body.tools(state.tool_calls)?;
    let id = RequestId::new("resp", rand::random());
    let created = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let mut blank = body.blank(id.as_str(), created);
    let grammar = tools.bounded(body.grammar()?)?;
    let streaming = body.stream.unwrap_or(false);
    let request = GenerateRequest {
        id: id.clone(),
        tenant,
        model: body.model.clone(),
        input: Input::Chat(body.messages()?),
        sampling: body.sampling()?,
        serving: body.serving(),
        template_variables: Map::new(),
        tools: tools.offered,
        grammar,
        max_tokens: body.max_output_tokens,
        seed: body.seed.map(i64::cast_unsigned),
        n: 1,
        echo: false,
        streaming,
        every_token: false,
        attribution: body.mortise.unwrap_or_default().attribution.unwrap_or(false),
    };
    let answer = Observed::submit(&state, &arrival, request, Operation::Chat).await;
    let answer = answer.map_err(|error| calls::named(named(error.into()), &tools.reading))?;
    let wait = answer.adapter_wait;
    blank["model"] = answer.model.as_str().into();
    let reader = CallReader::new(&tools.reading, &id, 0, answer.prompt.is_empty());
    let writer = ResponseWriter::new(id.clone(), blank, reader, body.mortise.is_some());
    let mut response = match streaming {
        true => writer.events(answer),
        false => Json(writer.whole(answer).await.map_err(named)?).into_response(),
    };
    request_id::set(&mut response, &id);
    adapter_wait::set(&mut response, [wait]);
    Ok(response)
}

/// The fields have other names here.
fn named(mut error: ApiError) -> ApiError {
    let name = match error.param.as_deref() {
        Some("messages" | "prompt") => "input",
        Some("max_tokens") => "max_output_tokens",
        _ => return error,
    };
    error.param = Some(name.to_owned());
    error
}
