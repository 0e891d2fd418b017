//! How the next token is chosen, with the bounds of every knob.

use crate::ids::TokenId;

/// Most stop strings or stop tokens of one request.
pub const STOPS_MAX: usize = 16;
/// Most alternatives reported per token, as the OpenAI API has it.
pub const LOGPROBS_MAX: u32 = 20;
/// Most biased tokens of one request.
pub const LOGIT_BIAS_MAX: usize = 1024;

/// Sampling parameters of one sequence. Names and meanings are vLLM's.
#[derive(Clone, Debug, PartialEq)]
pub struct SamplingParams {
    /// 0 is greedy; otherwise logits are divided by it.
    pub temperature: f32,
    /// Smallest set of tokens whose probability reaches this; 1 keeps all.
    pub top_p: f32,
    /// Keep only this many tokens; 0 keeps all.
    pub top_k: u32,
    /// Keep tokens at least this fraction as likely as the likeliest; 0 keeps all.
    pub min_p: f32,
    /// Divides positive and multiplies negative logits of tokens seen in prompt or output; 1 is off.
    pub repetition_penalty: f32,
    /// Subtracted once from logits of tokens seen in the output.
    pub presence_penalty: f32,
    /// Subtracted per occurrence from logits of tokens seen in the output.
    pub frequency_penalty: f32,
    /// Added to the logits of the named tokens, after penalties.
    pub logit_bias: Vec<(TokenId, f32)>,
    /// Seed of this sequence's random choices.
    pub seed: u64,
    /// Strings that end the answer and are not part of it. The engine ignores them: it has no text.
    pub stop: Vec<String>,
    /// Tokens that end the answer besides the model's own end tokens.
    pub stop_token_ids: Vec<TokenId>,
    /// Most tokens generated.
    pub max_tokens: u32,
    /// No end or stop token may be sampled before this many tokens.
    pub min_tokens: u32,
    /// The model's own end tokens do not end the answer.
    pub ignore_eos: bool,
    /// Report the log probability of each generated token and of this many alternatives.
    pub logprobs: Option<u32>,
    /// The same for each prompt token.
    pub prompt_logprobs: Option<u32>,
}

impl Default for SamplingParams {
    fn default() -> Self {
        Self {
            temperature: 1.0,
            top_p: 1.0,
            top_k: 0,
            min_p: 0.0,
            repetition_penalty: 1.0,
            presence_penalty: 0.0,
            frequency_penalty: 0.0,
            logit_bias: Vec::new(),
            seed: 0,
            stop: Vec::new(),
            stop_token_ids: Vec::new(),
            max_tokens: 16,
            min_tokens: 0,
            ignore_eos: false,
            logprobs: None,
            prompt_logprobs: None,
        }
    }
}

/// A sampling parameter out of its bounds. `param` is spelled as on the wire.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("{param} must be {expected}, got {got}")]
pub struct SamplingError {
    /// Name of the parameter.
    pub param: &'static str,
    /// What would have been accepted.
    pub expected: String,
    /// What was given.
    pub got: String,
}

impl SamplingParams {
    /// Whether the likeliest token is always taken.
    #[must_use]
    pub fn is_greedy(&self) -> bool {
        self.temperature == 0.0
    }

    /// Checks every bound that does not depend on the model.
    ///
    /// # Errors
    /// The first parameter out of its bounds, by name.
    pub fn validate(&self) -> Result<(), SamplingError> {
        within("temperature", self.temperature, 0.0, 2.0)?;
        within("min_p", self.min_p, 0.0, 1.0)?;
        within("presence_penalty", self.presence_penalty, -2.0, 2.0)?;
        within("frequency_penalty", self.frequency_penalty, -2.0, 2.0)?;
        above_zero("top_p", self.top_p, 1.0)?;
        above_zero("repetition_penalty", self.repetition_penalty, 10.0)?;
        for (_, bias) in &self.logit_bias {
            within("logit_bias", *bias, -100.0, 100.0)?;
        }
        at_most("logit_bias", self.logit_bias.len(), LOGIT_BIAS_MAX, "entries")?;
        at_most("stop", self.stop.len(), STOPS_MAX, "strings")?;
        at_most("stop_token_ids", self.stop_token_ids.len(), STOPS_MAX, "tokens")?;
        at_most("logprobs", self.logprobs.unwrap_or(0) as usize, LOGPROBS_MAX as usize, "tokens")?;
        let prompt_logprobs = self.prompt_logprobs.unwrap_or(0) as usize;
        at_most("prompt_logprobs", prompt_logprobs, LOGPROBS_MAX as usize, "tokens")?;
        if self.stop.iter().any(String::is_empty) {
            return refuse("stop", "strings that are not empty", "an empty string");
        }
        if self.min_tokens > self.max_tokens {
            let expected = format!("at most max_tokens ({})", self.max_tokens);
            return refuse("min_tokens", expected, self.min_tokens);
        }
        Ok(())
    }
}

