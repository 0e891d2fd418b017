//! The order of stages. [`Pipeline::submit`] does everything that can fail before the first token;
//! a task of its own then carries the answer to its receipt, whether or not the client stays.

use std::sync::{Arc, OnceLock};

use ::request::{FinishReason, Message, TokenId, Usage};
use engine::{EngineHandle, Timing};
use plugin_host::PluginHost;
use serde_json::{Map, Value};
use tokenization::{ChatTemplate, Tokenizer};
use tokio::sync::mpsc;
use tokio_util::task::TaskTracker;

use crate::answer::{Answer, AnswerEvent, Summary};
use crate::client::Client;
use crate::config::PipelineConfig;
use crate::context::Context;
use crate::corpus_store::CorpusStore;
use crate::error::PipelineError;
use crate::meter::Meter;
use crate::metrics::PipelineMetrics;
use crate::models::{ModelCard, ModelKind};
use crate::request::{GenerateRequest, Input};
use crate::shared::{BaseModel, Shared};
use crate::stage::generate::{Choice, ChoiceEnd};
use crate::stage::postprocess::{self, Postprocessors};
use crate::stage::record::{self, Outcome};
use crate::stage::route::{self, Target};
use crate::stage::{agent, attribute, constrain, preprocess, tokenize};
use crate::usage::UsageBook;

/// Events a client may be behind before its choices wait for it.
const EVENTS_MAX: usize = 64;
/// Tokens of a completion that names no `max_tokens`, as the OpenAI API has it.
const COMPLETION_TOKENS_DEFAULT: u32 = 16;

/// Everything a pipeline is made of.
pub struct PipelineParts {
    /// The door to the engine thread.
    pub engine: EngineHandle,
    /// Aliases and their generations.
    pub adapters: Arc<lora::Registry>,
    /// The base model's tokenizer.
    pub tokenizer: Arc<Tokenizer>,
    /// The base model's chat template, if it has one.
    pub chat_template: Option<Arc<ChatTemplate>>,
    /// Plugins and their versions.
    pub plugins: Arc<PluginHost>,
    /// Training corpora by adapter.
    pub corpora: Arc<CorpusStore>,
    /// Where receipts go.
    pub ledger: Arc<ledger::Ledger>,
    /// The base model.
    pub base: BaseModel,
    /// Limits.
    pub config: PipelineConfig,
}

/// The pipeline. Cloning shares it.
#[derive(Clone)]
pub struct Pipeline {
    pub(crate) shared: Arc<Shared>,
}

/// A request that is ready to produce text.
enum Work {
    /// One engine stream per choice.
    Generate { choices: Vec<Choice>, meter: Meter, _lease: Option<lora::Lease> },
    /// A preprocessor's own answer.
    Respond { text: String, post: Postprocessors },
    /// An agent's answer.
    Agent { plugin: Arc<plugin_host::Plugin>, messages: Vec<Message> },
}

/// Who answers, the tokens to continue, and how.
type Prepared = (String, Arc<[TokenId]>, Work);

impl Pipeline {
    /// Puts the parts together. Starts nothing.
    #[must_use]
    pub fn new(parts: PipelineParts) -> Self {
        let usage = Arc::new(UsageBook::default());
        let loads = Arc::clone(&usage);
        parts.adapters.observe_loads(Box::new(move |names, bytes| loads.loaded(names, bytes)));
        let metrics = PipelineMetrics::new(Arc::clone(&usage), parts.engine.sequences_max());
        let shared = Shared {
            engine: parts.engine,
            adapters: parts.adapters,
            tokenizer: parts.tokenizer,
            grammars: OnceLock::new(),
            chat_template: parts.chat_template,
            plugins: parts.plugins,
            corpora: parts.corpora,
            ledger: parts.ledger,
            base: parts.base,
            config: parts.config,
            metrics,
            usage,
            tasks: TaskTracker::new(),
        };
        Self { shared: Arc::new(shared) }
    }

    /// Admits a request and starts its work.
    ///
    /// # Errors
    /// Everything that can be wrong before the first token. A request that a plugin rejected or
    /// failed has a receipt all the same.
    pub async fn submit(&self, request: GenerateRequest) -> Result<Answer, PipelineError> {
        let id = request.id.clone();
        let mut context = Context::new(request, self.shared.plugins.chain());
        let (model, prompt, work) = match self.prepare(&mut context).await {
            Ok(prepared) => prepared,
            Err(error) => {
                self.refuse(&mut context, &error).await;
                return Err(error);
            }
        };
        let (sender, events) = mpsc::channel(EVENTS_MAX);
        let (carried, adapter_wait) = (self.clone(), context.adapter_wait);
        let client = Client::new(sender, self.shared.config.client_stall_max);
        self.shared.spawn(async move { carried.carry(context, work, client).await });
        Ok(Answer { id, model, prompt, adapter_wait, events })
    }

