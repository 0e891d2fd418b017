//! The configuration as the rest of the server uses it: complete and checked.

use std::net::{SocketAddr, ToSocketAddrs};
use std::num::NonZeroUsize;
use std::path::PathBuf;

use serde::Deserialize;
use tokenization::ToolCallFormat;

use sources::{Prefix, SourceError};

use crate::config::ConfigError;
use crate::config::adapter::NamedAdapter;
use crate::config::limits::Limits;
use crate::config::plugin::PluginSettings;
use crate::config::settings::Settings;

/// Where receipts, caches and the admin token go by default.
pub(crate) const DATA_DIR: &str = "mortise-data";
/// Where the public API listens by default.
pub(crate) const LISTEN: &str = "127.0.0.1:8080";
/// Where the admin API listens by default.
pub(crate) const ADMIN_LISTEN: &str = "127.0.0.1:8081";
/// Most threads that compute.
const THREADS_MAX: usize = 1024;
/// Most ranks of a model.
const RANKS_MAX: usize = 64;

/// Where the base model runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub(crate) enum DeviceName {
    /// A CUDA device if there is one that the model can use, else the CPU.
    #[default]
    Auto,
    /// The CPU.
    Cpu,
    /// A CUDA device, or no start.
    Cuda,
}

impl From<DeviceName> for models::DeviceChoice {
    fn from(name: DeviceName) -> Self {
        match name {
            DeviceName::Auto => Self::Auto,
            DeviceName::Cpu => Self::Cpu,
            DeviceName::Cuda => Self::Cuda,
        }
    }
}

/// What the base model's linear layers are rounded to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, clap::ValueEnum)]
pub(crate) enum Quantize {
    /// Blocks of 32 in eight bits: 8.5 bits a weight.
    #[serde(rename = "q8_0")]
    #[value(name = "q8_0")]
    Q8_0,
    /// Blocks of 256 in six bits: 6.5625 bits a weight.
    #[serde(rename = "q6_k")]
    #[value(name = "q6_k")]
    Q6K,
    /// Blocks of 256 in four bits, with minima: 4.625 bits a weight; the head in six bits.
    #[serde(rename = "q4_k")]
    #[value(name = "q4_k")]
    Q4K,
    /// Blocks of 32 in four bits: 4.5 bits a weight; the head in six bits.
    #[serde(rename = "q4_0")]
    #[value(name = "q4_0")]
    Q4_0,
}

impl Quantize {
    /// As it is written.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Q8_0 => "q8_0",
            Self::Q6K => "q6_k",
            Self::Q4K => "q4_k",
            Self::Q4_0 => "q4_0",
        }
    }
}

impl From<Quantize> for models::Quantization {
    fn from(quantize: Quantize) -> Self {
        match quantize {
            Quantize::Q8_0 => Self::Q8_0,
            Quantize::Q6K => Self::Q6K,
            Quantize::Q4K => Self::Q4K,
            Quantize::Q4_0 => Self::Q4_0,
        }
    }
}

/// How keys and values are kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub(crate) enum KvCacheDtype {
    /// As exactly as the model's weights: f32 for a model in f32, else f16.
    #[default]
    Auto,
    /// Four bytes a number.
    F32,
    /// Two bytes a number.
    F16,
    /// A byte a number, and a scale of two bytes for each position and head.
    Int8,
}

impl KvCacheDtype {
    /// As it is written.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::F32 => "f32",
            Self::F16 => "f16",
            Self::Int8 => "int8",
        }
    }

    /// What the engine is told; `None` leaves it to the model.
    pub(crate) fn format(self) -> Option<models::KvFormat> {
        match self {
            Self::Auto => None,
            Self::F32 => Some(models::KvFormat::F32),
            Self::F16 => Some(models::KvFormat::F16),
            Self::Int8 => Some(models::KvFormat::Int8),
        }
    }
}

