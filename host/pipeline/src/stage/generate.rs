//! One choice: tokens from the engine become text, stop strings are cut, postprocessors act, and
//! deltas go to the client.

use std::sync::Arc;

use ::request::{FinishReason, TokenId, TokenLogprob, Usage};
use engine::{EngineEvent, OutputStream};
use tokenization::{IncrementalDecoder, StopMatcher, Tokenizer};

use crate::answer::{Alternative, AnswerEvent, TokenPiece};
use crate::client::Client;
use crate::error::PipelineError;
use crate::stage::filters::Output;
use crate::stage::postprocess::Postprocessors;

/// What is left of a choice when it has ended.
pub(crate) struct ChoiceEnd {
    /// The text that was sent.
    pub(crate) text: String,
    /// The tokens that were generated.
    pub(crate) tokens: Vec<TokenId>,
    /// Whether the text sent is exactly the text of the tokens.
    pub(crate) verbatim: bool,
    pub(crate) reason: FinishReason,
    pub(crate) usage: Usage,
    pub(crate) post: Postprocessors,
    /// Present if the choice failed after it began.
    pub(crate) error: Option<PipelineError>,
}

impl ChoiceEnd {
    /// The end of a choice that the client did not wait for.
    pub(crate) fn cancelled(post: Postprocessors) -> Self {
        Self {
            text: String::new(),
            tokens: Vec::new(),
            verbatim: false,
            reason: FinishReason::Cancelled,
            usage: Usage::default(),
            post,
            error: None,
        }
    }
}

/// One choice of a request while it runs.
pub(crate) struct Choice {
    pub(crate) index: u32,
    pub(crate) stream: OutputStream,
    pub(crate) post: Postprocessors,
    pub(crate) tokenizer: Arc<Tokenizer>,
    pub(crate) stop: Vec<String>,
    /// Whether the client asked for logprobs.
    pub(crate) logprobs: bool,
    pub(crate) prompt_tokens: u32,
    /// Prompt to repeat before the answer, as text and tokens.
    pub(crate) echo: Option<(String, Vec<TokenId>)>,
    /// Whether a token without text is told at once.
    pub(crate) every_token: bool,
}

/// The mutable part of [`Choice::run`].
struct Progress {
    index: u32,
    decoder: IncrementalDecoder,
    stops: StopMatcher,
    post: Postprocessors,
    client: Client,
    raw: String,
    sent: String,
    /// Token pieces that have not been sent yet.
    pieces: Vec<TokenPiece>,
    /// Generated tokens that have not been sent yet.
    ids: Vec<TokenId>,
    every_token: bool,
}

/// Why the loop over the engine's events ended.
enum Ended {
    Engine(FinishReason, Usage),
    Early(FinishReason),
}

impl Choice {
    /// Runs to the end, the client's departure, or a failure. Never returns early without having
    /// dropped the engine's stream, which frees its blocks at the next step.
    pub(crate) async fn run(self, client: Client) -> ChoiceEnd {
        let Self { index, mut stream, post, tokenizer, stop, logprobs, prompt_tokens, .. } = self;
        let mut progress = Progress {
            index,
            decoder: IncrementalDecoder::new(Arc::clone(&tokenizer), true),
            stops: StopMatcher::new(stop),
            post,
            client,
            raw: String::new(),
            sent: String::new(),
            pieces: Vec::new(),
            ids: Vec::new(),
            every_token: self.every_token,
        };
        let mut tokens = Vec::new();
        let pieces = Pieces { tokenizer: &tokenizer, wanted: logprobs };
        let ended = drive(&mut stream, &mut progress, &mut tokens, &pieces, self.echo).await;
        let cached_tokens = stream.cached_tokens();
        drop(stream);
        let counted = Usage {
            prompt_tokens,
            completion_tokens: u32::try_from(tokens.len()).unwrap_or(u32::MAX),
            cached_tokens,
        };
        let (reason, usage, error) = match ended {
            Ok(Ended::Engine(reason, usage)) => (reason, usage, None),
            Ok(Ended::Early(reason)) => (reason, counted, None),
            Err(error) => (FinishReason::Cancelled, counted, Some(error)),
        };
        let verbatim = progress.raw == progress.sent;
        let (text, post) = (progress.sent, progress.post);
        ChoiceEnd { text, tokens, verbatim, reason, usage, post, error }
    }
}

