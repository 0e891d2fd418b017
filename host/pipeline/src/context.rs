//! What one request carries from stage to stage: the plugin versions it is pinned to and what they
//! did, for the receipt.

use std::sync::Arc;
use std::time::Duration;

use ::request::{AdapterGeneration, Usage};
use plugin_host::{Chain, Plugin, PluginFault, RequestInfo};

use crate::corpus_store::{CorpusRef, CorpusStore};
use crate::error::PipelineError;
use crate::meter::Payer;
use crate::request::GenerateRequest;

/// One plugin's part in a request.
#[derive(Clone, Debug)]
pub(crate) struct PluginUse {
    pub(crate) plugin: Arc<Plugin>,
    /// How its last call failed, if one did.
    pub(crate) fault: Option<String>,
    /// Whether the request went on without it.
    pub(crate) bypassed: bool,
}

/// State of one request outside the engine.
pub(crate) struct Context {
    pub(crate) request: GenerateRequest,
    /// What plugins and receipts call this kind of request.
    pub(crate) endpoint: &'static str,
    /// Every version this request sees, whatever is activated meanwhile.
    pub(crate) chain: Arc<Chain>,
    pub(crate) uses: Vec<PluginUse>,
    /// The adapter that answers, once routed.
    pub(crate) adapter: Option<String>,
    /// Its content.
    pub(crate) generation: Option<AdapterGeneration>,
    /// Its alias, or those of a blend's parts.
    pub(crate) parts: Vec<String>,
    /// How long its load took; zero if it was in memory, `None` without an adapter.
    pub(crate) adapter_wait: Option<Duration>,
    /// Where to find what that adapter, or each of a blend, was trained on.
    pub(crate) corpora: Vec<CorpusRef>,
    /// Tokens of the prompt, once encoded.
    pub(crate) prompt_tokens: u32,
}

/// An adapter that answered, without a hold on it.
#[derive(Clone, Debug)]
pub(crate) struct Answered {
    alias: String,
    generation: AdapterGeneration,
    parts: Vec<String>,
    corpora: Vec<CorpusRef>,
}

impl Answered {
    pub(crate) fn of(lease: &lora::Lease, corpora: &CorpusStore) -> Self {
        Self {
            alias: lease.alias().to_owned(),
            generation: lease.generation(),
            parts: parts(lease),
            corpora: corpora.of(lease),
        }
    }
}

/// The alias of an adapter, or those of a blend's parts.
pub(crate) fn parts(lease: &lora::Lease) -> Vec<String> {
    lease.parts().iter().map(|part| part.alias.to_owned()).collect()
}

impl Context {
    /// Who an engine's run is for.
    pub(crate) fn payer(&self) -> Payer {
        Payer { adapters: self.parts.clone(), tenant: self.request.tenant.clone() }
    }

    pub(crate) fn new(request: GenerateRequest, chain: Arc<Chain>) -> Self {
        Self {
            endpoint: request.input.endpoint(),
            request,
            chain,
            uses: Vec::new(),
            adapter: None,
            generation: None,
            parts: Vec::new(),
            adapter_wait: None,
            corpora: Vec::new(),
            prompt_tokens: 0,
        }
    }

    /// What plugins are told about the request.
    pub(crate) fn info(&self) -> RequestInfo {
        RequestInfo {
            id: self.request.id.to_string(),
            tenant: self.request.tenant.clone(),
            endpoint: self.endpoint.to_owned(),
            model: self.request.model.clone(),
            adapter: self.adapter.clone(),
            streaming: self.request.streaming,
        }
    }

    /// Notes that `plugin` acted and how; a fault becomes an error unless its policy is to go on.
    ///
    /// # Errors
    /// [`PipelineError::PluginFailed`] for a fault under `on_failure = "reject"`.
    pub(crate) fn settle<T>(
        &mut self,
        plugin: &Arc<Plugin>,
        outcome: Result<T, PluginFault>,
    ) -> Result<Option<T>, PipelineError> {
        match outcome {
            Ok(value) => {
                self.note(plugin, None, false);
                Ok(Some(value))
            }
            Err(fault) => self.fault(plugin, &fault).map(|()| None),
        }
    }

