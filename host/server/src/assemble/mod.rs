//! The only place that builds everything: from a checked configuration to the parts of a server.
//!
//! Parts: [`adapters`] (PEFT directories with their corpora), [`remote`] (adapters that lie elsewhere),
//! [`plugins`] (folders of components), [`digest`] (what the base model is), [`text`] (its tokenizer and
//! template), [`memory`] (what the machine has), [`process`] (what of it is taken), [`token`] (the admin
//! API's secret). Reads files and compiles:
//! not for an async thread. Serves nothing.

pub(crate) mod adapters;
pub(crate) mod digest;
mod memory;
mod plugins;
mod process;
mod remote;
mod text;
pub(crate) mod token;

use std::num::NonZeroUsize;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use corpus::SpanLimits;
use engine::{Engine, EngineConfig, EngineHandle, SpeculativeConfig};
use ledger::{Ledger, LedgerConfig};
use models::{CausalLm, Device, LoadOptions, ModelError, TensorParallel};
use pipeline::{BaseModel, CorpusStore, HostCapabilities, Pipeline, PipelineConfig, PipelineParts};
use plugin_host::PluginHost;
use prometheus_client::registry::Registry;
use tokenization::{ChatTemplate, Tokenizer};

use crate::config::{Config, DeviceName, Limits};
use adapters::Adapters;

/// Folder of receipts in the data directory.
pub(crate) const LEDGER_DIR: &str = "ledger";
/// Folder of corpus segments in the data directory.
const CORPUS_DIR: &str = "corpus";
/// Folder of compiled plugins and the base's digest in the data directory.
const CACHE_DIR: &str = "cache";

/// Everything that serves requests.
pub(crate) struct Parts {
    /// Answers requests.
    pub(crate) pipeline: Pipeline,
    /// The door to the engine thread.
    pub(crate) engine: EngineHandle,
    /// Where receipts go.
    pub(crate) ledger: Arc<Ledger>,
    /// Adapters and their corpora.
    pub(crate) adapters: Arc<Adapters>,
    /// Plugins.
    pub(crate) plugins: Arc<PluginHost>,
    /// Every metric of the process.
    pub(crate) metrics: Arc<Registry>,
}

/// Whether a model of ours may be called so: not what the wire means by something else.
pub(crate) fn is_free_name(name: &str) -> bool {
    let plain = |c: char| !(c.is_control() || c.is_whitespace());
    // `/` is in many models' names; its parts must survive in a path.
    let parts = name.split('/').all(|part| !matches!(part, "" | "." | ".."));
    parts && name.chars().all(plain) && name != "auto" && !name.starts_with("agent:")
}

/// Opens the ledger, which also keeps a second server out of the data directory.
pub(crate) fn open_ledger(config: &Config) -> Result<Arc<Ledger>> {
    let dir = config.data_dir.join(LEDGER_DIR);
    let limits = LedgerConfig {
        segment_bytes_max: config.limits.receipt_segment_bytes_max,
        ..LedgerConfig::default()
    };
    let opened = Ledger::open(&dir, &limits);
    let (ledger, recovery) =
        opened.with_context(|| format!("open the ledger {}", dir.display()))?;
    let (entries, cut) = (recovery.entries, recovery.truncated_bytes);
    tracing::info!(receipts = entries, torn_bytes_cut = cut, "ledger open");
    Ok(Arc::new(ledger))
}

