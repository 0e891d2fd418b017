//! Limits of the engine, each with its unit in its name.

use models::KvFormat;

/// Limits of an engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EngineConfig {
    /// Threads that compute.
    pub threads: usize,
    /// Positions per KV block.
    pub block_tokens: usize,
    /// Blocks of the KV cache.
    pub kv_blocks: usize,
    /// How keys and values are kept; `None` for as exactly as the model's weights are.
    pub kv_format: Option<KvFormat>,
    /// Most rows of one step.
    pub step_tokens_max: usize,
    /// Most sequences that run at once.
    pub sequences_max: usize,
    /// Most sequences that wait.
    pub queue_max: usize,
    /// Most sequences of one tenant that wait: what is left of the queue is for others.
    pub queue_tenant_max: usize,
    /// Most sequences of one adapter of one tenant that wait.
    pub queue_adapter_max: usize,
    /// How many times the whole KV cache all that wait may need, by their prompts and `max_tokens`.
    pub queue_kv_fills_max: usize,
    /// Longest a request may wait before it runs for the first time; `None` is as long as it takes.
    pub queue_wait_ms_max: Option<u64>,
    /// Most tokens of prompt and answer together; the model's own limit if that is lower.
    pub context_tokens_max: usize,
    /// Whether KV blocks of equal content are shared.
    pub prefix_cache: bool,
    /// Wanted time from a token to the next: prompts run in pieces that keep a step this short.
    /// `None` lets every step be as large as `step_tokens_max`.
    pub itl_target_ms: Option<u64>,
    /// Wanted time from arrival to first token. From half of it on, steps are stretched beyond
    /// `itl_target_ms`, to twice as much when it has passed; means nothing without that one.
    pub ttft_target_ms: Option<u64>,
    /// Guessing of tokens, if any. It changes no answer.
    pub speculative: Option<SpeculativeConfig>,
}

/// How tokens are guessed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SpeculativeMethod {
    /// By what followed the last tokens where they stood before, in the prompt or the answer.
    Ngram,
}

/// Guessing of tokens that are verified in one forward. Names are vLLM's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SpeculativeConfig {
    /// Where guesses come from.
    pub method: SpeculativeMethod,
    /// Most guesses of one sequence in a step.
    pub num_speculative_tokens: usize,
    /// Fewest tokens that must have stood together before.
    pub prompt_lookup_min: usize,
    /// Most tokens that are looked for together.
    pub prompt_lookup_max: usize,
    /// Nothing is guessed in steps of this many rows or more.
    pub disable_by_batch_size: usize,
}

impl Default for SpeculativeConfig {
    fn default() -> Self {
        Self {
            method: SpeculativeMethod::Ngram,
            num_speculative_tokens: 4,
            prompt_lookup_min: 2,
            prompt_lookup_max: 5,
            disable_by_batch_size: 32,
        }
    }
}

impl Default for EngineConfig {
    fn default() -> Self {
        Self {
            threads: 2,
            block_tokens: 16,
            kv_blocks: 2048,
            kv_format: None,
            step_tokens_max: 512,
            sequences_max: 64,
            queue_max: 256,
            queue_tenant_max: 256,
            queue_adapter_max: 192,
            queue_kv_fills_max: 64,
            queue_wait_ms_max: None,
            context_tokens_max: usize::MAX,
            prefix_cache: true,
            itl_target_ms: None,
            ttft_target_ms: None,
            speculative: None,
        }
    }
}

/// A setting that can't be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{name} must be {expected}, got {got}")]
pub struct SettingError {
    /// The setting.
    pub name: &'static str,
    /// What would have been accepted.
    pub expected: String,
    /// What was given.
    pub got: u64,
}

impl EngineConfig {
    /// Checks what the scheduler does not check.
    ///
    /// # Errors
    /// The first setting that can't be.
    pub fn validate(&self) -> Result<(), SettingError> {
        let at_least_one = [
            ("threads", Some(self.threads as u64)),
            ("queue_max", Some(self.queue_max as u64)),
            ("queue_tenant_max", Some(self.queue_tenant_max as u64)),
            ("queue_adapter_max", Some(self.queue_adapter_max as u64)),
            ("queue_kv_fills_max", Some(self.queue_kv_fills_max as u64)),
            ("queue_wait_ms_max", self.queue_wait_ms_max),
            ("itl_target_ms", self.itl_target_ms),
            ("ttft_target_ms", self.ttft_target_ms),
        ];
        for (name, value) in at_least_one {
            if value == Some(0) {
                return Err(SettingError { name, expected: "at least 1".to_owned(), got: 0 });
            }
        }
        if let (Some(got), None) = (self.ttft_target_ms, self.itl_target_ms) {
            let expected = "given together with itl_target_ms".to_owned();
            return Err(SettingError { name: "ttft_target_ms", expected, got });
        }
        self.speculative.map_or(Ok(()), |speculative| speculative.validate())
    }
}

/// Most guesses of one sequence in a step.
const SPECULATIVE_TOKENS_MAX: usize = 64;

impl SpeculativeConfig {
    fn validate(&self) -> Result<(), SettingError> {
        let most = SPECULATIVE_TOKENS_MAX;
        let bounds = [
            ("num_speculative_tokens", self.num_speculative_tokens, 1, most),
            ("prompt_lookup_min", self.prompt_lookup_min, 1, self.prompt_lookup_max),
            ("prompt_lookup_max", self.prompt_lookup_max, 1, most),
            ("disable_by_batch_size", self.disable_by_batch_size, 2, usize::MAX),
        ];
        for (name, value, min, max) in bounds {
            if !(min..=max).contains(&value) {
                let expected = format!("{min} to {max}");
                return Err(SettingError { name, expected, got: value as u64 });
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_that_cannot_be_are_named() {
        let check = |change: &dyn Fn(&mut EngineConfig), expect: Option<&str>| {
            let mut config = EngineConfig::default();
            change(&mut config);
            assert_eq!(config.validate().err().map(|error| error.name), expect, "{config:?}");
        };
        check(&|_| (), None);
        check(&|c| c.threads = 0, Some("threads"));
        check(&|c| c.queue_max = 0, Some("queue_max"));
        check(&|c| c.queue_tenant_max = 0, Some("queue_tenant_max"));
        check(&|c| c.queue_kv_fills_max = 0, Some("queue_kv_fills_max"));
        check(&|c| c.queue_wait_ms_max = Some(0), Some("queue_wait_ms_max"));
        check(&|c| c.ttft_target_ms = Some(100), Some("ttft_target_ms"));
        check(&|c| (c.ttft_target_ms, c.itl_target_ms) = (Some(100), Some(10)), None);
        let speculative = |change: &dyn Fn(&mut SpeculativeConfig), expect: Option<&str>| {
            let mut speculative = SpeculativeConfig::default();
            change(&mut speculative);
            check(&|config| config.speculative = Some(speculative), expect);
        };
        speculative(&|_| (), None);
        speculative(&|s| s.num_speculative_tokens = 0, Some("num_speculative_tokens"));
        speculative(&|s| s.num_speculative_tokens = 64, None);
        speculative(&|s| s.num_speculative_tokens = 65, Some("num_speculative_tokens"));
        speculative(&|s| s.prompt_lookup_min = 5, None);
        speculative(&|s| s.prompt_lookup_min = 6, Some("prompt_lookup_min"));
        speculative(&|s| s.disable_by_batch_size = 1, Some("disable_by_batch_size"));
    }
}
