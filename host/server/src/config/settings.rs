//! Every key of the configuration, once: the same structure is read from the file and from flags,
//! so neither can have a key that the other lacks. Nothing here is checked or resolved.

use std::path::{Path, PathBuf};

use serde::Deserialize;
use sources::Location;

use crate::config::adapter::NamedAdapter;
use crate::config::limits::LimitSettings;
use crate::config::plugin::PluginSettings;
use crate::config::resolved::{DeviceName, KvCacheDtype, LogFormat, Quantize, ToolCallParserName};

/// What a file or a command line says; what it does not say is `None` or empty.
#[derive(Clone, Debug, Default, PartialEq, clap::Args, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Settings {
    /// Base model: a Hugging Face directory, or a GGUF file, which needs nothing beside it
    #[arg(long, value_name = "PATH")]
    pub(crate) model: Option<PathBuf>,
    /// Name of the base model on the wire [default: that of its directory, or of its file
    /// without .gguf]
    #[arg(long, value_name = "NAME")]
    pub(crate) base_name: Option<String>,
    /// An adapter: its name and its PEFT directory, or an address below an adapter_source; may be
    /// repeated
    #[arg(long, value_name = "NAME=DIR")]
    pub(crate) adapter: Vec<NamedAdapter>,
    /// Directory of which each sub-directory with an adapter_config.json is an adapter
    #[arg(long, value_name = "DIR")]
    pub(crate) adapter_dir: Option<PathBuf>,
    /// A directory below which /v1/load_lora_adapter may load, besides adapter_dir; may be repeated
    #[arg(long, value_name = "DIR")]
    pub(crate) adapter_root: Vec<PathBuf>,
    /// Adapters below this address may be fetched: s3://bucket/path, gs://, az://, https://, http://,
    /// file://, hf://organisation, hf://organisation/repository; may be repeated
    #[arg(long, value_name = "PREFIX")]
    pub(crate) adapter_source: Vec<String>,
    /// Hugging Face's hub, or a mirror [default: HF_ENDPOINT, else https://huggingface.co]
    #[arg(long, value_name = "URL")]
    pub(crate) hf_endpoint: Option<String>,
    /// Has /v1/load_lora_adapter and its like on the public API too, for every client
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true,
          default_missing_value = "true")]
    pub(crate) allow_runtime_lora_updating: Option<bool>,
    /// Directory of which each sub-directory with a plugin.toml is a plugin
    #[arg(long, value_name = "DIR")]
    pub(crate) plugin_dir: Option<PathBuf>,
    /// The operator's word on a plugin, as the inside of a TOML table: name = "mask",
    /// on_failure = "bypass", grants = ["corpus"], order = 1, budget_tokens = 4096,
    /// path = "DIR", activate = true, config = { ... }; may be repeated
    #[arg(long = "plugins", value_name = "TABLE")]
    pub(crate) plugins: Vec<PluginSettings>,
    /// Grants every plugin what its manifest asks for
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true,
          default_missing_value = "true")]
    pub(crate) grant_requested: Option<bool>,
    /// Directory of receipts, caches and the admin token [default: mortise-data]
    #[arg(long, value_name = "DIR")]
    pub(crate) data_dir: Option<PathBuf>,
    /// Address of the public API; port 0 takes a free one [default: 127.0.0.1:8080]
    #[arg(long, value_name = "ADDR")]
    pub(crate) listen: Option<String>,
    /// Address of the admin API; port 0 takes a free one [default: 127.0.0.1:8081]
    #[arg(long, value_name = "ADDR")]
    pub(crate) admin_listen: Option<String>,
    /// File with the admin API's token [default: admin-token in the data directory, made if it is
    /// not there]
    #[arg(long, value_name = "FILE")]
    pub(crate) admin_token_file: Option<PathBuf>,
    /// File of lines `sha256-of-key tenant`; see `mortise key new`
    #[arg(long, value_name = "FILE")]
    pub(crate) api_keys_file: Option<PathBuf>,
    /// Listens on other than loopback addresses without API keys
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true,
          default_missing_value = "true")]
    pub(crate) allow_remote_without_keys: Option<bool>,
    /// Threads that compute [default: one per processor]
    #[arg(long, value_name = "N")]
    pub(crate) threads: Option<usize>,
    /// Ranks that share the base model: parts of the threads, or CUDA devices [default: 1]
    #[arg(long, value_name = "N")]
    pub(crate) tensor_parallel_size: Option<usize>,
    /// Where the base model runs [default: auto]
    #[arg(long, value_name = "DEVICE")]
    pub(crate) device: Option<DeviceName>,
    /// Rounds the base model's linear layers when they are loaded; adapters stay as they are
    #[arg(long, value_name = "FORMAT")]
    pub(crate) quantize: Option<Quantize>,
    /// How keys and values are kept [default: f32 for a model in f32, else f16]
    #[arg(long, value_name = "FORMAT")]
    pub(crate) kv_cache_dtype: Option<KvCacheDtype>,
    /// How the model writes calls of tools where it is free to call none [default: auto]
    #[arg(long, value_name = "NAME")]
    pub(crate) tool_call_parser: Option<ToolCallParserName>,
    /// Where spans and metrics of requests are sent over OTLP/HTTP, as http://HOST:4318 [default: what
    /// OTEL_EXPORTER_OTLP_ENDPOINT says, else nowhere]
    #[arg(long, value_name = "URL")]
    pub(crate) otlp_endpoint: Option<String>,
    /// Form of log lines on stderr [default: text]
    #[arg(long, value_name = "FORMAT")]
    pub(crate) log_format: Option<LogFormat>,
    /// Limits, each with its unit in its name.
    #[command(flatten)]
    pub(crate) limits: LimitSettings,
}