/// Builds everything around an open ledger.
pub(crate) fn assemble(config: &Config, ledger: Arc<Ledger>) -> Result<Parts> {
    let cache_dir = config.data_dir.join(CACHE_DIR);
    create_dir(&cache_dir)?;
    let base = load_base(config, &cache_dir)?;
    memory::check_kv(&*base.model, config)?;
    let corpus_dir = config.data_dir.join(CORPUS_DIR);
    let corpora = Arc::new(CorpusStore::new(corpus_dir, Arc::clone(&base.tokenizer)));
    let adapters = Arc::new(Adapters::new(adapters::AdapterParts {
        shape: base.model.adapter_shape(),
        corpora: Arc::clone(&corpora),
        base_name: config.base_name.clone(),
        roots: config.adapter_roots.clone(),
        limits: config.limits,
        sources: remote::open(config)?,
    })?);
    adapters.start(config)?;
    let capabilities = HostCapabilities::new(Arc::clone(&base.tokenizer), Arc::clone(&corpora));
    let plugins = plugins::start(config, &cache_dir.join("plugins"), Arc::new(capabilities))?;
    let vocab_size = base.model.config().vocab_size;
    let hidden_size = base.model.config().hidden_size;
    let end_tokens = base.model.config().eos_token_ids.clone();
    let engine = Engine::start(base.model, engine_config(config)).context("start the engine")?;
    let mut metrics = Registry::default();
    let pipeline = Pipeline::new(PipelineParts {
        engine: engine.clone(),
        adapters: Arc::clone(adapters.registry()),
        tokenizer: base.tokenizer,
        chat_template: base.chat_template,
        plugins: Arc::clone(&plugins),
        corpora,
        ledger: Arc::clone(&ledger),
        base: BaseModel {
            name: config.base_name.clone(),
            digest: base.digest,
            context_tokens: engine.tokens_max(),
            vocab_size,
            hidden_size,
            end_tokens,
        },
        config: pipeline_config(&config.limits),
    });
    engine.metrics().register(&mut metrics);
    adapters.registry().metrics().register(&mut metrics);
    pipeline.metrics().register(&mut metrics);
    plugins.metrics().register(&mut metrics);
    metrics.register_collector(Box::new(process::Process));
    let metrics = Arc::new(metrics);
    Ok(Parts { pipeline, engine, ledger, adapters, plugins, metrics })
}

/// The base model as its directory has it.
struct Base {
    model: Box<dyn CausalLm>,
    tokenizer: Arc<Tokenizer>,
    chat_template: Option<Arc<ChatTemplate>>,
    digest: request::Digest,
}

/// Where a model's other files are: what is no weight lies beside a GGUF file.
fn directory(model: &Path) -> &Path {
    match model.parent() {
        Some(beside) if model.is_file() && beside.as_os_str().is_empty() => Path::new("."),
        Some(beside) if model.is_file() => beside,
        _ => model,
    }
}

fn load_base(config: &Config, cache_dir: &Path) -> Result<Base> {
    let path = &config.model;
    let dir = directory(path);
    let started = std::time::Instant::now();
    let named = |what: &str| format!("load the {what} of {}", path.display());
    if !dir.is_dir() {
        bail!("the model {} is neither a directory nor a file", path.display());
    }
    let (tokenizer, chat_template) = text::load(path, dir)?;
    let digest = digest::of_model(path, cache_dir).with_context(|| named("digest"))?;
    let quantization = config.quantize.map(Into::into);
    let context_tokens_max = NonZeroUsize::new(config.limits.context_tokens_max);
    let placement =
        models::DeviceChoice::from(config.device).place().context("find a device for the model")?;
    if let Some(reason) = &placement.passed_over {
        tracing::info!(%reason, "the model runs on the cpu");
    }
    let parallel = (config.tensor_parallel_size.get() > 1).then(|| {
        let ranks = config.tensor_parallel_size;
        // The ranks share what the operator gives; each needs a thread.
        let threads = NonZeroUsize::new(config.threads / ranks).unwrap_or(NonZeroUsize::MIN);
        TensorParallel { ranks, threads }
    });
    let device = placement.device;
    let options = LoadOptions { device, quantization, context_tokens_max, parallel };
    let model = match models::load(path, &options) {
        Err(error @ ModelError::Device { .. }) if config.device == DeviceName::Auto => {
            tracing::info!(reason = %error, "the model runs on the cpu");
            models::load(path, &LoadOptions { device: Device::Cpu, ..options })
        }
        loaded => loaded,
    };
    let model = model.with_context(|| named("model"))?;
    let digest = as_served(digest, config, &*model);
    if chat_template.is_none() {
        tracing::warn!("the model has no chat template; /v1/chat/completions will refuse requests");
    }
    let (model_vocab, text_vocab) = (model.config().vocab_size, tokenizer.vocab_size());
    if text_vocab > model_vocab {
        bail!(
            "the tokenizer of {} has ids up to {text_vocab}, the model {model_vocab}",
            dir.display()
        );
    }
    let (bytes, ms) = (model.weights_bytes(), started.elapsed().as_millis());
    tracing::info!(model = %config.base_name, digest = %digest.short(), bytes, ms, "model loaded");
    let tokenizer = Arc::new(tokenizer);
    Ok(Base { model, tokenizer, chat_template: chat_template.map(Arc::new), digest })
}

