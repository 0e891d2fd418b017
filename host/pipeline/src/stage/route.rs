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
    /// The base model with an adapter, pinned.
    Adapter(lora::Lease),
    /// An agent plugin.
    Agent(Arc<Plugin>),
}

impl Target {
    /// The name clients see in the answer.
    pub(crate) fn name(&self, base: &str) -> String {
        match self {
            Self::Base => base.to_owned(),
            Self::Adapter(lease) => lease.alias().to_owned(),
            Self::Agent(plugin) => format!("{AGENT_PREFIX}{}", plugin.name()),
        }
    }
}

/// Resolves the model that the client named, asking the router for `auto`.
pub(crate) async fn run(
    shared: &Shared,
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
    named(shared, &model).ok_or(PipelineError::ModelNotFound { model })
}

/// The base model or an adapter of that name.
pub(crate) fn named(shared: &Shared, model: &str) -> Option<Target> {
    if model == shared.base.name {
        return Some(Target::Base);
    }
    shared.adapters.resolve(model).map(Target::Adapter)
}

async fn ask_router(
    shared: &Shared,
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
        Some(RouteDecision::To(model)) => {
            named(shared, &model).ok_or(PipelineError::ModelNotFound { model })
        }
        Some(RouteDecision::Reject(reject)) => Err(preprocess::rejected(&router, reject)),
    }
}

fn candidates(shared: &Shared) -> Vec<Candidate> {
    let base = Candidate { model: shared.base.name.clone(), is_adapter: false };
    let adapters = shared.adapters.list().into_iter();
    let adapters = adapters.map(|info| Candidate { model: info.alias, is_adapter: true });
    std::iter::once(base).chain(adapters).collect()
}
