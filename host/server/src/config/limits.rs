//! Every limit an operator can set, in one table: key, default, smallest and largest value.

use serde::Deserialize;

/// A limit out of its bounds.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{name} must be {min} to {max}, got {got}")]
pub(crate) struct LimitError {
    /// The key, which is the flag too.
    pub(crate) name: &'static str,
    /// Smallest value.
    pub(crate) min: u64,
    /// Largest value.
    pub(crate) max: u64,
    /// What was given.
    pub(crate) got: u64,
}

/// Key, default, smallest and largest value of a limit.
#[cfg(test)]
pub(crate) type Row = (&'static str, u64, u64, u64);

macro_rules! limits {
    ($($name:ident: $type:ty = $default:literal, $min:literal..=$max:literal, $help:literal;)+) => {
        /// What a file or a command line says of limits.
        #[derive(Clone, Debug, Default, PartialEq, clap::Args, Deserialize)]
        #[serde(deny_unknown_fields, default)]
        #[command(next_help_heading = "Limits")]
        pub(crate) struct LimitSettings {
            $(
                #[arg(long, value_name = "N",
                      help = concat!($help, " [default: ", $default, "]"))]
                pub(crate) $name: Option<u64>,
            )+
        }

        /// Limits, checked.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub(crate) struct Limits {
            $(#[doc = $help] pub(crate) $name: $type,)+
        }

        impl LimitSettings {
            /// These settings where they say something, `lower` where they do not.
            pub(crate) fn over(self, lower: Self) -> Self {
                Self { $($name: self.$name.or(lower.$name),)+ }
            }

            /// Fills in defaults and checks bounds.
            pub(crate) fn resolve(&self) -> Result<Limits, LimitError> {
                Ok(Limits {
                    $($name: {
                        let (min, max) = ($min, $max);
                        let got = self.$name.unwrap_or($default);
                        let inside = Some(got).filter(|got| (min..=max).contains(got));
                        let fits = inside.and_then(|got| <$type>::try_from(got).ok());
                        fits.ok_or(LimitError { name: stringify!($name), min, max, got })?
                    },)+
                })
            }

            /// The table, for tests that walk it.
            #[cfg(test)]
            pub(crate) const TABLE: &[Row] = &[$((stringify!($name), $default, $min, $max),)+];

            /// Sets a limit by its key, for tests that walk the table.
            #[cfg(test)]
            pub(crate) fn set(&mut self, name: &str, value: u64) {
                match name {
                    $(stringify!($name) => self.$name = Some(value),)+
                    _ => panic!("no limit {name}"),
                }
            }
        }
    };
}

limits! {
    body_bytes_max: usize = 2097152, 1024..=1073741824, "Largest request body, in bytes";
    body_read_s_max: u64 = 30, 1..=3600, "Longest time a body may take to arrive, in seconds";
    connections_max: usize = 1024, 1..=1048576, "Most connections to the public API at once";
    prompts_max: usize = 32, 1..=1024, "Most prompts of one /v1/completions";
    choices_max: u32 = 8, 1..=1024, "Most choices (`n`) of one request";
    queue_max: usize = 256, 1..=1048576, "Most sequences that wait";
    queue_tenant_max: usize = 0, 0..=1048576,
        "Most sequences of one tenant that wait; 0 is three quarters of queue_max where there are keys";
    queue_adapter_max: usize = 0, 0..=1048576,
        "Most sequences of one adapter of a tenant that wait; 0 is three quarters of queue_tenant_max";
    queue_kv_fills_max: usize = 64, 1..=1048576,
        "How many times the whole KV cache all that wait may need";
    queue_wait_ms_max: u64 = 0, 0..=86400000,
        "Longest a request may wait before it runs, in milliseconds; 0 is as long as it takes";
    itl_target_ms: u64 = 0, 0..=3600000,
        "Wanted time from token to token, in milliseconds: prompts run in pieces; 0 is none";
    ttft_target_ms: u64 = 0, 0..=3600000,
        "Wanted time to the first token, for which steps are stretched, in milliseconds; 0 is none";
    num_speculative_tokens: usize = 0, 0..=64,
        "Most tokens of a sequence guessed from its own text in a step; 0 is none";
    prompt_lookup_min: usize = 2, 1..=64, "Fewest tokens that must have stood there before a guess";
    prompt_lookup_max: usize = 5, 1..=64, "Most tokens that are looked for together";
    disable_by_batch_size: usize = 32, 2..=1048576, "Rows of a step from which on nothing is guessed";
    sequences_max: usize = 64, 1..=65536, "Most sequences that run at once";
    step_tokens_max: usize = 512, 1..=1048576, "Most rows of one step";
    block_tokens: usize = 16, 1..=4096, "Positions per KV block";
    kv_blocks: usize = 2048, 1..=1073741824, "Blocks of the KV cache";
    context_tokens_max: usize = 1073741824, 1..=1073741824,
        "Most tokens of prompt and answer together; the model's own limit if that is lower";
    retry_after_s: u32 = 1, 1..=3600, "What clients are told to wait when the queue is full";
    drain_s_max: u64 = 60, 0..=86400, "Longest wait for running requests at the end, in seconds";
    adapters_max: usize = 65536, 1..=1048576, "Most adapters, in memory or not";
    adapter_bytes_max: u64 = 8589934592, 1..=1099511627776,
        "Bytes of adapter weights in memory at once";
    adapter_loads_max: usize = 2, 1..=64, "Most adapters that are loaded at once";
    adapter_wait_s_max: u64 = 60, 1..=3600,
        "Longest wait of a request for an adapter that is not in memory, in seconds";
    source_adapter_bytes_max: u64 = 8589934592, 1..=1099511627776,
        "Bytes of one adapter that is fetched";
    source_cache_bytes_max: u64 = 53687091200, 1..=1125899906842624,
        "Bytes of fetched adapters on the disk";
    source_fetch_s_max: u64 = 600, 1..=86400, "Longest time of fetching an adapter, in seconds";
    blend_adapters_max: usize = 8, 0..=64, "Most adapters that a request may add up; 0 for no blends";
    client_stall_s_max: u64 = 60, 1..=86400,
        "Longest time that a client may leave its answer unread, in seconds";
    corpora_max: usize = 256, 0..=1048576,
        "Most corpora of adapter_dir kept in memory, which routers may look at";
    span_min_tokens: usize = 6, 1..=4096, "Shortest run of tokens that is evidence";
    spans_max: usize = 256, 1..=65536, "Most spans reported of one answer";
    span_documents_max: usize = 8, 1..=4096, "Most documents named for one span";
    receipt_segment_bytes_max: u64 = 67108864, 65536..=4294967296,
        "Size at which the ledger begins a new file, in bytes";
    plugins_max: usize = 64, 1..=1024, "Most plugins";
    plugin_versions_max: usize = 8, 2..=64, "Most installed versions of one plugin";
    plugin_component_bytes_max: u64 = 67108864, 1024..=1073741824,
        "Largest component, in bytes";
    plugin_instances_max: u32 = 1000, 1..=100000, "Most plugin instances at once";
}