/// How the model writes calls of tools where it is free to call none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
#[value(rename_all = "snake_case")]
pub(crate) enum ToolCallParserName {
    /// As its chat template shows it.
    #[default]
    Auto,
    /// `<tool_call>{"name": ..., "arguments": ...}</tool_call>`, as Hermes and Qwen.
    Hermes,
    /// `{"name": ..., "parameters": ...}`, as Llama 3.1 and its successors.
    #[serde(rename = "llama3_json")]
    #[value(name = "llama3_json")]
    Llama3Json,
    /// It does not: tools must be asked for by name or with `required`.
    None,
}

impl ToolCallParserName {
    /// The format, where `template` is what a chat template shows.
    pub(crate) fn format(self, template: Option<ToolCallFormat>) -> Option<ToolCallFormat> {
        match self {
            Self::Auto => template,
            Self::Hermes => Some(ToolCallFormat::Hermes),
            Self::Llama3Json => Some(ToolCallFormat::Llama3Json),
            Self::None => None,
        }
    }
}

/// Form of log lines.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub(crate) enum LogFormat {
    /// One line for people.
    #[default]
    Text,
    /// One JSON object per line.
    Json,
}

/// What a server is made of.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Config {
    /// Hugging Face directory of the base model.
    pub(crate) model: PathBuf,
    /// Its name on the wire.
    pub(crate) base_name: String,
    /// Adapters by name.
    pub(crate) adapters: Vec<NamedAdapter>,
    /// Directory of adapters.
    pub(crate) adapter_dir: Option<PathBuf>,
    /// Directories below which the vLLM-shaped API may load adapters.
    pub(crate) adapter_roots: Vec<PathBuf>,
    /// Addresses below which adapters may be fetched.
    pub(crate) adapter_sources: Vec<Prefix>,
    /// Hugging Face's hub, if it is not where the environment says.
    pub(crate) hf_endpoint: Option<String>,
    /// Whether that API is on the public listener too.
    pub(crate) runtime_adapters: bool,
    /// Directory of plugins.
    pub(crate) plugin_dir: Option<PathBuf>,
    /// The operator's word on plugins.
    pub(crate) plugins: Vec<PluginSettings>,
    /// Whether every plugin is granted what it asks for.
    pub(crate) grant_requested: bool,
    /// Directory of receipts, caches and the admin token.
    pub(crate) data_dir: PathBuf,
    /// Address of the public API.
    pub(crate) listen: SocketAddr,
    /// Address of the admin API.
    pub(crate) admin_listen: SocketAddr,
    /// File with the admin API's token; `None` for the one in `data_dir`.
    pub(crate) admin_token_file: Option<PathBuf>,
    /// File of API keys.
    pub(crate) api_keys_file: Option<PathBuf>,
    /// Threads that compute.
    pub(crate) threads: usize,
    /// Ranks that share the base.
    pub(crate) tensor_parallel_size: NonZeroUsize,
    /// Where the base runs.
    pub(crate) device: DeviceName,
    /// What the base's linear layers are rounded to.
    pub(crate) quantize: Option<Quantize>,
    /// How keys and values are kept.
    pub(crate) kv_cache_dtype: KvCacheDtype,
    /// How the model writes calls of tools.
    pub(crate) tool_call_parser: ToolCallParserName,
    /// Where spans and metrics are sent; `None` leaves it to the environment.
    pub(crate) otlp_endpoint: Option<String>,
    /// Form of log lines.
    pub(crate) log_format: LogFormat,
    /// Limits.
    pub(crate) limits: Limits,
}