/// What of the way a model is served changes its answers: a model that is rounded, that rounds what it
/// remembers, or that has the frequencies of long contexts is another model in receipts.
fn as_served(digest: request::Digest, config: &Config, model: &dyn CausalLm) -> request::Digest {
    let kv = config.kv_cache_dtype;
    let own_kv = kv.format().is_none_or(|format| format == model.kv_format());
    let factors: &[f32] = match &model.config().rope.scaling {
        models::RopeScaling::Each { factors, .. } => factors.as_slice(),
        _ => &[],
    };
    digest::as_served(digest, config.quantize, (!own_kv).then_some(kv), factors)
}

fn engine_config(config: &Config) -> EngineConfig {
    let limits = &config.limits;
    let share = |own: usize, of: usize| if own == 0 { of - of / 4 } else { own };
    // Without keys everybody is one tenant, and there are no others to leave room for.
    let queue_tenant_max = match (limits.queue_tenant_max, &config.api_keys_file) {
        (0, None) => limits.queue_max,
        (own, _) => share(own, limits.queue_max),
    };
    let given = |milliseconds: u64| (milliseconds > 0).then_some(milliseconds);
    let speculative = SpeculativeConfig {
        num_speculative_tokens: limits.num_speculative_tokens,
        prompt_lookup_min: limits.prompt_lookup_min,
        prompt_lookup_max: limits.prompt_lookup_max,
        disable_by_batch_size: limits.disable_by_batch_size,
        ..SpeculativeConfig::default()
    };
    EngineConfig {
        threads: config.threads,
        block_tokens: limits.block_tokens,
        kv_blocks: limits.kv_blocks,
        kv_format: config.kv_cache_dtype.format(),
        step_tokens_max: limits.step_tokens_max,
        sequences_max: limits.sequences_max,
        queue_max: limits.queue_max,
        queue_tenant_max,
        queue_adapter_max: share(limits.queue_adapter_max, queue_tenant_max),
        queue_kv_fills_max: limits.queue_kv_fills_max,
        queue_wait_ms_max: given(limits.queue_wait_ms_max),
        context_tokens_max: limits.context_tokens_max,
        itl_target_ms: given(limits.itl_target_ms),
        ttft_target_ms: given(limits.ttft_target_ms),
        speculative: (limits.num_speculative_tokens > 0).then_some(speculative),
        ..EngineConfig::default()
    }
}

fn pipeline_config(limits: &Limits) -> PipelineConfig {
    PipelineConfig {
        spans: SpanLimits {
            min_tokens: limits.span_min_tokens,
            spans_max: limits.spans_max,
            documents_per_span_max: limits.span_documents_max,
        },
        choices_max: limits.choices_max,
        retry_after_s: limits.retry_after_s,
        adapter_wait_max: Duration::from_secs(limits.adapter_wait_s_max),
        client_stall_max: Duration::from_secs(limits.client_stall_s_max),
    }
}

/// Creates `dir` and what is above it; only its owner may look in.
pub(crate) fn create_dir(dir: &Path) -> Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    let mut builder = std::fs::DirBuilder::new();
    builder.recursive(true).mode(0o700);
    builder.create(dir).with_context(|| format!("create {}", dir.display()))
}

/// Folders directly in `dir` that hold `file`, in the order of their names.
fn folders_with(dir: &Path, file: &str) -> Result<Vec<std::path::PathBuf>> {
    let listed = || format!("list {}", dir.display());
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).with_context(listed)? {
        let path = entry.with_context(listed)?.path();
        if path.join(file).is_file() {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::{directory, is_free_name};

    #[test]
    fn what_is_no_weight_lies_in_the_directory_or_beside_the_file() {
        let check = |model: &str, expect: &str| {
            assert_eq!(directory(Path::new(model)), Path::new(expect), "{model}");
        };
        // Tests run where their crate is.
        check("Cargo.toml", ".");
        check("./Cargo.toml", ".");
        check("src/lib.rs", "src");
        check("src", "src");
        check("missing.gguf", "missing.gguf");
    }

    #[test]
    fn names_that_survive_in_a_path() {
        for name in ["npc", "org/model-8b", "a.b", "v1.0", "ünï"] {
            assert!(is_free_name(name), "{name}");
        }
        for name in ["", ".", "..", "a/../b", "/a", "a/", "a b", "a\nb", "auto", "agent:x", "a\0"] {
            assert!(!is_free_name(name), "{name:?}");
        }
    }
}
