//! What all requests share: the parts of the pipeline, and the two things that stages do with the
//! engine. Knows no order of stages.

use std::sync::{Arc, OnceLock};

use ::request::{Digest, SamplingParams, ServingOptions, TokenId};
use engine::{Constraint, EngineHandle, EngineRequest, OutputStream, SubmitError};
use lora::LoraError;
use plugin_host::PluginHost;
use tokenization::{ChatTemplate, GrammarCompiler, Tokenizer};
use tokio_util::task::TaskTracker;

use crate::config::PipelineConfig;
use crate::corpus_store::CorpusStore;
use crate::error::PipelineError;
use crate::metrics::PipelineMetrics;
use crate::usage::UsageBook;

/// The base model, as far as the pipeline needs to know it.
#[derive(Clone, Debug)]
pub struct BaseModel {
    /// Name on the wire.
    pub name: String,
    /// Digest of its configuration and weights.
    pub digest: Digest,
    /// Tokens of prompt and answer together.
    pub context_tokens: usize,
    /// Token ids are below this.
    pub vocab_size: usize,
    /// Length of an embedding.
    pub hidden_size: usize,
    /// Tokens that end an answer.
    pub end_tokens: Vec<TokenId>,
}

/// What all requests share.
pub(crate) struct Shared {
    pub(crate) engine: EngineHandle,
    pub(crate) adapters: Arc<lora::Registry>,
    pub(crate) tokenizer: Arc<Tokenizer>,
    /// Made when it is first asked for: it sorts the whole vocabulary.
    pub(crate) grammars: OnceLock<Result<GrammarCompiler, String>>,
    pub(crate) chat_template: Option<Arc<ChatTemplate>>,
    pub(crate) plugins: Arc<PluginHost>,
    pub(crate) corpora: Arc<CorpusStore>,
    pub(crate) ledger: Arc<ledger::Ledger>,
    pub(crate) base: BaseModel,
    pub(crate) config: PipelineConfig,
    pub(crate) metrics: PipelineMetrics,
    pub(crate) usage: Arc<UsageBook>,
    /// Requests from their admission to their receipt.
    pub(crate) tasks: TaskTracker,
}

impl Shared {
    /// Tokens that may be generated after a prompt of `prompt_tokens`: what was asked for if it
    /// fits, an error if it does not; without a wish, `default` or what fits.
    pub(crate) fn fit(
        &self,
        prompt_tokens: usize,
        asked: Option<u32>,
        default: u32,
    ) -> Result<u32, PipelineError> {
        let context_tokens = self.base.context_tokens;
        let left = context_tokens.saturating_sub(prompt_tokens);
        let left = u32::try_from(left).unwrap_or(u32::MAX);
        let max_tokens = asked.unwrap_or(1);
        if prompt_tokens == 0 {
            let message = "the prompt has no tokens".to_owned();
            return Err(PipelineError::Invalid { param: "prompt", message });
        }
        if prompt_tokens > context_tokens || max_tokens > left {
            return Err(PipelineError::ContextOverflow {
                prompt_tokens,
                max_tokens,
                context_tokens,
            });
        }
        Ok(asked.unwrap_or(default.min(left)))
    }

    /// Carries a request to its receipt, whether or not anybody waits for it.
    pub(crate) fn spawn(&self, work: impl Future<Output = ()> + Send + 'static) {
        let in_flight = self.metrics.begun();
        self.tasks.spawn(async move {
            work.await;
            drop(in_flight);
        });
    }

    /// The lease that a request has waited for while other stages ran, for as long as it may.
    pub(crate) async fn lease(&self, acquire: lora::Acquire) -> Result<lora::Lease, PipelineError> {
        let alias = acquire.alias().to_owned();
        match tokio::time::timeout(self.config.adapter_wait_max, acquire).await {
            Ok(Ok(lease)) => Ok(lease),
            Ok(Err(error)) => Err(self.adapter_error(&alias, &error)),
            Err(_) => {
                let seconds = self.config.adapter_wait_max.as_secs_f64();
                let reason = format!("it could not be loaded within {seconds} s");
                Err(self.adapter_unavailable(&alias, reason))
            }
        }
    }

