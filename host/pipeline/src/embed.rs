//! Embeddings: the stages of a request whose answer is a vector. Routed, prepared by plugins, admitted
//! and recorded as any other; there is no text to filter, and none to credit.

use std::sync::Arc;
use std::time::Duration;

use ::request::{Digest, RequestId, SamplingParams, ServingOptions, Usage};
use engine::{EngineEvent, OutputStream};
use serde_json::Map;
use tokio::sync::oneshot;

use crate::context::Context;
use crate::error::PipelineError;
use crate::meter::Meter;
use crate::pipeline::Pipeline;
use crate::request::{GenerateRequest, Input};
use crate::stage::record::{self, Outcome};
use crate::stage::route::{self, Target};
use crate::stage::{attribute, preprocess, tokenize};

/// What plugins and receipts call these requests.
const ENDPOINT: &str = "embedding";

/// One text to embed.
#[derive(Clone, Debug)]
pub struct EmbedRequest {
    /// Unguessable; names the receipt too.
    pub id: RequestId,
    /// Who asks.
    pub tenant: String,
    /// `auto`, the base model's name or an adapter's alias.
    pub model: String,
    /// Text or tokens; a conversation is not embedded.
    pub input: Input,
    /// Its place in the queue and the cache.
    pub serving: ServingOptions,
}

/// An embedding with its receipt.
#[derive(Clone, Debug, PartialEq)]
pub struct Embedded {
    /// The request's id.
    pub id: RequestId,
    /// Who answered.
    pub model: String,
    /// Mean of the last hidden states over all tokens, as the head would read them; `[hidden_size]`.
    pub mean: Vec<f32>,
    /// Tokens of the text.
    pub usage: Usage,
    /// Digest of the receipt in the log, in hex.
    pub receipt_hash: String,
    /// As in [`crate::Answer`].
    pub adapter_wait: Option<Duration>,
}

/// What came of a request before its receipt.
enum End {
    Done { model: String, mean: Vec<f32>, usage: Usage },
    Cancelled,
}

impl Pipeline {
    /// Embeds one text. Dropping the future cancels the work; the receipt is written all the same.
    ///
    /// # Errors
    /// Everything that can go wrong with a request.
    pub async fn embed(&self, request: EmbedRequest) -> Result<Embedded, PipelineError> {
        let (sender, receiver) = oneshot::channel();
        let carried = self.clone();
        self.shared.spawn(async move { carried.carry_embedding(request, sender).await });
        let stopped = |_| PipelineError::Internal { message: "the embedding stopped".to_owned() };
        receiver.await.map_err(stopped)?
    }

    async fn carry_embedding(
        self,
        request: EmbedRequest,
        mut sender: oneshot::Sender<Result<Embedded, PipelineError>>,
    ) {
        let id = request.id.clone();
        let chain = self.shared.plugins.chain();
        let mut context = Context { endpoint: ENDPOINT, ..Context::new(request.into(), chain) };
        let result = match self.embedding(&mut context, &mut sender).await {
            Ok(End::Done { model, mean, usage }) => {
                let recorded =
                    self.record_embedding(&mut context, Outcome::Completed, &mean, usage);
                recorded.await.map(|receipt_hash| Embedded {
                    id,
                    model,
                    mean,
                    usage,
                    receipt_hash,
                    adapter_wait: context.adapter_wait,
                })
            }
            Ok(End::Cancelled) => {
                let usage = Usage { prompt_tokens: context.prompt_tokens, ..Usage::default() };
                let recorded = self.record_embedding(&mut context, Outcome::Cancelled, &[], usage);
                if let Err(error) = recorded.await {
                    tracing::error!(request = %id, %error, "no receipt was written");
                }
                return;
            }
            Err(error) => {
                self.refuse(&mut context, &error).await;
                Err(error)
            }
        };
        // Who asked may have left.
        let _ = sender.send(result);
    }

