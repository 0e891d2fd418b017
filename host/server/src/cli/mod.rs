//! The command line. Every command is one function that returns its exit code or an error that is
//! printed whole.

mod admin;
mod bench;
mod demo;
mod key;
mod plugin;
mod receipt;
mod soak;
mod top;

use std::io::IsTerminal;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::{Args, Parser, Subcommand};
use tracing_subscriber::EnvFilter;

use crate::config::{self, Config, LogFormat, Settings};
use crate::serve;

/// One base model, many LoRA adapters, sandboxed plugins, and credits to the data behind each answer.
#[derive(Debug, Parser)]
#[command(name = "mortise", version)]
pub(crate) struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serves a model
    Serve(ServeArgs),
    /// Serves the shipped model, adapters and plugins
    Demo(demo::DemoArgs),
    /// Loads, unloads and lists adapters of a running server
    #[command(subcommand)]
    Adapter(admin::AdapterCommand),
    /// Installs, swaps and lists plugins of a running server; writes and builds new ones
    #[command(subcommand)]
    Plugin(plugin::PluginCommand),
    /// Checks receipts without a server
    #[command(subcommand)]
    Receipt(receipt::ReceiptCommand),
    /// Makes API keys
    #[command(subcommand)]
    Key(key::KeyCommand),
    /// Makes models and adapters, and measures servers
    #[command(subcommand)]
    Bench(bench::BenchCommand),
    /// Shows what a running server does
    Top(top::TopArgs),
    /// Lets a running server finish its requests and end
    Drain(admin::AdminArgs),
}

#[derive(Debug, Args)]
struct ServeArgs {
    /// Configuration file in TOML; every key of it is also a flag, and flags win
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(flatten)]
    settings: Settings,
}

impl Cli {
    /// Does what was asked.
    ///
    /// # Errors
    /// Whatever went wrong, with its causes.
    pub(crate) fn run(self) -> Result<ExitCode> {
        match self.command {
            Command::Serve(args) => args.run(),
            Command::Demo(args) => args.run(),
            Command::Adapter(command) => command.run(),
            Command::Plugin(command) => command.run(),
            Command::Receipt(command) => command.run(),
            Command::Key(command) => command.run(),
            Command::Bench(command) => command.run(),
            Command::Top(args) => args.run(),
            Command::Drain(args) => admin::drain(&args),
        }
    }
}

impl ServeArgs {
    fn run(self) -> Result<ExitCode> {
        let settings = match &self.config {
            Some(path) => self.settings.over(config::read(path)?),
            None => self.settings,
        };
        start(settings, |_| ())
    }
}

/// Checks the settings and serves.
fn start(settings: Settings, ready: impl FnOnce(&serve::Ready)) -> Result<ExitCode> {
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    let config = Config::resolve(settings, processors)?;
    log_to_stderr(config.log_format);
    serve::run(config, ready)
}

/// `RUST_LOG` chooses what is logged; without it, what operators need.
fn log_to_stderr(format: LogFormat) {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    let colours = std::io::stderr().is_terminal();
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    let builder = builder.with_ansi(colours);
    match format {
        LogFormat::Text => builder.init(),
        LogFormat::Json => builder.json().init(),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_command_parses() {
        for line in [
            "serve --config f.toml",
            "serve --model m --adapter a=x --adapter b=y --queue-max 3 --grant-requested",
            "demo --listen 127.0.0.1:0",
            "adapter load name dir",
            "adapter unload name --admin http://h:1 --token-file t",
            "adapter list",
            "adapter scan",
            "plugin install dir",
            "plugin activate mask@0.1.0",
            "plugin rollback mask",
            "plugin deactivate mask",
            "plugin list",
            "plugin new router my-router --dir d --sdk ../sdk",
            "plugin build a b --out o",
            "receipt verify data",
            "receipt check file.json",
            "key new acme",
            "bench make model tiny-100m dir --dtype f16 --seed 3",
            "bench make adapters llama-1b dir --count 9 --rank 8 --targets q_proj,v_proj",
            "bench run --url http://h:1 --concurrency 1,8 --popularity none,zipf:1 --adapters 9",
            "bench soak --url http://h:1 --seconds 60 --adapter-files zoo --adapters 9",
            "bench run --url http://h:1 --rate 2.5 --requests 10 --prompt-tokens 64..256",
            "bench run --url http://h:1 --peer http://h:2 --peer-adapters llama-server --repeat 5",
            "top --url http://h:1 --admin http://h:2 --interval 0.5 --rows 5 --once",
            "drain",
        ] {
            let words = std::iter::once("mortise").chain(line.split_whitespace());
            if let Err(error) = Cli::try_parse_from(words) {
                panic!("{line}: {error}");
            }
        }
        assert!(Cli::try_parse_from(["mortise", "serve", "--queue-maxx", "3"]).is_err());
    }
}