    /// Stages route to generate, up to the engine's queue.
    async fn prepare(&self, context: &mut Context) -> Result<Prepared, PipelineError> {
        let shared = &self.shared;
        self.check(context)?;
        let messages = tokenize::messages(shared, &context.request.input)?;
        let target = route::run(shared, context, &messages).await?;
        let name = target.name(&shared.base.name);
        if let Target::Adapter(acquire) = &target {
            context.asked(acquire);
        }
        let prepared = preprocess::run(context, messages).await?;
        if let Some(message) = prepared.response {
            context.release();
            let post = Postprocessors::open(context).await?;
            return Ok((name, Arc::default(), Work::Respond { text: message.content, post }));
        }
        let acquire = match target {
            Target::Agent(_) if context.request.grammar.is_some() => {
                let message = "an agent's answer can't be bound to a format".to_owned();
                return Err(PipelineError::Invalid { param: "response_format", message });
            }
            Target::Agent(_) if !context.request.tools.is_empty() => {
                let message = "an agent has tools of its own and is told of no others".to_owned();
                return Err(PipelineError::Invalid { param: "tools", message });
            }
            Target::Agent(plugin) => {
                let messages = prepared.messages;
                return Ok((name, Arc::default(), Work::Agent { plugin, messages }));
            }
            Target::Adapter(acquire) => Some(acquire),
            Target::Base => None,
        };
        let (messages, changed) = (prepared.messages, prepared.changed);
        let prompt = tokenize::prompt(shared, &context.request, messages, changed).await?;
        let lease = match acquire {
            Some(acquire) => Some(shared.lease(acquire).await?),
            None => None,
        };
        if let Some(lease) = &lease {
            context.lease(lease, &shared.corpora);
        }
        let choices = self.choices(context, &prompt, lease.as_ref()).await?;
        let streams = choices.iter().map(|choice| &choice.stream);
        let meter = Meter::new(&shared.usage, context.payer(), context.prompt_tokens, streams);
        Ok((name, prompt.into(), Work::Generate { choices, meter, _lease: lease }))
    }

    /// Bounds that need no stage, and the seed.
    pub(crate) fn check(&self, context: &mut Context) -> Result<(), PipelineError> {
        let request = &mut context.request;
        let choices_max = self.shared.config.choices_max;
        if request.n == 0 || request.n > choices_max {
            let message = format!("n must be between 1 and {choices_max}, got {}", request.n);
            return Err(PipelineError::Invalid { param: "n", message });
        }
        if request.max_tokens == Some(0) && !request.echo {
            let message = "max_tokens must be at least 1, got 0".to_owned();
            return Err(PipelineError::Invalid { param: "max_tokens", message });
        }
        let vocab_size = self.shared.base.vocab_size;
        let biased = request.sampling.logit_bias.iter().map(|(token, _)| ("logit_bias", *token));
        let stops = request.sampling.stop_token_ids.iter().map(|token| ("stop_token_ids", *token));
        let outside = biased.chain(stops).find(|(_, token)| *token as usize >= vocab_size);
        if let Some((param, token)) = outside {
            let message = format!("{param} names token {token}; the model has {vocab_size}");
            return Err(PipelineError::Invalid { param, message });
        }
        request.sampling.seed = *request.seed.get_or_insert_with(rand_seed);
        // The real value is known once the prompt is; any large one will do for the bounds.
        request.sampling.max_tokens = request.max_tokens.unwrap_or(u32::MAX);
        if request.serving.cache_salt.as_ref().is_some_and(String::is_empty) {
            let message = "cache_salt must not be empty".to_owned();
            return Err(PipelineError::Invalid { param: "cache_salt", message });
        }
        let sampling = &request.sampling;
        if request.grammar.is_some() && (sampling.ignore_eos || sampling.min_tokens > 0) {
            let param = if sampling.ignore_eos { "ignore_eos" } else { "min_tokens" };
            let message = format!("{param} can't hold for an answer that a format ends");
            return Err(PipelineError::Invalid { param, message });
        }
        Ok(request.sampling.validate()?)
    }

