//! The thread's loop: take commands, drop what nobody waits for, step; sleep when there is nothing.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::Receiver;

use models::{CausalLm, KvCache};
use request::FinishReason;
use scheduler::{NewSequence, Scheduler, SeqId};
use tokio::sync::oneshot;

use crate::command::{Command, Job};
use crate::sequence::Sequence;
use crate::shared::{EngineStats, Shared};

/// Everything the thread owns.
pub(crate) struct Worker {
    pub(crate) model: Box<dyn CausalLm>,
    pub(crate) kv: KvCache,
    pub(crate) scheduler: Scheduler,
    pub(crate) shared: Arc<Shared>,
    pub(crate) sequences: HashMap<SeqId, Sequence>,
    next_id: SeqId,
    draining: Vec<oneshot::Sender<()>>,
}

impl Worker {
    pub(crate) fn new(
        model: Box<dyn CausalLm>,
        kv: KvCache,
        scheduler: Scheduler,
        shared: Arc<Shared>,
    ) -> Self {
        let (sequences, draining) = (HashMap::new(), Vec::new());
        Self { model, kv, scheduler, shared, sequences, next_id: 0, draining }
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
        let sequence = Sequence::new(job, self.model.config());
        if max_tokens == 0 && !sequence.wants_prompt_logprobs() {
            sequence.finish(FinishReason::Length);
            self.shared.waiting.fetch_sub(1, Ordering::AcqRel);
            return;
        }
        let added = self.scheduler.add(NewSequence {
            id,
            prompt,
            max_tokens: max_tokens as usize,
            cache_key: sequence.cache_key(),
            all_rows: sequence.wants_prompt_logprobs(),
        });
        match added {
            Ok(()) => {
                self.sequences.insert(id, sequence);
            }
            // The door has checked the same limits, so this is a bug to be seen, not a crash.
            Err(error) => {
                sequence.fail(format!("the scheduler refused the request: {error}"));
                self.shared.waiting.fetch_sub(1, Ordering::AcqRel);
            }
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
        let sequence = self.sequences.remove(&id)?;
        if !sequence.has_started() {
            self.shared.waiting.fetch_sub(1, Ordering::AcqRel);
        }
        Some(sequence)
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
