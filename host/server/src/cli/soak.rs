//! `mortise bench soak`: clients that behave badly, adapters that change, and what the server still
//! holds afterwards. What is done and how it is judged is the crate `bench`'s affair.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use ::bench::load::{Changes, Length, Mix, Popularity, Sample, Soak, Tokens, soak};
use anyhow::{Context, Result};
use clap::{Args, ValueEnum};

use super::bench::{key_of, runtime};

#[derive(Clone, Copy, Debug, ValueEnum)]
enum MixArg {
    /// Every endpoint, and every way to leave
    Hostile,
    /// Short plain answers that everybody waits for
    Short,
}

#[derive(Debug, Args)]
pub(super) struct SoakArgs {
    /// The server
    #[arg(long)]
    url: String,
    /// Its base model [default: the first of /v1/models]
    #[arg(long)]
    model: Option<String>,
    /// File with its API key
    #[arg(long, value_name = "FILE")]
    api_key_file: Option<PathBuf>,
    #[command(flatten)]
    changes: ChangeArgs,
    #[command(flatten)]
    load: LoadArgs,
    #[command(flatten)]
    limits: LimitArgs,
    /// File for all figures and samples
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

#[derive(Debug, Args)]
struct ChangeArgs {
    /// The adapters' folder on the server's machine: has an operator load, reload and unload its
    /// adapters under other names meanwhile
    #[arg(long, value_name = "DIR")]
    adapter_files: Option<PathBuf>,
    /// Where the operator's changes go [default: --url]
    #[arg(long, value_name = "URL", requires = "adapter_files")]
    admin_url: Option<String>,
    /// File with the admin token [default: that of the API key]
    #[arg(long, value_name = "FILE", requires = "admin_url")]
    admin_token_file: Option<PathBuf>,
    /// Changes per second
    #[arg(long, default_value_t = 4.0, requires = "adapter_files")]
    changes_per_s: f64,
}

#[derive(Debug, Args)]
struct LoadArgs {
    /// Clients at once
    #[arg(long, default_value_t = 96)]
    streams: usize,
    /// Seconds that clients come for
    #[arg(long, default_value_t = 600.0, conflicts_with = "requests")]
    seconds: f64,
    /// Instead: visits
    #[arg(long)]
    requests: Option<u64>,
    /// What clients do
    #[arg(long, value_enum, default_value = "hostile")]
    mix: MixArg,
    /// Adapters by none, same, uniform or zipf:S
    #[arg(long, default_value = "zipf:1")]
    popularity: Popularity,
    /// How many adapters there are
    #[arg(long, default_value_t = 1)]
    adapters: usize,
    /// What their names begin with, before five digits
    #[arg(long, default_value = "adapter-")]
    adapter_prefix: String,
    /// Tokens of a prompt, or a range like 64..256
    #[arg(long, default_value = "1..128")]
    prompt_tokens: Tokens,
    /// Tokens of an answer, or a range
    #[arg(long, default_value = "1..64")]
    output_tokens: Tokens,
    /// Prompts have token ids below this
    #[arg(long, default_value_t = 32_000)]
    vocab: usize,
    /// Decides what everybody does
    #[arg(long, default_value_t = 0)]
    seed: u64,
}

#[derive(Debug, Args)]
struct LimitArgs {
    /// Longest wait for quiet at the end, in seconds
    #[arg(long, default_value_t = 60)]
    quiet_s: u64,
    /// Longest wait for one answer, in seconds
    #[arg(long, default_value_t = 300)]
    timeout_s: u64,
    /// Seconds between two samples of the server's memory
    #[arg(long, default_value_t = 1)]
    sample_s: u64,
    /// Percent that the memory may grow from the middle to the end
    #[arg(long, default_value_t = 5.0)]
    growth_percent_max: f64,
}

impl SoakArgs {
    pub(super) fn run(self) -> Result<ExitCode> {
        let plan = self.plan()?;
        // Every so many samples, about ten in all for who waits.
        let mut next_s = 0.0;
        let step_s = self.load.requests.map_or(self.load.seconds / 10.0, |_| 10.0);
        let told = |sample: &Sample| {
            if sample.at_s >= next_s {
                eprintln!("{sample}");
                next_s = sample.at_s + step_s;
            }
        };
        let report = runtime()?.block_on(soak(&plan, told))?;
        print!("{report}");
        if let Some(path) = &self.json {
            let written = std::fs::write(path, report.json());
            written.with_context(|| format!("write {}", path.display()))?;
        }
        Ok(if report.clean { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }

    fn plan(&self) -> Result<Soak> {
        let Self { load, limits, changes, .. } = self;
        let api_key = key_of(self.api_key_file.as_deref())?;
        let token = key_of(changes.admin_token_file.as_deref())?.or_else(|| api_key.clone());
        let changes = changes.adapter_files.as_ref().map(|files| Changes {
            url: changes.admin_url.clone().unwrap_or_else(|| self.url.clone()),
            token,
            files: files.clone(),
            per_s: changes.changes_per_s,
        });
        let length = match load.requests {
            Some(requests) => Length::Requests(requests),
            None => Length::Time(Duration::try_from_secs_f64(load.seconds).context("seconds")?),
        };
        Ok(Soak {
            url: self.url.clone(),
            api_key,
            model: self.model.clone(),
            streams: load.streams,
            length,
            mix: match load.mix {
                MixArg::Hostile => Mix::Hostile,
                MixArg::Short => Mix::Short,
            },
            prompt_tokens: load.prompt_tokens,
            output_tokens: load.output_tokens,
            vocab: load.vocab,
            adapters: load.adapters,
            adapter_prefix: load.adapter_prefix.clone(),
            popularity: load.popularity,
            changes,
            sample: Duration::from_secs(limits.sample_s),
            quiet: Duration::from_secs(limits.quiet_s),
            timeout: Duration::from_secs(limits.timeout_s),
            growth_max: limits.growth_percent_max / 100.0,
            seed: load.seed,
        })
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        soak: SoakArgs,
    }

    #[test]
    fn flags_become_a_soak() {
        let dir = tempfile::tempdir().expect("folder");
        let token = dir.path().join("token");
        std::fs::write(&token, "secret\n").expect("written");
        let plan = |line: &str| {
            let words = std::iter::once("x").chain(line.split_whitespace());
            Cli::try_parse_from(words).map(|cli| cli.soak.plan().expect(line))
        };
        let found = plan(&format!(
            "--url http://a --adapter-files zoo --admin-url http://b --admin-token-file {} \
             --requests 7 --mix short --growth-percent-max 2",
            token.display()
        ));
        let found = found.unwrap_or_else(|error| panic!("{error}"));
        assert_eq!((found.length, found.mix), (Length::Requests(7), Mix::Short));
        assert_eq!((found.growth_max, found.api_key), (0.02, None));
        let changes = found.changes.expect("an operator");
        assert_eq!((changes.url.as_str(), changes.token.as_deref()), ("http://b", Some("secret")));
        assert_eq!((changes.files, changes.per_s), (PathBuf::from("zoo"), 4.0));
        let calm = plan("--url http://a --seconds 1.5").unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(calm.length, Length::Time(Duration::from_millis(1500)));
        assert!(calm.changes.is_none());
        for line in
            ["", "--url http://a --admin-url http://b", "--url http://a --seconds 1 --requests 1"]
        {
            assert!(plan(line).is_err(), "{line}");
        }
    }
}