impl Config {
    /// Fills in defaults and checks; `processors` is the default number of threads.
    pub(crate) fn resolve(settings: Settings, processors: usize) -> Result<Self, ConfigError> {
        let model = settings.model.ok_or(ConfigError::Missing { key: "model" })?;
        let base_name = match settings.base_name {
            Some(name) => name,
            None => name_of(&model)?,
        };
        check_base_name(&base_name)?;
        let listen = address("listen", settings.listen.as_deref().unwrap_or(LISTEN))?;
        let admin = settings.admin_listen.as_deref().unwrap_or(ADMIN_LISTEN);
        let allowed = settings.allow_remote_without_keys.unwrap_or(false);
        if settings.api_keys_file.is_none() && !listen.ip().is_loopback() && !allowed {
            return Err(ConfigError::RemoteWithoutKeys { listen });
        }
        let threads = settings.threads.unwrap_or_else(|| processors.clamp(1, THREADS_MAX));
        if !(1..=THREADS_MAX).contains(&threads) {
            let expected = format!("1 to {THREADS_MAX}");
            return Err(ConfigError::Value { key: "threads", expected, got: threads.to_string() });
        }
        let limits = settings.limits.resolve()?;
        let ranks = settings.tensor_parallel_size.unwrap_or(1);
        let tensor_parallel_size =
            NonZeroUsize::new(ranks).filter(|ranks| ranks.get() <= RANKS_MAX).ok_or_else(|| {
                let (key, expected) = ("tensor_parallel_size", format!("1 to {RANKS_MAX}"));
                ConfigError::Value { key, expected, got: ranks.to_string() }
            })?;
        if limits.step_tokens_max < limits.sequences_max {
            let expected = format!("at least sequences_max ({})", limits.sequences_max);
            let got = limits.step_tokens_max.to_string();
            return Err(ConfigError::Value { key: "step_tokens_max", expected, got });
        }
        let adapter_roots = settings.adapter_dir.iter().chain(&settings.adapter_root).cloned();
        Ok(Self {
            model,
            base_name,
            adapter_roots: adapter_roots.collect(),
            adapter_sources: settings
                .adapter_source
                .iter()
                .map(|text| source(text))
                .collect::<Result<_, _>>()?,
            hf_endpoint: settings.hf_endpoint,
            runtime_adapters: settings.allow_runtime_lora_updating.unwrap_or(false),
            adapters: settings.adapter,
            adapter_dir: settings.adapter_dir,
            plugin_dir: settings.plugin_dir,
            plugins: settings.plugins,
            grant_requested: settings.grant_requested.unwrap_or(false),
            data_dir: settings.data_dir.unwrap_or_else(|| DATA_DIR.into()),
            listen,
            admin_listen: address("admin_listen", admin)?,
            admin_token_file: settings.admin_token_file,
            api_keys_file: settings.api_keys_file,
            threads,
            tensor_parallel_size,
            device: settings.device.unwrap_or_default(),
            quantize: settings.quantize,
            kv_cache_dtype: settings.kv_cache_dtype.unwrap_or_default(),
            tool_call_parser: settings.tool_call_parser.unwrap_or_default(),
            otlp_endpoint: settings.otlp_endpoint,
            log_format: settings.log_format.unwrap_or_default(),
            limits,
        })
    }
}

/// The last part of a model's path that is a name, without a file's `.gguf`: `.` and links are looked
/// through.
fn name_of(model: &std::path::Path) -> Result<String, ConfigError> {
    let real = model.canonicalize().unwrap_or_else(|_| model.to_owned());
    let name = model.file_name().or_else(|| real.file_name());
    let name = name.ok_or(ConfigError::Missing { key: "base_name" })?.to_string_lossy();
    Ok(match name.strip_suffix(".gguf") {
        Some(stem) if !stem.is_empty() => stem.to_owned(),
        _ => name.into_owned(),
    })
}

fn source(text: &str) -> Result<Prefix, ConfigError> {
    text.parse().map_err(|error: SourceError| {
        let expected = "an address that adapters may be fetched from".to_owned();
        ConfigError::Value { key: "adapter_source", expected, got: error.to_string() }
    })
}

fn check_base_name(name: &str) -> Result<(), ConfigError> {
    if crate::assemble::is_free_name(name) {
        return Ok(());
    }
    let expected =
        "a name without white space and control characters that is not `auto` or `agent:...`"
            .to_owned();
    Err(ConfigError::Value { key: "base_name", expected, got: name.to_owned() })
}

fn address(key: &'static str, text: &str) -> Result<SocketAddr, ConfigError> {
    let refuse = |got: String| ConfigError::Value { key, expected: "HOST:PORT".to_owned(), got };
    let mut found =
        text.to_socket_addrs().map_err(|error| refuse(format!("`{text}` ({error})")))?;
    found.next().ok_or_else(|| refuse(format!("`{text}`, which has no address")))
}
