//! The async door: requests in, events out, and nothing that could make the engine wait.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};

use kernels::{Pool, THREADS_MAX};
use models::{CausalLm, KvShape};
use request::{Digest, SamplingParams};
use scheduler::{Party, Scheduler, SchedulerConfig};
use tokio::sync::{mpsc, watch};

use crate::admission::{Admission, QueueLimits};
use crate::command::{Command, Job, Task};
use crate::config::EngineConfig;
use crate::constraint::Constraint;
use crate::course::Course;
use crate::error::{EngineError, SubmitError};
use crate::logits::{DevicePlace, LogitsPlace};
use crate::metrics::EngineMetrics;
use crate::shared::{EngineStats, Shared};
use crate::stream::{EngineRequest, OutputStream};
use crate::worker::Worker;

/// Events of a stream besides its tokens: prompt logprobs or a pooled state, and the end.
const EVENTS_BESIDES_TOKENS: usize = 2;

/// Starts engines.
#[derive(Debug)]
pub struct Engine;

/// The door to a running engine. Cloning shares it; the thread ends when the last is dropped and
/// every sequence has ended.
#[derive(Clone, Debug)]
pub struct EngineHandle {
    commands: Sender<Command>,
    shared: Arc<Shared>,
    /// Turns true when the thread has ended, for whatever reason.
    ended: watch::Receiver<bool>,
    limits: Limits,
}

/// What is checked before a request is queued.
#[derive(Clone, Copy, Debug)]
struct Limits {
    vocab_size: usize,
    tokens_max: usize,
    sequences_max: usize,
}

impl Engine {
    /// Allocates the KV cache and starts the thread that owns `model`.
    ///
    /// # Errors
    /// Limits that can't be, or too little memory.
    pub fn start(
        model: Box<dyn CausalLm>,
        config: EngineConfig,
    ) -> Result<EngineHandle, EngineError> {
        Self::start_at(model, Arc::new(DevicePlace), config)
    }

    /// [`Self::start`] where logits are reached as `place` has it.
    ///
    /// # Errors
    /// As of [`Self::start`].
    pub fn start_at(
        model: Box<dyn CausalLm>,
        place: Arc<dyn LogitsPlace>,
        config: EngineConfig,
    ) -> Result<EngineHandle, EngineError> {
        config.validate()?;
        let context_tokens_max =
            config.context_tokens_max.min(model.config().max_position_embeddings);
        let scheduler = Scheduler::new(SchedulerConfig {
            block_tokens: config.block_tokens,
            kv_blocks: config.kv_blocks,
            step_tokens_max: config.step_tokens_max,
            sequences_max: config.sequences_max,
            // The door enforces the limit; what it let in must not bounce.
            queue_max: usize::MAX,
            context_tokens_max,
            prefix_cache: config.prefix_cache,
        })?;
        let (blocks, size) = (config.kv_blocks, config.block_tokens);
        let format = config.kv_format.unwrap_or(model.kv_format());
        let shape = KvShape { blocks, block_tokens: size, format };
        let kv = model.kv_cache(shape)?;
        let mut pool = Pool::new(config.threads.clamp(1, THREADS_MAX))
            .map_err(|error| EngineError::Threads { reason: error.to_string() })?;
        let kv_tokens = blocks.saturating_mul(size);
        let admission = Admission::new(QueueLimits {
            queue_max: config.queue_max,
            queue_tenant_max: config.queue_tenant_max,
            queue_adapter_max: config.queue_adapter_max,
            queue_tokens_max: kv_tokens.saturating_mul(config.queue_kv_fills_max),
        });
        let shared = Arc::new(Shared {
            admission: Arc::new(admission),
            stats: Mutex::default(),
            metrics: EngineMetrics::default(),
            draining: AtomicBool::new(false),
        });
        let limits = Limits {
            vocab_size: model.config().vocab_size,
            tokens_max: context_tokens_max.min(kv_tokens),
            sequences_max: config.sequences_max,
        };
        let (commands, receiver) = channel();
        let (ending, ended) = watch::channel(false);
        let worker = Worker::new((model, kv), place, scheduler, (Arc::clone(&shared), config));
        std::thread::Builder::new()
            .name("engine".to_owned())
            .spawn(move || {
                // Dropped when the thread ends, by a panic too.
                let _ending = Ending(ending);
                pool.install(move || worker.run(&receiver));
            })
            .map_err(|error| EngineError::Threads { reason: error.to_string() })?;
        Ok(EngineHandle { commands, shared, ended, limits })
    }
}

/// Who a request runs for, as the queue knows it.
pub(crate) fn party(request: &EngineRequest) -> Party {
    let generation = request.adapter.as_ref().map(|adapter| adapter.generation().0.0);
    Party {
        priority: request.priority,
        tenant: Digest::of(request.tenant.as_bytes()).0,
        adapter: generation.unwrap_or_default(),
    }
}