    /// Submits one engine request per choice. If one is refused, dropping the others cancels them.
    async fn choices(
        &self,
        context: &mut Context,
        prompt: &[TokenId],
        lease: Option<&lora::Lease>,
    ) -> Result<Vec<Choice>, PipelineError> {
        let shared = &self.shared;
        let is_chat = matches!(context.request.input, Input::Chat(_));
        let default = if is_chat { u32::MAX } else { COMPLETION_TOKENS_DEFAULT };
        let max_tokens = shared.fit(prompt.len(), context.request.max_tokens, default)?;
        context.request.sampling.max_tokens = max_tokens;
        context.request.sampling.seed = context.request.seed.unwrap_or_default();
        context.prompt_tokens = u32::try_from(prompt.len()).unwrap_or(u32::MAX);
        context.request.sampling.validate()?;
        let echo = match context.request.echo {
            true => {
                let text = shared.tokenizer.decode(prompt, true);
                let text = text.map_err(|e| PipelineError::Internal { message: e.to_string() })?;
                Some((text, prompt.to_vec()))
            }
            false => None,
        };
        let matcher = match &context.request.grammar {
            Some(grammar) => Some(constrain::compile(shared, grammar).await?),
            None => None,
        };
        let mut choices = Vec::new();
        for index in 0..context.request.n {
            let mut sampling = context.request.sampling.clone();
            sampling.seed = sampling.seed.wrapping_add(u64::from(index));
            let (stop, logprobs) = (sampling.stop.clone(), sampling.logprobs.is_some());
            let constraint = matcher.clone().map(constrain::start);
            let whose = (context.request.tenant.as_str(), &context.request.serving);
            let adapter = lease.map(|lease| Arc::clone(lease.adapter()));
            let stream = shared.submit(prompt.to_vec(), (sampling, constraint), adapter, whose)?;
            choices.push(Choice {
                index,
                stream,
                post: Postprocessors::open(context).await?,
                tokenizer: Arc::clone(&shared.tokenizer),
                stop,
                logprobs,
                prompt_tokens: context.prompt_tokens,
                echo: echo.clone(),
                every_token: context.request.every_token,
            });
        }
        Ok(choices)
    }

    /// From the first token to the receipt.
    async fn carry(self, mut context: Context, work: Work, client: Client) {
        let mut timing = Timing::default();
        let ends = match work {
            Work::Generate { choices, mut meter, _lease } => {
                let ends = Self::generate(choices, &client).await;
                if let Ok(ends) = &ends {
                    let of_choices: Vec<Usage> = ends.iter().map(|end| end.usage).collect();
                    meter.tell(context.total_usage(&of_choices));
                }
                timing = meter.timing();
                ends
            }
            Work::Respond { text, post } => Ok(vec![Self::respond(text, post, &client).await]),
            Work::Agent { plugin, messages } => {
                self.agent(&mut context, &plugin, messages, &client).await.map(|end| vec![end])
            }
        };
        let event = match ends {
            Ok(ends) => self.close(&mut context, ends, (client.has_left(), timing)).await,
            Err(error) => {
                self.refuse(&mut context, &error).await;
                AnswerEvent::Failed(error)
            }
        };
        client.tell(event).await;
    }

    async fn generate(
        choices: Vec<Choice>,
        client: &Client,
    ) -> Result<Vec<ChoiceEnd>, PipelineError> {
        let run = |choice: Choice| async {
            let index = choice.index;
            let end = choice.run(client.clone()).await;
            if end.error.is_none() {
                let event = AnswerEvent::Finished { choice: index, reason: end.reason };
                client.tell(event).await;
            }
            end
        };
        Ok(futures_util::future::join_all(choices.into_iter().map(run)).await)
    }

    async fn respond(text: String, mut post: Postprocessors, client: &Client) -> ChoiceEnd {
        let (mut text, mut reason, mut error) = (text, FinishReason::Stop, None);
        let verbatim = false;
        match postprocess::whole(&mut post, std::mem::take(&mut text), reason.as_str()).await {
            Ok(output) => {
                text = output.text;
                if output.stopped {
                    reason = FinishReason::ContentFilter;
                }
                let (tokens, ids) = (Vec::new(), Vec::new());
                let delta = AnswerEvent::Delta { choice: 0, text: text.clone(), tokens, ids };
                client.tell(delta).await;
                client.tell(AnswerEvent::Finished { choice: 0, reason }).await;
            }
            Err(failed) => error = Some(failed),
        }
        let (tokens, usage) = (Vec::new(), Usage::default());
        ChoiceEnd { text, tokens, verbatim, reason, usage, post, error }
    }

    async fn agent(
        &self,
        context: &mut Context,
        plugin: &Arc<plugin_host::Plugin>,
        messages: Vec<Message>,
        client: &Client,
    ) -> Result<ChoiceEnd, PipelineError> {
        let running = agent::run(&self.shared, context, plugin, messages);
        let ended = tokio::select! {
            ended = running => Some(ended?),
            () = client.left() => None,
        };
        let post = Postprocessors::open(context).await?;
        let Some(ended) = ended else {
            return Ok(ChoiceEnd::cancelled(post));
        };
        if let Some(answered) = &ended.answered {
            context.answered(answered);
        }
        let mut end = Self::respond(ended.message.content, post, client).await;
        end.usage = ended.usage;
        Ok(end)
    }

