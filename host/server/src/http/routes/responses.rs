//! `/v1/responses`: OpenAI's newer endpoint, without its store.

use std::time::{SystemTime, UNIX_EPOCH};

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use pipeline::{GenerateRequest, Input};
use request::RequestId;
use serde_json::Map;

use crate::http::auth::Tenant;
use crate::http::body::JsonBody;
use crate::http::error::ApiError;
use crate::http::request_id;
use crate::http::responses::ResponseWriter;
use crate::http::state::PublicState;
use crate::http::wire::responses::ResponsesBody;

/// `POST /v1/responses`
pub(crate) async fn responses(
    State(state): State<PublicState>,
    Tenant(tenant): Tenant,
    JsonBody(mut body): JsonBody<ResponsesBody>,
) -> Result<Response, ApiError> {
    body.check()?;
    state.admit()?;
    let id = RequestId::new("resp", rand::random());
    let created = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let blank = body.blank(id.as_str(), created);
    let streaming = body.stream.unwrap_or(false);
    let request = GenerateRequest {
        id: id.clone(),
        tenant,
        model: body.model.clone(),
        input: Input::Chat(body.messages()?),
        sampling: body.sampling()?,
        serving: body.serving(),
        template_variables: Map::new(),
        grammar: body.grammar()?,
        max_tokens: body.max_output_tokens,
        seed: body.seed.map(i64::cast_unsigned),
        n: 1,
        echo: false,
        streaming,
        every_token: false,
        attribution: body.mortise.unwrap_or_default().attribution.unwrap_or(false),
    };
    let answer = state.pipeline.submit(request).await.map_err(|error| named(error.into()))?;
    let writer = ResponseWriter::new(id.clone(), blank, &answer.model, body.mortise.is_some());
    let mut response = match streaming {
        true => writer.events(answer),
        false => Json(writer.whole(answer).await.map_err(named)?).into_response(),
    };
    request_id::set(&mut response, &id);
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