    /// Notes a fault; an error unless the plugin's policy is to go on without it.
    pub(crate) fn fault(
        &mut self,
        plugin: &Arc<Plugin>,
        fault: &PluginFault,
    ) -> Result<(), PipelineError> {
        let bypassed = plugin.bypasses();
        tracing::warn!(request = %self.request.id, %fault, bypassed, "plugin failed");
        self.note(plugin, Some(fault.kind.to_string()), bypassed);
        if bypassed {
            return Ok(());
        }
        let plugin = plugin.name().to_owned();
        Err(PipelineError::PluginFailed { plugin, reason: fault.kind.to_string() })
    }

    /// Each plugin counts once per request, however often it was called: a fault is what to report.
    fn note(&mut self, plugin: &Arc<Plugin>, fault: Option<String>, bypassed: bool) {
        match self.uses.iter_mut().find(|used| Arc::ptr_eq(&used.plugin, plugin)) {
            Some(used) if fault.is_some() => (used.fault, used.bypassed) = (fault, bypassed),
            Some(_) => {}
            None => self.uses.push(PluginUse { plugin: Arc::clone(plugin), fault, bypassed }),
        }
    }
}

impl Context {
    /// Notes a scorer's fault. It never fails the request: the answer has been sent.
    pub(crate) fn scorer_fault(&mut self, scorer: &Arc<Plugin>, fault: &PluginFault) {
        tracing::warn!(request = %self.request.id, %fault, "scorer failed");
        self.note(scorer, Some(fault.kind.to_string()), true);
    }

    /// The adapter that is to answer, before it has to be in memory.
    pub(crate) fn asked(&mut self, acquire: &lora::Acquire) {
        (self.adapter, self.generation) = (Some(acquire.alias().to_owned()), acquire.generation());
    }

    /// The adapter that answers, from here on.
    pub(crate) fn lease(&mut self, lease: &lora::Lease, corpora: &CorpusStore) {
        // Pinned now: the alias may mean another adapter, with another corpus, when the answer ends.
        self.answered(&Answered::of(lease, corpora));
        self.adapter_wait = Some(lease.waited().unwrap_or_default());
    }

    /// As [`Context::lease`], for an adapter that was let go since.
    pub(crate) fn answered(&mut self, answered: &Answered) {
        (self.parts, self.corpora) = (answered.parts.clone(), answered.corpora.clone());
        (self.adapter, self.generation) = (Some(answered.alias.clone()), Some(answered.generation));
    }

    /// The adapter had no part in the answer after all.
    pub(crate) fn release(&mut self) {
        (self.adapter, self.generation) = (None, None);
        self.parts.clear();
        self.corpora.clear();
    }

    /// Notes what the postprocessors of one choice did.
    pub(crate) fn absorb(
        &mut self,
        plugins: Vec<Arc<Plugin>>,
        faults: &[(Arc<Plugin>, PluginFault)],
    ) {
        for plugin in plugins {
            let fault = faults.iter().find(|(failed, _)| Arc::ptr_eq(failed, &plugin));
            let fault = fault.map(|(_, fault)| fault.kind.to_string());
            let bypassed = fault.is_some() && plugin.bypasses();
            self.note(&plugin, fault, bypassed);
        }
    }

    /// Tokens of all choices; the prompt counts once, as the OpenAI API has it.
    pub(crate) fn total_usage(&self, choices: &[Usage]) -> Usage {
        let sum = choices.iter().fold(Usage::default(), |sum, usage| sum.plus(*usage));
        if choices.len() < 2 {
            return sum;
        }
        let cached_tokens = choices.iter().map(|usage| usage.cached_tokens).min();
        Usage {
            prompt_tokens: self.prompt_tokens,
            completion_tokens: sum.completion_tokens,
            cached_tokens: cached_tokens.unwrap_or_default(),
        }
    }
}
