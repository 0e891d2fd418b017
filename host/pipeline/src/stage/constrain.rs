//! Answers that follow a grammar: masks are computed on the blocking pool while the model runs, one
//! token ahead of the engine, which reads them as data.

use std::sync::Arc;

use engine::{Constraint, ConstraintDriver, Mask};
use tokenization::{Allowed, Grammar, GrammarCompiler, TokenMatcher};

use crate::error::PipelineError;
use crate::shared::Shared;
use crate::stage::blocking;

/// Compiles a grammar for the base model's vocabulary.
pub(crate) async fn compile(
    shared: &Arc<Shared>,
    grammar: &Grammar,
) -> Result<TokenMatcher, PipelineError> {
    let (shared, grammar) = (Arc::clone(shared), grammar.clone());
    let refused = |message: String| PipelineError::Invalid { param: "response_format", message };
    blocking(move || {
        let compiler = shared.grammars.get_or_init(|| {
            let base = &shared.base;
            let made = GrammarCompiler::new(&shared.tokenizer, base.vocab_size, &base.end_tokens);
            made.map_err(|error| error.to_string())
        });
        let compiler = compiler.as_ref().map_err(|reason| refused(reason.clone()))?;
        compiler.compile(&grammar).map_err(|error| refused(error.to_string()))
    })
    .await?
}

/// Begins to compute masks; they end when the engine drops its end.
pub(crate) fn start(matcher: TokenMatcher) -> Constraint {
    let (constraint, driver) = engine::constraint();
    tokio::spawn(drive(matcher, driver));
    constraint
}

async fn drive(mut matcher: TokenMatcher, mut driver: ConstraintDriver) {
    let mut chosen = None;
    loop {
        let step = blocking(move || {
            let accepted = chosen.map_or(Ok(()), |token| matcher.accept(token));
            let mask = match accepted.and_then(|()| matcher.allowed()) {
                Ok(Allowed::Tokens(words)) => Mask::Allowed(words),
                Ok(Allowed::Done) => Mask::Done,
                Err(error) => Mask::Failed(error.to_string()),
            };
            (matcher, mask)
        });
        // An error is a panic of the grammar; dropping the driver fails the sequence.
        let Ok((back, mask)) = step.await else { return };
        matcher = back;
        if !driver.send(mask) {
            return;
        }
        chosen = driver.next().await;
        if chosen.is_none() {
            return;
        }
    }
}
