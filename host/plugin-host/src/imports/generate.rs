//! `generate`: an agent's calls for the host's own models, each counted against the run's budget.
//! The only import that waits.

use std::sync::Arc;

use crate::bindings::generate::{Completion, Host, Request};
use crate::bindings::types::{Error, Usage};
use crate::convert;
use crate::guest::Guest;
use crate::imports::error;
use crate::types::GenerateCall;

impl Host for Guest {
    async fn run(&mut self, request: Request) -> Result<Completion, Error> {
        let Some(run) = &mut self.run else {
            return Err(error("denied", "there is no run to generate for"));
        };
        if run.left == 0 {
            return Err(error("over-budget", "the run's tokens are used up"));
        }
        let Request { model, messages, sampling, attrs: _ } = request;
        let messages: Result<Vec<_>, String> =
            messages.into_iter().map(convert::message_from_guest).collect();
        let messages = messages.map_err(|rule| error("invalid", rule))?;
        let sampling = convert::sampling_from_guest(sampling);
        let call = GenerateCall { model, messages, sampling, budget_tokens: run.left };
        let completion = Arc::clone(&run.generate).generate(call).await?;
        let usage = completion.usage;
        // Counted before the guest sees it; more than was left counts as all of it.
        run.left =
            run.left.saturating_sub(usage.prompt_tokens.saturating_add(usage.completion_tokens));
        Ok(Completion {
            message: convert::message_to_guest(&completion.message),
            finish_reason: completion.finish_reason,
            usage: Usage {
                prompt_tokens: usage.prompt_tokens,
                completion_tokens: usage.completion_tokens,
            },
            attrs: Vec::new(),
        })
    }

    fn budget_tokens(&mut self) -> u32 {
        self.run.as_ref().map_or(0, |run| run.left)
    }
}
