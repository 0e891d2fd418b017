//! Limits of the scheduler, each with its unit in its name.

/// Limits of a scheduler.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SchedulerConfig {
    /// Positions per KV block.
    pub block_tokens: usize,
    /// Blocks of the cache.
    pub kv_blocks: usize,
    /// Most rows of one step; longer prompts run in chunks.
    pub step_tokens_max: usize,
    /// Most sequences that run at once.
    pub sequences_max: usize,
    /// Most sequences that wait.
    pub queue_max: usize,
    /// Most tokens of prompt and answer together.
    pub context_tokens_max: usize,
    /// Whether blocks of equal content are shared.
    pub prefix_cache: bool,
}

/// A limit of zero, or limits that contradict each other.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{name} must be {expected}, got {got}")]
pub struct ConfigError {
    /// The limit.
    pub name: &'static str,
    /// What would have been accepted.
    pub expected: String,
    /// What was given.
    pub got: usize,
}

impl SchedulerConfig {
    /// Checks the limits.
    ///
    /// # Errors
    /// The first that can't be.
    pub fn validate(&self) -> Result<(), ConfigError> {
        let limits = [
            ("block_tokens", self.block_tokens),
            ("kv_blocks", self.kv_blocks),
            ("step_tokens_max", self.step_tokens_max),
            ("sequences_max", self.sequences_max),
            ("queue_max", self.queue_max),
            ("context_tokens_max", self.context_tokens_max),
        ];
        if let Some((name, got)) = limits.into_iter().find(|(_, value)| *value == 0) {
            return Err(ConfigError { name, expected: "at least 1".to_owned(), got });
        }
        if self.step_tokens_max < self.sequences_max {
            let expected = format!("at least sequences_max ({})", self.sequences_max);
            let got = self.step_tokens_max;
            return Err(ConfigError { name: "step_tokens_max", expected, got });
        }
        Ok(())
    }
}