fn refuse<T>(
    param: &'static str,
    expected: impl Into<String>,
    got: impl ToString,
) -> Result<T, SamplingError> {
    Err(SamplingError { param, expected: expected.into(), got: got.to_string() })
}

fn within(param: &'static str, got: f32, min: f32, max: f32) -> Result<(), SamplingError> {
    // Written so that NaN fails.
    if got >= min && got <= max {
        return Ok(());
    }
    refuse(param, format!("between {min} and {max}"), got)
}

fn above_zero(param: &'static str, got: f32, max: f32) -> Result<(), SamplingError> {
    if got > 0.0 && got <= max {
        return Ok(());
    }
    refuse(param, format!("above 0 and at most {max}"), got)
}

fn at_most(param: &'static str, got: usize, max: usize, unit: &str) -> Result<(), SamplingError> {
    if got <= max {
        return Ok(());
    }
    refuse(param, format!("at most {max} {unit}"), got)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(change: impl FnOnce(&mut SamplingParams), refused: Option<&str>) {
        let mut params = SamplingParams::default();
        change(&mut params);
        assert_eq!(params.validate().err().map(|e| e.param), refused, "{params:?}");
    }

    #[test]
    fn every_bound_at_below_and_above() {
        check(|_| (), None);
        check(|p| p.temperature = 0.0, None);
        check(|p| p.temperature = 2.0, None);
        check(|p| p.temperature = 2.1, Some("temperature"));
        check(|p| p.temperature = -0.1, Some("temperature"));
        check(|p| p.temperature = f32::NAN, Some("temperature"));
        check(|p| p.top_p = 0.0, Some("top_p"));
        check(|p| p.top_p = 1.1, Some("top_p"));
        check(|p| p.min_p = 1.0, None);
        check(|p| p.min_p = 1.01, Some("min_p"));
        check(|p| p.repetition_penalty = 0.0, Some("repetition_penalty"));
        check(|p| p.presence_penalty = -2.0, None);
        check(|p| p.presence_penalty = -2.5, Some("presence_penalty"));
        check(|p| p.frequency_penalty = 2.5, Some("frequency_penalty"));
        check(|p| p.logit_bias = vec![(1, 100.0)], None);
        check(|p| p.logit_bias = vec![(1, 101.0)], Some("logit_bias"));
        check(|p| p.stop = vec!["x".into(); STOPS_MAX], None);
        check(|p| p.stop = vec!["x".into(); STOPS_MAX + 1], Some("stop"));
        check(|p| p.stop = vec![String::new()], Some("stop"));
        check(|p| p.stop_token_ids = vec![1; STOPS_MAX + 1], Some("stop_token_ids"));
        check(|p| p.logprobs = Some(LOGPROBS_MAX), None);
        check(|p| p.logprobs = Some(LOGPROBS_MAX + 1), Some("logprobs"));
        check(|p| p.prompt_logprobs = Some(LOGPROBS_MAX + 1), Some("prompt_logprobs"));
        check(|p| (p.max_tokens, p.min_tokens) = (4, 4), None);
        check(|p| (p.max_tokens, p.min_tokens) = (4, 5), Some("min_tokens"));
    }

    #[test]
    fn the_message_names_the_bound_and_the_value() {
        let params = SamplingParams { top_p: 1.5, ..SamplingParams::default() };
        let message = params.validate().expect_err("above the bound").to_string();
        assert_eq!(message, "top_p must be above 0 and at most 1, got 1.5");
    }
}
