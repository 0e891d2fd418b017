//! The thread's loop: take commands, drop what nobody waits for, step; sleep when there is nothing.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::mpsc::Receiver;
use std::time::{Duration, Instant};

use models::{CausalLm, ForwardBatch, KvCache};
use request::FinishReason;
use scheduler::{NewSequence, Scheduler, SeqId};
use tokio::sync::oneshot;

use crate::command::{Command, Job};
use crate::config::EngineConfig;
use crate::handle::party;
use crate::logits::LogitsPlace;
use crate::pace::{Pace, Targets};
use crate::sequence::Sequence;
use crate::shared::{EngineStats, Shared};

/// Everything the thread owns.
pub(crate) struct Worker {
    pub(crate) model: Box<dyn CausalLm>,
    pub(crate) kv: KvCache,
    pub(crate) place: Arc<dyn LogitsPlace>,
    pub(crate) scheduler: Scheduler,
    pub(crate) shared: Arc<Shared>,
    pub(crate) config: EngineConfig,
    pub(crate) sequences: HashMap<SeqId, Sequence>,
    /// Filled anew for every step.
    pub(crate) batch: ForwardBatch,
    pub(crate) pace: Pace,
    /// The same of steps small enough for guesses: a row costs more there than in a long prompt.
    pub(crate) draft_pace: Pace,
    pub(crate) targets: Option<Targets>,
    /// Where the ticks of deadlines are counted from.
    begun: Instant,
    next_id: SeqId,
    draining: Vec<oneshot::Sender<()>>,
}

impl Worker {
    pub(crate) fn new(
        (model, kv): (Box<dyn CausalLm>, KvCache),
        place: Arc<dyn LogitsPlace>,
        scheduler: Scheduler,
        (shared, config): (Arc<Shared>, EngineConfig),
    ) -> Self {
        let targets = config.itl_target_ms.map(|milliseconds| Targets {
            inter_token: Duration::from_millis(milliseconds),
            first_token: config.ttft_target_ms.map(Duration::from_millis),
        });
        Self {
            model,
            kv,
            place,
            scheduler,
            shared,
            config,
            sequences: HashMap::new(),
            batch: ForwardBatch::default(),
            pace: Pace::default(),
            draft_pace: Pace::default(),
            targets,
            begun: Instant::now(),
            next_id: 0,
            draining: Vec::new(),
        }
    }

    /// The tick of an instant: microseconds since the thread began.
    pub(crate) fn tick(&self, at: Instant) -> u64 {
        u64::try_from(at.saturating_duration_since(self.begun).as_micros()).unwrap_or(u64::MAX)
    }

    /// Runs until it is told to stop, or until every handle is gone and nothing is left to do.
    pub(crate) fn run(mut self, commands: &Receiver<Command>) {
        loop {
            if self.sequences.is_empty() {
                for done in self.draining.drain(..) {
                    // Who asked may have stopped waiting.
                    let _ = done.send(());
                }
                self.publish();
                match commands.recv() {
                    Ok(command) => {
                        if !self.take(command) {
                            return;
                        }
                    }
                    Err(_) => return,
                }
            }
            while let Ok(command) = commands.try_recv() {
                if !self.take(command) {
                    return;
                }
            }
            self.drop_abandoned();
            self.step();
            self.publish();
        }
    }

    /// Carries out a command; false if the thread is to end.
    fn take(&mut self, command: Command) -> bool {
        match command {
            Command::Submit(job) => self.submit(*job),
            Command::Drain(done) => self.draining.push(done),
            Command::Shutdown => return false,
        }
        true
    }

    fn submit(&mut self, job: Job) {
        let id = self.next_id;
        self.next_id += 1;
        let (prompt, max_tokens) = (job.request.prompt.clone(), job.request.sampling.max_tokens);
        let party = party(&job.request);
        let sequence = Sequence::new(job, self.model.config());
        if max_tokens == 0 && !sequence.wants_every_row() {
            sequence.finish(FinishReason::Length);
            return;
        }
        let limit = self.config.queue_wait_ms_max.map(Duration::from_millis);
        let waits = [sequence.start_within, limit].into_iter().flatten().min();
        let deadline = waits.and_then(|waits| sequence.arrived.checked_add(waits));
        let added = self.scheduler.add(NewSequence {
            id,
            prompt,
            max_tokens: max_tokens as usize,
            cache_key: sequence.cache_key(),
            all_rows: sequence.wants_every_row(),
            party,
            deadline: deadline.map(|deadline| self.tick(deadline)),
        });
        match added {
            Ok(()) => {
                self.sequences.insert(id, sequence);
            }
            // The door has checked the same limits, so this is a bug to be seen, not a crash.
            Err(error) => sequence.fail(format!("the scheduler refused the request: {error}")),
        }
    }

    /// Ends sequences whose stream has been dropped.
    fn drop_abandoned(&mut self) {
        let abandoned = self.sequences.iter().filter(|(_, sequence)| sequence.is_abandoned());
        let abandoned: Vec<SeqId> = abandoned.map(|(id, _)| *id).collect();
        for id in abandoned {
            self.remove(id);
        }
    }

    /// Takes a sequence out everywhere; its blocks are free at once.
    pub(crate) fn remove(&mut self, id: SeqId) -> Option<Sequence> {
        self.scheduler.remove(id);
        self.sequences.remove(&id)
    }

    fn publish(&self) {
        let stats = self.scheduler.stats();
        self.shared.metrics.observe_queues(&stats);
        self.shared.publish(EngineStats {
            running: stats.running,
            waiting: stats.waiting,
            blocks_used: stats.blocks_used,
            blocks_total: stats.blocks_total,
        });
    }
}
