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
    /// Most tokens of prompt and answer together; the model's own limit if that is lower.
    pub context_tokens_max: usize,
    /// Whether KV blocks of equal content are shared.
    pub prefix_cache: bool,
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
            context_tokens_max: usize::MAX,
            prefix_cache: true,
        }
    }
}
