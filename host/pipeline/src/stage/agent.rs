//! An agent's run: its calls back into the host go to the engine under one token budget.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use ::request::{Message, Role, ServingOptions, Usage};
use async_trait::async_trait;
use engine::EngineEvent;
use plugin_host::{
    AgentContext, CapabilityError, Completion, GenerateCall, GenerateCapability, Plugin,
};
use serde_json::Map;
use tokenization::{IncrementalDecoder, StopMatcher};

use crate::context::{self, Answered, Context};
use crate::error::PipelineError;
use crate::meter::{Meter, Payer};
use crate::shared::Shared;
use crate::stage::route::{Target, named};
use crate::stage::{blocking, tokenize};

/// What an agent run came to.
pub(crate) struct AgentEnd {
    pub(crate) message: Message,
    pub(crate) usage: Usage,
    /// The adapter of its last call, whose corpus the answer is traced to.
    pub(crate) answered: Option<Answered>,
}

/// Runs the agent to its answer.
pub(crate) async fn run(
    shared: &Arc<Shared>,
    context: &mut Context,
    agent: &Arc<Plugin>,
    messages: Vec<Message>,
) -> Result<AgentEnd, PipelineError> {
    let calls = Arc::new(AgentCalls {
        shared: Arc::clone(shared),
        tenant: context.request.tenant.clone(),
        serving: context.request.serving.clone(),
        seed: context.request.sampling.seed,
        tokens_max: context.request.max_tokens.unwrap_or(u32::MAX),
        calls: AtomicU32::new(0),
        used: std::sync::Mutex::default(),
    });
    let lent: Arc<dyn GenerateCapability> = calls.clone();
    // What a run may use in all is the operator's word, not the client's.
    let agent_context = AgentContext { generate: lent, budget_tokens: None };
    let outcome = agent.run_agent(context.info(), messages, agent_context).await;
    let used = std::mem::take(&mut *calls.used.lock().unwrap_or_else(|lock| lock.into_inner()));
    match context.settle(agent, outcome)? {
        Some(message) => Ok(AgentEnd { message, usage: used.usage, answered: used.answered }),
        // There is no request without its agent: bypass has nothing to go on with.
        None => {
            let reason = "it failed, and an agent cannot be bypassed".to_owned();
            Err(PipelineError::PluginFailed { plugin: agent.name().to_owned(), reason })
        }
    }
}

#[derive(Default)]
struct Used {
    usage: Usage,
    /// Not the lease: a run that held one adapter while it waits for the next could wait for ever.
    answered: Option<Answered>,
}

/// The `generate` capability of one run.
struct AgentCalls {
    shared: Arc<Shared>,
    tenant: String,
    serving: ServingOptions,
    seed: u64,
    /// The client's `max_tokens`: no call generates more.
    tokens_max: u32,
    calls: AtomicU32,
    used: std::sync::Mutex<Used>,
}

#[async_trait]
impl GenerateCapability for AgentCalls {
    async fn generate(&self, call: GenerateCall) -> Result<Completion, CapabilityError> {
        let acquire = match named(&self.shared, &call.model).await {
            Ok(Target::Adapter(acquire)) => Some(acquire),
            Ok(_) => None,
            // An agent cannot know what the base is called here.
            Err(_) if call.model.is_empty() => None,
            Err(error) => return Err(capability_error(error)),
        };
        let lease = match acquire {
            Some(acquire) => Some(self.shared.lease(acquire).await.map_err(capability_error)?),
            None => None,
        };
        let completion = self.complete(call, lease.as_ref()).await.map_err(capability_error)?;
        let mut used = self.used.lock().unwrap_or_else(|lock| lock.into_inner());
        used.usage = used.usage.plus(completion.usage);
        used.answered = lease.as_ref().map(|lease| Answered::of(lease, &self.shared.corpora));
        Ok(completion)
    }
}