    /// Attributes, records, and sums up.
    async fn close(
        &self,
        context: &mut Context,
        ends: Vec<ChoiceEnd>,
        (client_gone, timing): (bool, Timing),
    ) -> AnswerEvent {
        let failed = ends.iter().find_map(|end| end.error.clone());
        let cancelled = client_gone || ends.iter().any(|end| end.reason == FinishReason::Cancelled);
        let started = std::time::Instant::now();
        let attributed = if failed.is_some() || cancelled {
            attribute::without(None, "the answer did not end")
        } else {
            match attribute::run(&self.shared, context, &ends).await {
                Ok(attributed) => attributed,
                Err(error) => attribute::failed(&error),
            }
        };
        self.shared.metrics.attributed(started.elapsed());
        let of_choices: Vec<Usage> = ends.iter().map(|end| end.usage).collect();
        let usage = context.total_usage(&of_choices);
        let outcome = match (&failed, cancelled) {
            (Some(_), _) => Outcome::Failed,
            (None, true) => Outcome::Cancelled,
            (None, false) => Outcome::Completed,
        };
        let recorded = record::run(&self.shared, context, ends, (outcome, usage, &attributed));
        let recorded = recorded.await;
        self.shared.metrics.count(outcome.as_str());
        match (failed, recorded) {
            (Some(error), _) | (None, Err(error)) => AnswerEvent::Failed(error),
            (None, Ok(receipt_hash)) => {
                let wanted = context.request.attribution;
                let attribution = wanted.then_some(attributed.attribution);
                AnswerEvent::Done(Summary { usage, timing, attribution, receipt_hash })
            }
        }
    }

    /// Counts a request that never produced text; one that a plugin ended gets a receipt.
    pub(crate) async fn refuse(&self, context: &mut Context, error: &PipelineError) {
        let outcome = match error {
            PipelineError::Rejected { .. } => Outcome::Rejected,
            PipelineError::PluginFailed { .. } | PipelineError::Internal { .. } => Outcome::Failed,
            _ => {
                self.shared.metrics.count("refused");
                return;
            }
        };
        let attributed = attribute::without(None, &error.to_string());
        let recorded = record::run(
            &self.shared,
            context,
            Vec::new(),
            (outcome, Usage::default(), &attributed),
        );
        if let Err(error) = recorded.await {
            tracing::error!(request = %context.request.id, %error, "no receipt was written");
        }
        self.shared.metrics.count(outcome.as_str());
    }

    /// Everybody who can be named in `model`: the base, adapters, agents.
    #[must_use]
    pub fn models(&self) -> Vec<ModelCard> {
        let shared = &self.shared;
        let base = ModelCard { id: shared.base.name.clone(), kind: ModelKind::Base };
        let adapters = shared.adapters.list().into_iter().map(|info| ModelCard {
            id: info.alias,
            kind: ModelKind::Adapter {
                generation: info.generation.map(|generation| generation.to_string()),
                path: info.path.display().to_string(),
                parent: shared.base.name.clone(),
            },
        });
        let chain = shared.plugins.chain();
        let agents = chain.agents().map(|agent| ModelCard {
            id: format!("{}{}", route::AGENT_PREFIX, agent.name()),
            kind: ModelKind::Agent { version: agent.version().to_string() },
        });
        std::iter::once(base).chain(adapters).chain(agents).collect()
    }

    /// Waits until every admitted request has its receipt, those of clients that have left included.
    /// For the end of a process: nothing may be submitted any more.
    pub async fn idle(&self) {
        self.shared.tasks.close();
        self.shared.tasks.wait().await;
    }

    /// The base model's tokenizer.
    #[must_use]
    pub fn tokenizer(&self) -> &Arc<Tokenizer> {
        &self.shared.tokenizer
    }

    /// The base model's chat template, if it has one.
    #[must_use]
    pub fn chat_template(&self) -> Option<&ChatTemplate> {
        self.shared.chat_template.as_deref()
    }

    /// The base model.
    #[must_use]
    pub fn base(&self) -> &BaseModel {
        &self.shared.base
    }

    /// A conversation as the model's template writes it; `variables` are the template's further ones.
    ///
    /// # Errors
    /// [`PipelineError::Invalid`] if there is no template or it refuses the messages.
    pub fn render_chat(
        &self,
        messages: &[Message],
        add_generation_prompt: bool,
        variables: Map<String, Value>,
    ) -> Result<String, PipelineError> {
        tokenize::render(&self.shared, messages, (add_generation_prompt, variables))
    }

    /// What has been used since the beginning.
    #[must_use]
    pub fn usage(&self) -> &Arc<UsageBook> {
        &self.shared.usage
    }

    /// Counts and durations of stages.
    #[must_use]
    pub fn metrics(&self) -> &PipelineMetrics {
        &self.shared.metrics
    }
}

fn rand_seed() -> u64 {
    rand::random()
}