impl Settings {
    /// These settings where they say something, `lower` where they do not. Adapters and plugins are
    /// merged by name.
    pub(crate) fn over(self, lower: Self) -> Self {
        Self {
            model: self.model.or(lower.model),
            base_name: self.base_name.or(lower.base_name),
            adapter: by_name(self.adapter, lower.adapter, |entry| &entry.name),
            adapter_dir: self.adapter_dir.or(lower.adapter_dir),
            adapter_root: [lower.adapter_root, self.adapter_root].concat(),
            adapter_source: [lower.adapter_source, self.adapter_source].concat(),
            hf_endpoint: self.hf_endpoint.or(lower.hf_endpoint),
            allow_runtime_lora_updating: self
                .allow_runtime_lora_updating
                .or(lower.allow_runtime_lora_updating),
            plugin_dir: self.plugin_dir.or(lower.plugin_dir),
            plugins: by_name(self.plugins, lower.plugins, |entry| &entry.name),
            grant_requested: self.grant_requested.or(lower.grant_requested),
            data_dir: self.data_dir.or(lower.data_dir),
            listen: self.listen.or(lower.listen),
            admin_listen: self.admin_listen.or(lower.admin_listen),
            admin_token_file: self.admin_token_file.or(lower.admin_token_file),
            api_keys_file: self.api_keys_file.or(lower.api_keys_file),
            allow_remote_without_keys: self
                .allow_remote_without_keys
                .or(lower.allow_remote_without_keys),
            threads: self.threads.or(lower.threads),
            tensor_parallel_size: self.tensor_parallel_size.or(lower.tensor_parallel_size),
            device: self.device.or(lower.device),
            quantize: self.quantize.or(lower.quantize),
            kv_cache_dtype: self.kv_cache_dtype.or(lower.kv_cache_dtype),
            tool_call_parser: self.tool_call_parser.or(lower.tool_call_parser),
            otlp_endpoint: self.otlp_endpoint.or(lower.otlp_endpoint),
            log_format: self.log_format.or(lower.log_format),
            limits: self.limits.over(lower.limits),
        }
    }

    /// Reads relative paths as relative to `dir`.
    pub(crate) fn based_on(mut self, dir: &Path) -> Self {
        let single = [
            &mut self.model,
            &mut self.adapter_dir,
            &mut self.plugin_dir,
            &mut self.data_dir,
            &mut self.admin_token_file,
            &mut self.api_keys_file,
        ];
        let adapters = self.adapter.iter_mut().map(|entry| &mut entry.path);
        let adapters = adapters.filter(|path| !path.to_str().is_some_and(Location::is_one));
        let plugins = self.plugins.iter_mut().filter_map(|entry| entry.path.as_mut());
        let paths = single.into_iter().filter_map(Option::as_mut).chain(adapters).chain(plugins);
        let paths = paths.chain(&mut self.adapter_root);
        for path in paths {
            *path = dir.join(&*path);
        }
        self
    }
}

/// All of `lower` in its order, replaced by what `upper` has under the same name, then the rest of
/// `upper`.
fn by_name<T>(upper: Vec<T>, lower: Vec<T>, name: impl Fn(&T) -> &String) -> Vec<T> {
    let mut merged = lower;
    for entry in upper {
        match merged.iter_mut().find(|known| name(known) == name(&entry)) {
            Some(known) => *known = entry,
            None => merged.push(entry),
        }
    }
    merged
}