struct Ending(watch::Sender<bool>);

impl Drop for Ending {
    fn drop(&mut self) {
        self.0.send_replace(true);
    }
}

impl EngineHandle {
    /// Sequences, and so adapters, that one step may have.
    #[must_use]
    pub fn sequences_max(&self) -> usize {
        self.limits.sequences_max
    }

    /// Queues a sequence. Returns at once.
    ///
    /// # Errors
    /// See [`SubmitError`].
    pub fn submit(&self, request: EngineRequest) -> Result<OutputStream, SubmitError> {
        self.queue(request, Task::Generate(None))
    }

    /// Queues a sequence of which the mean of the prompt's hidden states is wanted: the stream has one
    /// [`crate::EngineEvent::Pooled`] before its end. Of `sampling` nothing is looked at.
    ///
    /// # Errors
    /// See [`SubmitError`].
    pub fn pool(&self, request: EngineRequest) -> Result<OutputStream, SubmitError> {
        let sampling = SamplingParams { max_tokens: 0, ..SamplingParams::default() };
        self.queue(EngineRequest { sampling, ..request }, Task::Pool)
    }

    /// Queues a sequence whose tokens `constraint` bounds. It ends with
    /// [`request::FinishReason::Stop`] where the constraint is done.
    ///
    /// # Errors
    /// See [`SubmitError`].
    pub fn submit_constrained(
        &self,
        request: EngineRequest,
        constraint: Constraint,
    ) -> Result<OutputStream, SubmitError> {
        self.queue(request, Task::Generate(Some(constraint)))
    }

    fn queue(&self, request: EngineRequest, task: Task) -> Result<OutputStream, SubmitError> {
        self.check(&request)?;
        let tokens = request.prompt.len() + request.sampling.max_tokens as usize;
        let ticket = self.shared.admission.enter(party(&request), tokens);
        let ticket = ticket.inspect_err(|_| self.shared.metrics.observe_refusal())?;
        // Room for every event there can be: the engine never waits for a reader.
        let capacity = request.sampling.max_tokens as usize + EVENTS_BESIDES_TOKENS;
        let (sender, events) = mpsc::channel(capacity);
        let course = Arc::new(Course::default());
        let told = Arc::clone(&course);
        let arrived = std::time::Instant::now();
        let job = Job { request, task, sender, course: told, arrived, ticket };
        let job = Box::new(job);
        match self.commands.send(Command::Submit(job)) {
            Ok(()) => Ok(OutputStream { events, course }),
            Err(_) => Err(SubmitError::Stopped),
        }
    }

    fn check(&self, request: &EngineRequest) -> Result<(), SubmitError> {
        if !self.is_alive() {
            return Err(SubmitError::Stopped);
        }
        if self.shared.draining.load(Ordering::Acquire) {
            return Err(SubmitError::Draining);
        }
        if request.prompt.is_empty() {
            return Err(SubmitError::EmptyPrompt);
        }
        let Limits { vocab_size, tokens_max: limit, .. } = self.limits;
        if let Some(token) = request.prompt.iter().find(|token| **token as usize >= vocab_size) {
            return Err(SubmitError::TokenOutOfVocab { token: *token, vocab_size });
        }
        let tokens = request.prompt.len().saturating_add(request.sampling.max_tokens as usize);
        if tokens > limit {
            return Err(SubmitError::TooLong { tokens, limit });
        }
        Ok(())
    }

    /// Most tokens of prompt and answer together.
    #[must_use]
    pub fn tokens_max(&self) -> usize {
        self.limits.tokens_max
    }

    /// Sizes of queues and cache.
    #[must_use]
    pub fn stats(&self) -> EngineStats {
        *self.shared.stats.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts and durations.
    #[must_use]
    pub fn metrics(&self) -> &EngineMetrics {
        &self.shared.metrics
    }

    /// Whether the engine's thread runs.
    #[must_use]
    pub fn is_alive(&self) -> bool {
        !*self.ended.borrow()
    }

    /// Returns once the thread has ended.
    pub async fn ended(&self) {
        // An error is the sender's drop, which is the end too.
        let _ = self.ended.clone().wait_for(|ended| *ended).await;
    }

    /// Takes no more requests; returns once all that were taken have ended.
    pub async fn drain(&self) {
        self.shared.draining.store(true, Ordering::Release);
        let (done, drained) = tokio::sync::oneshot::channel();
        if self.commands.send(Command::Drain(done)).is_ok() {
            // An error is the thread's end, after which nothing runs.
            let _ = drained.await;
        }
    }

    /// Ends the thread after the current step; sequences that run are cut off.
    pub fn shutdown(&self) {
        // An error is the thread's end.
        let _ = self.commands.send(Command::Shutdown);
    }
}