    /// From route to the vector.
    async fn embedding(
        &self,
        context: &mut Context,
        sender: &mut oneshot::Sender<Result<Embedded, PipelineError>>,
    ) -> Result<End, PipelineError> {
        let shared = &self.shared;
        self.check(context)?;
        let messages = tokenize::messages(shared, &context.request.input)?;
        let target = route::run(shared, context, &messages).await?;
        let model = target.name(&shared.base.name);
        let acquire = match target {
            Target::Base => None,
            Target::Adapter(acquire) => Some(acquire),
            Target::Agent(_) => return Err(invalid("model", "an agent has no embeddings")),
        };
        let prepared = preprocess::run(context, messages).await?;
        if prepared.response.is_some() {
            context.release();
            let message = "a plugin answers this request with text, and text is no embedding";
            return Err(invalid("input", message));
        }
        let (messages, changed) = (prepared.messages, prepared.changed);
        let prompt = tokenize::prompt(shared, &context.request, messages, changed).await?;
        shared.fit(prompt.len(), Some(0), 0)?;
        let lease = match acquire {
            Some(acquire) => Some(shared.lease(acquire).await?),
            None => None,
        };
        if let Some(lease) = &lease {
            context.lease(lease, &shared.corpora);
        }
        context.prompt_tokens = u32::try_from(prompt.len()).unwrap_or(u32::MAX);
        let adapter = lease.as_ref().map(|lease| Arc::clone(lease.adapter()));
        let whose = (context.request.tenant.as_str(), &context.request.serving);
        let stream = shared.pool(prompt, adapter, whose)?;
        let mut meter =
            Meter::new(&shared.usage, context.payer(), context.prompt_tokens, [&stream]);
        tokio::select! {
            read = read(stream) => read.map(|(mean, usage)| {
                meter.tell(usage);
                End::Done { model, mean, usage }
            }),
            () = sender.closed() => Ok(End::Cancelled),
        }
    }

    async fn record_embedding(
        &self,
        context: &mut Context,
        outcome: Outcome,
        mean: &[f32],
        usage: Usage,
    ) -> Result<String, PipelineError> {
        let bytes: Vec<u8> = mean.iter().flat_map(|value| value.to_le_bytes()).collect();
        let output = (Digest::of_fields([bytes.as_slice()]), outcome.as_str().to_owned());
        let attributed = attribute::without(None, "an embedding has no text to trace");
        let what = (outcome, usage, &attributed);
        let recorded = record::append(&self.shared, context, what, output).await;
        self.shared.metrics.count(outcome.as_str());
        recorded
    }
}

async fn read(mut stream: OutputStream) -> Result<(Vec<f32>, Usage), PipelineError> {
    let mut mean = None;
    loop {
        match stream.next().await {
            Some(EngineEvent::Pooled(found)) => mean = Some(found),
            Some(EngineEvent::Finished { usage, .. }) => {
                let found = mean.ok_or_else(|| internal("no hidden states came".to_owned()))?;
                return Ok((found, usage));
            }
            Some(EngineEvent::Expired { waited }) => return Err(PipelineError::expired(waited)),
            Some(EngineEvent::Failed { message }) => return Err(internal(message)),
            Some(
                EngineEvent::PromptLogprobs(_)
                | EngineEvent::Token { .. }
                | EngineEvent::Stop { .. },
            ) => {}
            None => return Err(internal("the engine stopped before the end".to_owned())),
        }
    }
}

fn internal(message: String) -> PipelineError {
    PipelineError::Internal { message }
}

fn invalid(param: &'static str, message: &str) -> PipelineError {
    PipelineError::Invalid { param, message: message.to_owned() }
}

impl From<EmbedRequest> for GenerateRequest {
    /// The part that all requests share; nothing is generated.
    fn from(request: EmbedRequest) -> Self {
        Self {
            id: request.id,
            tenant: request.tenant,
            model: request.model,
            input: request.input,
            sampling: SamplingParams::default(),
            serving: request.serving,
            template_variables: Map::new(),
            tools: Vec::new(),
            grammar: None,
            max_tokens: None,
            // Nothing is drawn.
            seed: Some(0),
            n: 1,
            echo: false,
            streaming: false,
            every_token: false,
            attribution: false,
        }
    }
}