impl AgentCalls {
    async fn complete(
        &self,
        call: GenerateCall,
        lease: Option<&lora::Lease>,
    ) -> Result<Completion, PipelineError> {
        let (shared, messages) = (Arc::clone(&self.shared), call.messages);
        let prompt = blocking(move || tokenize::chat(&shared, &messages, Map::new())).await??;
        let prompt_tokens = prompt.len();
        // `budget_tokens` holds prompt and answer together.
        let left = (call.budget_tokens as usize).saturating_sub(prompt_tokens);
        let left = u32::try_from(left).unwrap_or(u32::MAX);
        if left == 0 {
            let message = format!(
                "over-budget: the prompt has {prompt_tokens} tokens and the run may use {} more",
                call.budget_tokens
            );
            return Err(PipelineError::Invalid { param: "budget", message });
        }
        let mut sampling = call.sampling.to_params();
        let wanted = call.sampling.max_tokens.unwrap_or(u32::MAX).min(left).min(self.tokens_max);
        sampling.max_tokens = self.shared.fit(prompt_tokens, None, wanted)?;
        let nth = self.calls.fetch_add(1, Ordering::Relaxed);
        sampling.seed =
            call.sampling.seed.unwrap_or_else(|| self.seed.wrapping_add(u64::from(nth)));
        sampling.validate()?;
        let stops = StopMatcher::new(sampling.stop.clone());
        let adapter = lease.map(|lease| Arc::clone(lease.adapter()));
        let whose = (self.tenant.as_str(), &self.serving);
        let stream = self.shared.submit(prompt, (sampling, None), adapter, whose)?;
        let payer = Payer {
            adapters: lease.map(context::parts).unwrap_or_default(),
            tenant: self.tenant.clone(),
        };
        let count = u32::try_from(prompt_tokens).unwrap_or(u32::MAX);
        let mut meter = Meter::new(&self.shared.usage, payer, count, [&stream]);
        let completion = self.read(stream, stops, prompt_tokens).await?;
        meter.tell(completion.usage);
        Ok(completion)
    }

    async fn read(
        &self,
        mut stream: engine::OutputStream,
        mut stops: StopMatcher,
        prompt_tokens: usize,
    ) -> Result<Completion, PipelineError> {
        let mut decoder = IncrementalDecoder::new(Arc::clone(&self.shared.tokenizer), true);
        let prompt_tokens = u32::try_from(prompt_tokens).unwrap_or(u32::MAX);
        let mut usage = Usage { prompt_tokens, ..Usage::default() };
        let (mut text, mut reason) = (String::new(), "stop");
        let internal =
            |error: String| PipelineError::Internal { message: format!("agent call: {error}") };
        loop {
            match stream.next().await {
                Some(EngineEvent::Token { id, .. }) => {
                    usage.completion_tokens += 1;
                    let piece = decoder.push(id).map_err(|error| internal(error.to_string()))?;
                    let pushed = stops.push(&piece);
                    text.push_str(&pushed.emit);
                    if pushed.stopped.is_some() {
                        usage.cached_tokens = stream.cached_tokens();
                        break;
                    }
                }
                Some(
                    EngineEvent::PromptLogprobs(_)
                    | EngineEvent::Pooled(_)
                    | EngineEvent::Stop { .. },
                ) => {}
                Some(EngineEvent::Finished { reason: ended, usage: counted }) => {
                    let rest = decoder.finish().map_err(|error| internal(error.to_string()))?;
                    let pushed = stops.push(&rest);
                    text.push_str(&pushed.emit);
                    if pushed.stopped.is_none() {
                        text.push_str(&stops.finish());
                    }
                    (reason, usage) = (ended.as_str(), counted);
                    break;
                }
                Some(EngineEvent::Expired { waited }) => {
                    return Err(PipelineError::expired(waited));
                }
                Some(EngineEvent::Failed { message }) => return Err(internal(message)),
                None => return Err(internal("the engine stopped".to_owned())),
            }
        }
        let message = Message::new(Role::Assistant, text);
        Ok(Completion { message, finish_reason: reason.to_owned(), usage })
    }
}

/// What an agent is told. Internal details stay with the host.
fn capability_error(error: PipelineError) -> CapabilityError {
    let code = match &error {
        PipelineError::Invalid { param: "budget", .. } => "over-budget",
        PipelineError::Overloaded { .. }
        | PipelineError::Expired { .. }
        | PipelineError::AdapterUnavailable { .. }
        | PipelineError::Draining => "unavailable",
        PipelineError::ModelNotFound { .. } => "not-found",
        PipelineError::Internal { .. } => "internal",
        _ => "invalid",
    };
    let message = match error {
        PipelineError::Internal { .. } => "the host failed".to_owned(),
        other => other.to_string(),
    };
    CapabilityError::new(code, message)
}
