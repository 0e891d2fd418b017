//! Who answers: the base model, an adapter or an agent.

use std::sync::Arc;

use ::request::Message;
use plugin_host::{Candidate, Plugin, RouteDecision};

use crate::context::Context;
use crate::error::PipelineError;
use crate::shared::Shared;
use crate::stage::{blocking, preprocess};

/// What clients write to ask the router.
const AUTO: &str = "auto";
/// What the name of an agent begins with on the wire.
pub(crate) const AGENT_PREFIX: &str = "agent:";

/// Where a request goes.
pub(crate) enum Target {
    /// The base model alone.
    Base,
    /// The base model with an adapter, pinned. If it is not in memory, its load has begun: what comes
    /// before the engine goes on meanwhile.
    Adapter(lora::Acquire),
    /// An agent plugin.
    Agent(Arc<Plugin>),
}

impl Target {
    /// The name clients see in the answer.
    pub(crate) fn name(&self, base: &str) -> String {
        match self {
            Self::Base => base.to_owned(),
            Self::Adapter(acquire) => acquire.alias().to_owned(),
            Self::Agent(plugin) => format!("{AGENT_PREFIX}{}", plugin.name()),
        }
    }
}

/// Resolves the model that the client named, asking the router for `auto`.
pub(crate) async fn run(
    shared: &Arc<Shared>,
    context: &mut Context,
    messages: &[Message],
) -> Result<Target, PipelineError> {
    let model = context.request.model.clone();
    if let Some(name) = model.strip_prefix(AGENT_PREFIX) {
        let agent = context.chain.agent(name).ok_or(PipelineError::ModelNotFound { model })?;
        return Ok(Target::Agent(agent));
    }
    if model == AUTO {
        return ask_router(shared, context, messages).await;
    }
    named(shared, &model).await
}

/// The base model or an adapter of that name, one that was put into the folder of adapters since it
/// was last looked at included.
pub(crate) async fn named(shared: &Arc<Shared>, model: &str) -> Result<Target, PipelineError> {
    if model == shared.base.name {
        return Ok(Target::Base);
    }
    if !shared.adapters.contains(model) {
        let (adapters, alias) = (Arc::clone(&shared.adapters), model.to_owned());
        let found = blocking(move || adapters.discover(&alias)).await?;
        if !found.map_err(|error| shared.adapter_error(model, &error))? {
            return Err(PipelineError::ModelNotFound { model: model.to_owned() });
        }
    }
    let acquire = shared.adapters.acquire(model);
    acquire.map(Target::Adapter).map_err(|error| shared.adapter_error(model, &error))
}

async fn ask_router(
    shared: &Arc<Shared>,
    context: &mut Context,
    messages: &[Message],
) -> Result<Target, PipelineError> {
    let Some(router) = context.chain.router() else {
        return Ok(Target::Base);
    };
    let (plugin, info, messages) = (Arc::clone(&router), context.info(), messages.to_vec());
    let candidates = candidates(shared);
    let outcome = blocking(move || plugin.route(&info, &messages, &candidates)).await?;
    match context.settle(&router, outcome)? {
        None | Some(RouteDecision::Pass) => Ok(Target::Base),
        // The host has checked that it was a candidate; it may have been unloaded since.
        Some(RouteDecision::To(model)) => named(shared, &model).await,
        Some(RouteDecision::Reject(reject)) => Err(preprocess::rejected(&router, reject)),
    }
}

fn candidates(shared: &Shared) -> Vec<Candidate> {
    let base = Candidate { model: shared.base.name.clone(), is_adapter: false };
    let adapters = shared.adapters.aliases().into_iter();
    let adapters = adapters.map(|model| Candidate { model, is_adapter: true });
    std::iter::once(base).chain(adapters).collect()
}
