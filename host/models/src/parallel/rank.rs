//! The thread of one rank: takes a step, runs its part of the model, hands back its part of the cache.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;

use candle_core::Tensor;
use kernels::{Communicator, Pool};

use crate::kv_cache::KvPart;
use crate::layers::decoder::Decoder;
use crate::{ForwardBatch, ModelError};

/// One step.
pub(super) struct Job {
    pub(super) batch: Arc<ForwardBatch>,
    pub(super) part: KvPart,
    /// Whether hidden states are wanted beside the logits.
    pub(super) hidden: bool,
}

/// Logits, and hidden states where they are wanted; rank 0 has them for all.
pub(super) type Answer = Result<Option<(Tensor, Option<Tensor>)>, ModelError>;

/// A rank and its thread. Dropping it ends the thread.
#[derive(Debug)]
pub(super) struct Rank {
    /// Empty when it ends.
    jobs: Option<Sender<Job>>,
    answers: Receiver<(KvPart, Answer)>,
    thread: Option<JoinHandle<()>>,
}

impl Rank {
    /// Starts the thread of `decoder` with a pool of `threads`, its own included.
    pub(super) fn start(
        decoder: Decoder,
        member: Arc<dyn Communicator>,
        threads: usize,
    ) -> Result<Self, ModelError> {
        let failed = |source| ModelError::Threads { source };
        let mut pool = Pool::new(threads).map_err(failed)?;
        let (jobs, receiver) = channel();
        let (sender, answers) = channel();
        let thread = std::thread::Builder::new()
            .name(format!("rank-{}", member.rank()))
            .spawn(move || {
                let giving_up = GivingUp(member);
                pool.install(|| work(&decoder, &giving_up.0, (&receiver, &sender)));
            })
            .map_err(failed)?;
        Ok(Self { jobs: Some(jobs), answers, thread: Some(thread) })
    }

    /// Hands it a step; [`Rank::end`] must follow.
    pub(super) fn begin(&self, job: Job) {
        let jobs = self.jobs.as_ref().expect("not ended yet");
        // A thread that is gone has panicked, which `end` passes on.
        let _ = jobs.send(job);
    }

    /// What it made of the step. A panic of the rank is the caller's.
    pub(super) fn end(&mut self) -> (KvPart, Answer) {
        match self.answers.recv() {
            Ok(answer) => answer,
            Err(_) => {
                let thread = self.thread.take().expect("joined once");
                match thread.join() {
                    Err(panic) => std::panic::resume_unwind(panic),
                    Ok(()) => unreachable!("a rank ends when its jobs do"),
                }
            }
        }
    }
}

impl Drop for Rank {
    fn drop(&mut self) {
        self.jobs = None;
        if let Some(thread) = self.thread.take() {
            // Its panic, if there was one, has been passed on or concerns nobody any more.
            let _ = thread.join();
        }
    }
}

/// Tells the other ranks when the thread ends, by a panic too: they must not wait for it.
struct GivingUp(Arc<dyn Communicator>);

impl Drop for GivingUp {
    fn drop(&mut self) {
        self.0.abort();
    }
}

fn work(
    decoder: &Decoder,
    member: &Arc<dyn Communicator>,
    (jobs, answers): (&Receiver<Job>, &Sender<(KvPart, Answer)>),
) {
    while let Ok(Job { batch, mut part, hidden }) = jobs.recv() {
        let answer = decoder.step(&batch, &mut part, hidden);
        if answer.is_err() {
            member.abort();
        }
        // Nobody may hold adapters when the answer is there.
        drop(batch);
        if answers.send((part, answer)).is_err() {
            return;
        }
    }
}