    /// What a client is told of an adapter that can't be had. Where files lie is not for clients.
    pub(crate) fn adapter_error(&self, alias: &str, error: &LoraError) -> PipelineError {
        match error {
            LoraError::Unknown { .. } => PipelineError::ModelNotFound { model: alias.to_owned() },
            LoraError::Blend { .. } => {
                PipelineError::Invalid { param: "model", message: error.to_string() }
            }
            LoraError::Busy { .. } => {
                PipelineError::Overloaded { retry_after_s: self.config.retry_after_s }
            }
            error => {
                tracing::warn!(adapter = alias, %error, "an adapter could not be loaded");
                let reason = match error {
                    LoraError::Changed { .. } => "its files have changed since it was registered",
                    _ => "its files could not be loaded",
                };
                self.adapter_unavailable(alias, reason.to_owned())
            }
        }
    }

    fn adapter_unavailable(&self, adapter: &str, reason: String) -> PipelineError {
        let (adapter, retry_after_s) = (adapter.to_owned(), self.config.retry_after_s);
        PipelineError::AdapterUnavailable { adapter, reason, retry_after_s }
    }

    /// Puts a sequence into the engine's queue.
    pub(crate) fn submit(
        &self,
        prompt: Vec<TokenId>,
        (sampling, constraint): (SamplingParams, Option<Constraint>),
        adapter: Option<Arc<lora::Adapter>>,
        (tenant, serving): (&str, &ServingOptions),
    ) -> Result<OutputStream, PipelineError> {
        let request = engine_request(prompt, sampling, adapter, (tenant, serving));
        let taken = match constraint {
            None => self.engine.submit(request),
            Some(constraint) => self.engine.submit_constrained(request, constraint),
        };
        taken.map_err(|error| self.not_taken(error))
    }

    /// Puts a sequence into the engine's queue of which the mean of its hidden states is wanted.
    pub(crate) fn pool(
        &self,
        prompt: Vec<TokenId>,
        adapter: Option<Arc<lora::Adapter>>,
        whose: (&str, &ServingOptions),
    ) -> Result<OutputStream, PipelineError> {
        let request = engine_request(prompt, SamplingParams::default(), adapter, whose);
        self.engine.pool(request).map_err(|error| self.not_taken(error))
    }

    fn not_taken(&self, error: SubmitError) -> PipelineError {
        match error {
            SubmitError::QueueFull { .. }
            | SubmitError::QueueShare { .. }
            | SubmitError::QueueTokens { .. } => {
                tracing::debug!(%error, "a request was not taken");
                PipelineError::Overloaded { retry_after_s: self.config.retry_after_s }
            }
            SubmitError::Draining => PipelineError::Draining,
            SubmitError::Stopped => {
                PipelineError::Internal { message: "the engine has stopped".to_owned() }
            }
            other => PipelineError::Invalid { param: "prompt", message: other.to_string() },
        }
    }
}

fn engine_request(
    prompt: Vec<TokenId>,
    sampling: SamplingParams,
    adapter: Option<Arc<lora::Adapter>>,
    (tenant, serving): (&str, &ServingOptions),
) -> EngineRequest {
    EngineRequest {
        prompt,
        sampling,
        adapter,
        cache_salt: cache_salt(tenant, serving),
        tenant: tenant.to_owned(),
        priority: serving.priority,
        start_within: None,
    }
}

/// What keeps prefix blocks apart: tenants always, salts of one tenant where it gives them. The
/// length in front keeps one tenant from spelling another's salt.
fn cache_salt(tenant: &str, serving: &ServingOptions) -> String {
    let salt = serving.cache_salt.as_deref().unwrap_or_default();
    format!("{}:{tenant}{salt}", tenant.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_tenant_and_salt_spell_another() {
        let salted = |salt: Option<&str>| ServingOptions {
            cache_salt: salt.map(str::to_owned),
            ..ServingOptions::default()
        };
        let all =
            [("a", None), ("a", Some("b")), ("ab", None), ("ab", Some("c")), ("a", Some("bc"))];
        let salts = all.map(|(tenant, salt)| cache_salt(tenant, &salted(salt)));
        let distinct: std::collections::HashSet<_> = salts.iter().collect();
        assert_eq!(distinct.len(), all.len(), "{salts:?}");
        assert_eq!(cache_salt("a", &salted(None)), cache_salt("a", &salted(None)));
    }
}
