//! `mortise bench`: models and adapters to measure with, and servers measured over HTTP. What is made
//! and how it is measured is the crate `bench`'s affair.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use ::bench::load::{
    Arrivals, Comparison, Dialect, Endpoint, Length, Popularity, PromptForm, Target, Tokens,
    Workload, compare, scenarios,
};
use ::bench::reading::measure_reads;
use ::bench::report::Report;
use ::bench::shapes::{
    AdapterPlan, Dtype, MadeAdapters, Shape, TARGETS, make_adapters, make_model,
};
use anyhow::{Context, Result};
use clap::{Args, Subcommand, ValueEnum};
use serde_json::{Map, Value};

use super::soak::SoakArgs;

/// Threads that send and read: few, since servers under test often share the machine.
const WORKERS: usize = 2;

#[derive(Debug, Subcommand)]
pub(super) enum BenchCommand {
    /// Makes what can be measured with
    #[command(subcommand)]
    Make(MakeCommand),
    /// Measures a server, or two by turns
    Run(Box<RunArgs>),
    /// Drives a server with clients that behave badly, and looks at what it holds afterwards; fails
    /// if it holds anything, if its memory grows, or if anything failed that no client asked for
    Soak(Box<SoakArgs>),
}

#[derive(Debug, Subcommand)]
pub(super) enum MakeCommand {
    /// Makes a Hugging Face directory of a Llama with random weights
    Model {
        /// tiny-100m, llama-1b, llama-8b, or a model's directory to take the sizes of
        shape: String,
        /// The directory
        dir: PathBuf,
        /// How weights are stored
        #[arg(long, value_enum, default_value = "bf16")]
        dtype: DtypeArg,
        /// Decides the weights
        #[arg(long, default_value_t = 0)]
        seed: u64,
    },
    /// Makes PEFT directories adapter-00000 and on, each with other weights
    Adapters {
        /// The model's shape, as for `model`
        shape: String,
        /// Where the directories go
        dir: PathBuf,
        /// How many
        #[arg(long, alias = "adapters")]
        count: usize,
        /// Weights files of their own; those behind so many have hard links to them, and a
        /// `lora_alpha` of their own [default: all]
        #[arg(long)]
        distinct: Option<usize>,
        /// Their rank
        #[arg(long, default_value_t = 16)]
        rank: usize,
        /// Which linear modules they adapt [default: all seven]
        #[arg(long, value_delimiter = ',')]
        targets: Vec<String>,
        /// How weights are stored
        #[arg(long, value_enum, default_value = "f16")]
        dtype: DtypeArg,
        /// Decides the weights
        #[arg(long, default_value_t = 0)]
        seed: u64,
    },
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(super) enum DtypeArg {
    Bf16,
    F16,
    F32,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum DialectArg {
    /// Each adapter is a model
    Openai,
    /// The field `lora`, with numbers in the order of llama-server's command line
    LlamaServer,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum PromptFormArg {
    /// Token ids
    Ids,
    /// Words that are one token each to made models
    Text,
}

#[derive(Debug, Args)]
pub(super) struct RunArgs {
    #[command(flatten)]
    ours: OursArgs,
    #[command(flatten)]
    peer: PeerArgs,
    #[command(flatten)]
    load: LoadArgs,
    #[command(flatten)]
    length: LengthArgs,
    #[command(flatten)]
    files: FilesArgs,
    /// File for all figures
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// File for a page with charts
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
}

#[derive(Debug, Args)]
struct OursArgs {
    /// The server
    #[arg(long)]
    url: String,
    /// Its name in reports
    #[arg(long, default_value = "mortise")]
    label: String,
    /// Its base model [default: the first of /v1/models]
    #[arg(long)]
    model: Option<String>,
    /// File with its API key
    #[arg(long, value_name = "FILE")]
    api_key_file: Option<PathBuf>,
    /// How it is told the adapter
    #[arg(long, value_enum, default_value = "openai")]
    adapter_by: DialectArg,
    /// More fields of every request, as a JSON object
    #[arg(long, value_parser = object, default_value = "{}")]
    body: Map<String, Value>,
}

#[derive(Debug, Args)]
struct PeerArgs {
    /// Another server, measured by turns with the first
    #[arg(long = "peer", value_name = "URL")]
    peer_url: Option<String>,
    /// Its name in reports
    #[arg(long, default_value = "peer", requires = "peer_url")]
    peer_label: String,
    /// Its base model [default: the first of /v1/models]
    #[arg(long, requires = "peer_url")]
    peer_model: Option<String>,
    /// File with its API key
    #[arg(long, value_name = "FILE", requires = "peer_url")]
    peer_api_key_file: Option<PathBuf>,
    /// How it is told the adapter
    #[arg(long, value_enum, default_value = "openai", requires = "peer_url")]
    peer_adapters: DialectArg,
    /// More fields of every request, as a JSON object
    #[arg(long, value_parser = object, default_value = "{}", requires = "peer_url")]
    peer_body: Map<String, Value>,
}

#[derive(Debug, Args)]
struct LoadArgs {
    /// Streams that each send a request when their last is answered; several make several rows
    #[arg(long, value_delimiter = ',', default_value = "8", conflicts_with = "rate")]
    concurrency: Vec<usize>,
    /// Instead: mean requests per second of Poisson arrivals
    #[arg(long, value_delimiter = ',')]
    rate: Vec<f64>,
    /// Most requests that wait at once with --rate; more are counted as failed
    #[arg(long, default_value_t = 1024)]
    in_flight_max: usize,
    /// Adapters by none, distinct (each stream its own), same, uniform or zipf:S; several make
    /// several rows
    #[arg(long, value_delimiter = ',', default_value = "none")]
    popularity: Vec<Popularity>,
    /// How many adapters there are
    #[arg(long, default_value_t = 1)]
    adapters: usize,
    /// What their names begin with, before five digits
    #[arg(long, default_value = "adapter-")]
    adapter_prefix: String,
    /// Tokens of a prompt, or a range like 64..256
    #[arg(long, default_value = "128")]
    prompt_tokens: Tokens,
    /// Tokens of an answer, or a range
    #[arg(long, default_value = "128")]
    output_tokens: Tokens,
    /// How prompts are sent
    #[arg(long, value_enum, default_value = "ids")]
    prompt_form: PromptFormArg,
    /// Prompts have token ids below this
    #[arg(long, default_value_t = 32_000)]
    vocab: usize,
    /// Drives /v1/chat/completions instead of /v1/completions
    #[arg(long)]
    chat: bool,
    /// Lets answers end at an end token
    #[arg(long)]
    respect_eos: bool,
}

#[derive(Debug, Args)]
struct LengthArgs {
    /// Seconds of a measurement
    #[arg(long, default_value_t = 30.0, conflicts_with = "requests")]
    seconds: f64,
    /// Instead: requests of a measurement
    #[arg(long)]
    requests: Option<u64>,
    /// Requests before the first measurement of a row [default: as many as streams]
    #[arg(long)]
    warmup: Option<u64>,
    /// Measurements of each server in each row; their medians are reported
    #[arg(long, default_value_t = 1)]
    repeat: usize,
    /// Longest wait for one answer, in seconds
    #[arg(long, default_value_t = 600)]
    timeout_s: u64,
    /// Decides prompts, adapters and arrivals
    #[arg(long, default_value_t = 0)]
    seed: u64,
}

#[derive(Debug, Args)]
struct FilesArgs {
    /// The adapters' folder on this machine: has some of its files read at the end, to compare cold
    /// loads with
    #[arg(long, value_name = "DIR")]
    adapter_files: Option<PathBuf>,
    /// Files that are read for that
    #[arg(long, default_value_t = 64, requires = "adapter_files")]
    adapter_files_read: usize,
    /// Asks the system to forget all of them before each measurement: cold loads then read the disk
    #[arg(long, requires = "adapter_files")]
    forget_files: bool,
}

impl BenchCommand {
    pub(super) fn run(self) -> Result<ExitCode> {
        match self {
            Self::Make(command) => command.run()?,
            Self::Run(args) => args.run()?,
            Self::Soak(args) => return args.run(),
        }
        Ok(ExitCode::SUCCESS)
    }
}

impl MakeCommand {
    fn run(self) -> Result<()> {
        match self {
            Self::Model { shape, dir, dtype, seed } => {
                make_model(&Shape::of(&shape)?, &dir, dtype.into(), seed)?;
                println!("{}", dir.display());
            }
            Self::Adapters { shape, dir, count, distinct, rank, mut targets, dtype, seed } => {
                if targets.is_empty() {
                    targets = TARGETS.map(str::to_owned).to_vec();
                }
                let (dtype, distinct) = (dtype.into(), distinct.unwrap_or(count));
                let plan = AdapterPlan { count, distinct, rank, targets, dtype, seed };
                let made = make_adapters(&Shape::of(&shape)?, &dir, &plan)?;
                println!("{}", told(&made, &dir));
            }
        }
        Ok(())
    }
}

/// What was made, and what is no file of its own.
fn told(made: &MadeAdapters, dir: &Path) -> String {
    let MadeAdapters { count, links, file_bytes } = *made;
    let megabytes = file_bytes as f64 / 1e6;
    let told = format!("{count} adapters of {megabytes:.1} MB in {}", dir.display());
    if links == 0 {
        return told;
    }
    format!(
        "{told}; the weights of {links} are hard links to those of the first {}: a server holds each \
         adapter for itself, since each has a lora_alpha of its own, but the disk and the page cache \
         hold {:.2} GB instead of {:.2}",
        count - links,
        (count - links) as f64 * megabytes / 1e3,
        count as f64 * megabytes / 1e3,
    )
}

impl RunArgs {
    fn run(self) -> Result<()> {
        let started = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let comparison = self.comparison()?;
        let results =
            runtime()?.block_on(compare(&comparison, |progress| eprintln!("{progress}")))?;
        let reads = self
            .files
            .adapter_files
            .as_deref()
            .map(|dir| measure_reads(dir, self.files.adapter_files_read, self.length.seed));
        let report = Report::new(started, command_line(), results).with_reads(reads.transpose()?);
        print!("{}", report.table());
        report.save(self.json.as_deref(), self.html.as_deref())?;
        Ok(())
    }

    fn comparison(&self) -> Result<Comparison> {
        let load = &self.load;
        let workload = Workload {
            prompt_tokens: load.prompt_tokens,
            output_tokens: load.output_tokens,
            form: load.prompt_form.into(),
            vocab: load.vocab,
            adapters: load.adapters,
            popularity: Popularity::None,
        };
        let length = &self.length;
        let streams = load.concurrency.iter().max().copied().unwrap_or_default();
        let measured = match length.requests {
            Some(requests) => Length::Requests(requests),
            None => Length::Time(Duration::try_from_secs_f64(length.seconds).context("seconds")?),
        };
        Ok(Comparison {
            targets: self.targets()?,
            scenarios: scenarios(&load.arrivals(), &load.popularity, &workload),
            length: measured,
            warmup: length.warmup.unwrap_or(streams as u64),
            repeats: length.repeat,
            timeout: Duration::from_secs(length.timeout_s),
            seed: length.seed,
            forget: self.files.adapter_files.clone().filter(|_| self.files.forget_files),
        })
    }

    fn targets(&self) -> Result<Vec<Target>> {
        let (ours, peer, load) = (&self.ours, &self.peer, &self.load);
        let target = |(url, label): (&str, &str), adapter_by: DialectArg, key: &Option<PathBuf>| {
            anyhow::Ok(Target {
                label: label.to_owned(),
                url: url.to_owned(),
                model: None,
                api_key: key_of(key.as_deref())?,
                dialect: adapter_by.dialect(&load.adapter_prefix),
                endpoint: if load.chat { Endpoint::Chat } else { Endpoint::Completions },
                ignore_eos: !load.respect_eos,
                body: Map::new(),
            })
        };
        let first = target((&ours.url, &ours.label), ours.adapter_by, &ours.api_key_file)?;
        let mut targets =
            vec![Target { model: ours.model.clone(), body: ours.body.clone(), ..first }];
        if let Some(url) = &peer.peer_url {
            let name = (url.as_str(), peer.peer_label.as_str());
            let second = target(name, peer.peer_adapters, &peer.peer_api_key_file)?;
            let (model, body) = (peer.peer_model.clone(), peer.peer_body.clone());
            targets.push(Target { model, body, ..second });
        }
        Ok(targets)
    }
}

impl LoadArgs {
    fn arrivals(&self) -> Vec<Arrivals> {
        if self.rate.is_empty() {
            return self
                .concurrency
                .iter()
                .map(|streams| Arrivals::Closed { streams: *streams })
                .collect();
        }
        let in_flight_max = self.in_flight_max;
        self.rate.iter().map(|rate| Arrivals::Open { rate_per_s: *rate, in_flight_max }).collect()
    }
}

impl DialectArg {
    fn dialect(self, prefix: &str) -> Dialect {
        match self {
            Self::Openai => Dialect::OpenAi { prefix: prefix.to_owned() },
            Self::LlamaServer => Dialect::LlamaServer,
        }
    }
}

impl From<DtypeArg> for Dtype {
    fn from(dtype: DtypeArg) -> Self {
        match dtype {
            DtypeArg::Bf16 => Self::Bf16,
            DtypeArg::F16 => Self::F16,
            DtypeArg::F32 => Self::F32,
        }
    }
}

impl From<PromptFormArg> for PromptForm {
    fn from(form: PromptFormArg) -> Self {
        match form {
            PromptFormArg::Ids => Self::Ids,
            PromptFormArg::Text => Self::Text,
        }
    }
}

/// Threads that send and read.
pub(super) fn runtime() -> Result<tokio::runtime::Runtime> {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    builder.worker_threads(WORKERS).enable_all().build().context("start the runtime")
}

/// What a file with a secret holds.
pub(super) fn key_of(path: Option<&Path>) -> Result<Option<String>> {
    let read = |path: &Path| {
        let text = std::fs::read_to_string(path);
        let text = text.with_context(|| format!("read {}", path.display()))?;
        Ok(text.trim().to_owned())
    };
    path.map(read).transpose()
}

fn object(text: &str) -> Result<Map<String, Value>, String> {
    serde_json::from_str(text).map_err(|error| error.to_string())
}

/// What was typed, so that a report says how it was made.
fn command_line() -> String {
    let plain = |word: &str| {
        !word.is_empty()
            && word.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_./:=,".contains(&b))
    };
    let quote = |word: String| {
        if plain(&word) { word } else { format!("'{}'", word.replace('\'', r"'\''")) }
    };
    std::env::args().map(quote).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        run: RunArgs,
    }

    fn comparison(line: &str) -> Comparison {
        let words = std::iter::once("x").chain(line.split_whitespace());
        let cli = Cli::try_parse_from(words).unwrap_or_else(|error| panic!("{line}: {error}"));
        cli.run.comparison().expect(line)
    }

    #[test]
    fn flags_become_a_comparison() {
        let dir = tempfile::tempdir().expect("folder");
        let key = dir.path().join("key");
        std::fs::write(&key, "secret\n").expect("written");
        let found = comparison(&format!(
            "--url http://a --concurrency 1,4 --popularity none,zipf:1.5 --adapters 7 --requests 9 \
             --peer http://b --peer-adapters llama-server --peer-body {{\"n\":1}} \
             --peer-api-key-file {} --repeat 3 --prompt-tokens 5..6 --prompt-form text --chat",
            key.display()
        ));
        let names: Vec<&str> = found.scenarios.iter().map(|one| one.name.as_str()).collect();
        assert_eq!(
            names,
            ["1 stream, none", "1 stream, zipf:1.5", "4 streams, none", "4 streams, zipf:1.5"]
        );
        assert_eq!((found.length, found.warmup, found.repeats), (Length::Requests(9), 4, 3));
        let workload = &found.scenarios[1].workload;
        assert_eq!((workload.adapters, workload.form), (7, PromptForm::Text));
        assert_eq!(workload.prompt_tokens, Tokens { min: 5, max: 6 });
        let [ours, peer] = found.targets.as_slice() else { panic!("two") };
        assert_eq!(ours.dialect, Dialect::OpenAi { prefix: "adapter-".to_owned() });
        assert_eq!((ours.api_key.as_deref(), ours.ignore_eos), (None, true));
        assert_eq!(peer.dialect, Dialect::LlamaServer);
        assert_eq!((peer.api_key.as_deref(), peer.endpoint), (Some("secret"), Endpoint::Chat));
        assert_eq!(peer.body["n"], 1);
    }

    #[test]
    fn an_open_loop_is_chosen_by_its_rate() {
        let found = comparison("--url http://a --rate 0.5,2 --in-flight-max 3 --seconds 1.5");
        let open = |rate_per_s| Arrivals::Open { rate_per_s, in_flight_max: 3 };
        let arrivals: Vec<Arrivals> = found.scenarios.iter().map(|one| one.arrivals).collect();
        assert_eq!(arrivals, [open(0.5), open(2.0)]);
        assert_eq!(found.length, Length::Time(Duration::from_millis(1500)));
        assert_eq!(found.forget, None);
        assert_eq!(comparison("--url http://a --adapter-files zoo").forget, None);
        let forget = comparison("--url http://a --adapter-files zoo --forget-files").forget;
        assert_eq!(forget, Some(PathBuf::from("zoo")));
        let refused = |line: &str| {
            let words = std::iter::once("x").chain(line.split_whitespace());
            assert!(Cli::try_parse_from(words).is_err(), "{line}");
        };
        refused("--url http://a --rate 1 --concurrency 2");
        refused("--url http://a --seconds 1 --requests 2");
        refused("--url http://a --peer-model m");
        refused("--url http://a --body [1]");
        refused("--url http://a --forget-files");
    }
}
