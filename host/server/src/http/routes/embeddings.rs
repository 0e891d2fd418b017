//! `/v1/embeddings`: mean-pooled hidden states of the base model or of any adapter.

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use engine::Timing;
use futures_util::{StreamExt, TryStreamExt, stream};
use pipeline::{EmbedRequest, Embedded, PipelineError};
use request::{RequestId, Usage};

use crate::http::adapter_wait;
use crate::http::auth::Tenant;
use crate::http::body::JsonBody;
use crate::http::error::ApiError;
use crate::http::observed;
use crate::http::state::PublicState;
use crate::http::wire::embeddings::{
    EmbeddingBody, EmbeddingList, EmbeddingUsage, EmbeddingWire, VectorShape,
};
use crate::http::wire::mortise::MortiseWire;
use crate::http::wire::object::MortiseField;
use crate::telemetry::{Arrival, Asked, Operation};

/// Most inputs of one request, as the OpenAI API has it.
const INPUTS_MAX: usize = 2048;
/// Inputs of one request that are in the engine's queue at once: a long list leaves room for others.
const AT_ONCE: usize = 16;

/// `POST /v1/embeddings`
pub(crate) async fn embeddings(
    State(state): State<PublicState>,
    Tenant(tenant): Tenant,
    arrival: Arrival,
    JsonBody(mut body): JsonBody<EmbeddingBody>,
) -> Result<Response, ApiError> {
    state.admit()?;
    let (shape, serving) = (body.shape(state.pipeline.base().hidden_size)?, body.serving());
    let EmbeddingBody { model, input, .. } = body;
    let request = |input| EmbedRequest {
        id: RequestId::new("embd", rand::random()),
        tenant: tenant.clone(),
        model: model.clone(),
        input,
        serving: serving.clone(),
    };
    let requests: Vec<_> =
        input.into_inputs("input", INPUTS_MAX)?.into_iter().map(request).collect();
    let embed = |request| embed(&state, &arrival, request);
    let ended = stream::iter(requests).map(embed).buffered(AT_ONCE);
    let embedded: Vec<Embedded> =
        ended.try_collect().await.map_err(|error| input_of(error.into()))?;
    let waits: Vec<_> = embedded.iter().map(|one| one.adapter_wait).collect();
    let mut response = Json(list(embedded, shape)).into_response();
    adapter_wait::set(&mut response, waits);
    Ok(response)
}

async fn embed(
    state: &PublicState,
    arrival: &Arrival,
    request: EmbedRequest,
) -> Result<Embedded, PipelineError> {
    let mut observation = arrival.observe(&Asked {
        operation: Operation::Embeddings,
        model: &request.model,
        max_tokens: None,
        temperature: None,
        top_p: None,
        seed: None,
        choices: 1,
    });
    let embedded = state.pipeline.embed(request).await;
    match &embedded {
        Ok(embedded) => {
            observation.admitted(embedded.id.as_str(), &embedded.model);
            observation.done(embedded.usage, &Timing::default());
        }
        Err(error) => observation.failed(observed::kind(error)),
    }
    embedded
}

fn list(embedded: Vec<Embedded>, shape: VectorShape) -> EmbeddingList {
    let model = embedded.first().map(|first| first.model.clone()).unwrap_or_default();
    let (mut usage, mut receipts, mut data) = (Usage::default(), Vec::new(), Vec::new());
    for (index, of) in embedded.into_iter().enumerate() {
        usage = usage.plus(of.usage);
        receipts.push(MortiseWire::receipt(&of.id, of.receipt_hash));
        let embedding = shape.write(of.mean);
        data.push(EmbeddingWire { object: "embedding", index, embedding });
    }
    let tokens = usage.prompt_tokens;
    let usage = EmbeddingUsage { prompt_tokens: tokens, total_tokens: tokens };
    EmbeddingList { object: "list", data, model, usage, mortise: MortiseField::new(receipts) }
}

/// What other endpoints call prompt or messages is the input here.
fn input_of(mut error: ApiError) -> ApiError {
    if matches!(error.param.as_deref(), Some("prompt" | "messages")) {
        error.param = Some("input".to_owned());
    }
    error
}