async fn drive(
    stream: &mut OutputStream,
    progress: &mut Progress,
    tokens: &mut Vec<TokenId>,
    pieces: &Pieces<'_>,
    echo: Option<(String, Vec<TokenId>)>,
) -> Result<Ended, PipelineError> {
    let mut echo_tokens = Vec::new();
    if let Some((text, ids)) = echo {
        echo_tokens = ids;
        progress.echo(text).await;
    }
    loop {
        let event = tokio::select! {
            event = stream.next() => event,
            () = progress.client.left() => return Ok(Ended::Early(FinishReason::Cancelled)),
        };
        match event {
            Some(EngineEvent::PromptLogprobs(logprobs)) => {
                pieces.prompt(&echo_tokens, &logprobs, &mut progress.pieces);
            }
            Some(EngineEvent::Token { id, logprob }) => {
                tokens.push(id);
                progress.ids.push(id);
                pieces.token(id, logprob, &mut progress.pieces);
                let text = progress.decoder.push(id).map_err(internal)?;
                if let Some(reason) = progress.text(text).await? {
                    return Ok(Ended::Early(reason));
                }
            }
            // No text: the delta that ends the choice carries it.
            Some(EngineEvent::Stop { id, logprob }) => {
                pieces.token(id, Some(logprob), &mut progress.pieces);
            }
            Some(EngineEvent::Finished { reason, usage }) => {
                let reason = progress.end(reason).await?;
                return Ok(Ended::Engine(reason, usage));
            }
            // Asked for by embeddings alone.
            Some(EngineEvent::Pooled(_)) => {}
            Some(EngineEvent::Expired { waited }) => return Err(PipelineError::expired(waited)),
            Some(EngineEvent::Failed { message }) => {
                return Err(PipelineError::Internal { message });
            }
            None => {
                let message = "the engine stopped before the answer ended".to_owned();
                return Err(PipelineError::Internal { message });
            }
        }
    }
}

impl Progress {
    /// Takes newly decoded text; a reason means that the choice has ended.
    async fn text(&mut self, text: String) -> Result<Option<FinishReason>, PipelineError> {
        self.raw.push_str(&text);
        let pushed = self.stops.push(&text);
        let output = self.post.push(pushed.emit).await?;
        let stopped = output.stopped;
        self.send(output.text).await;
        if stopped {
            return Ok(Some(FinishReason::ContentFilter));
        }
        if pushed.stopped.is_some() {
            let rest = self.post.finish(FinishReason::Stop.as_str()).await?;
            return Ok(Some(self.last(rest, FinishReason::Stop).await));
        }
        Ok(None)
    }

    /// The engine is done: what decoder, stop matcher and postprocessors still hold comes out.
    async fn end(&mut self, reason: FinishReason) -> Result<FinishReason, PipelineError> {
        let text = self.decoder.finish().map_err(internal)?;
        if let Some(early) = self.text(text).await? {
            return Ok(early);
        }
        let held = self.stops.finish();
        let output = self.post.push(held).await?;
        if output.stopped {
            return Ok(self.last(output, reason).await);
        }
        self.send(output.text).await;
        let rest = self.post.finish(reason.as_str()).await?;
        Ok(self.last(rest, reason).await)
    }

    async fn last(&mut self, output: Output, reason: FinishReason) -> FinishReason {
        self.send(output.text).await;
        if output.stopped { FinishReason::ContentFilter } else { reason }
    }

    /// Sends the client's own text back. It is no part of the answer: nobody is credited for it.
    async fn echo(&mut self, text: String) {
        if !text.is_empty() {
            let (tokens, ids) = (Vec::new(), Vec::new());
            let event = AnswerEvent::Delta { choice: self.index, text, tokens, ids };
            self.client.tell(event).await;
        }
    }

    /// Sends text and the token pieces since the last delta. A client that has gone is noticed by
    /// the caller's next wait.
    async fn send(&mut self, text: String) {
        let untold = !self.pieces.is_empty() || (self.every_token && !self.ids.is_empty());
        if text.is_empty() && !untold {
            return;
        }
        self.sent.push_str(&text);
        let tokens = std::mem::take(&mut self.pieces);
        let ids = std::mem::take(&mut self.ids);
        let event = AnswerEvent::Delta { choice: self.index, text, tokens, ids };
        self.client.tell(event).await;
    }
}

/// Makes token pieces, where the client wants them.
struct Pieces<'a> {
    tokenizer: &'a Tokenizer,
    wanted: bool,
}

impl Pieces<'_> {
    fn token(&self, id: TokenId, logprob: Option<TokenLogprob>, out: &mut Vec<TokenPiece>) {
        if self.wanted {
            out.push(self.piece(id, logprob));
        }
    }

    fn prompt(
        &self,
        ids: &[TokenId],
        logprobs: &[Option<TokenLogprob>],
        out: &mut Vec<TokenPiece>,
    ) {
        if self.wanted {
            let pairs = ids.iter().zip(logprobs.iter().cloned());
            out.extend(pairs.map(|(id, logprob)| self.piece(*id, logprob)));
        }
    }

    fn piece(&self, id: TokenId, logprob: Option<TokenLogprob>) -> TokenPiece {
        let top = logprob.as_ref().map(|found| found.top.clone()).unwrap_or_default();
        let alternative = |(id, logprob)| {
            let (text, bytes) = self.text(id);
            Alternative { id, text, bytes, logprob }
        };
        let (text, bytes) = self.text(id);
        let logprob = logprob.map(|found| found.logprob);
        TokenPiece { id, text, bytes, logprob, top: top.into_iter().map(alternative).collect() }
    }

    fn text(&self, id: TokenId) -> (String, Option<Vec<u8>>) {
        match self.tokenizer.token_bytes(id) {
            Some(bytes) => (String::from_utf8_lossy(&bytes).into_owned(), Some(bytes)),
            None => (self.tokenizer.decode(&[id], false).unwrap_or_default(), None),
        }
    }
}

fn internal(error: impl std::fmt::Display) -> PipelineError {
    PipelineError::Internal { message: format!("failed to decode: {error}") }
}
