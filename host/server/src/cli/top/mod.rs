//! `mortise top`: a running server at a glance, from its `/metrics` and `/admin/usage`. Changes nothing
//! there.

mod exposition;
mod frame;

use std::io::{IsTerminal, Write};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use clap::Args;
use reqwest::Method;
use serde_json::Value;

use super::admin::AdminArgs;
use crate::client::AdminClient;
use crate::config::LISTEN;
use exposition::Exposition;
use frame::View;

/// Longest wait for an answer of the server.
const ANSWER_MAX: Duration = Duration::from_secs(10);
/// Most bytes of `/metrics` that are read.
const METRICS_BYTES_MAX: usize = 16 << 20;
/// A metric that every server of ours has.
const KNOWN: &str = "vllm:num_requests_running";
/// The terminal's other screen, and back.
const ENTER: &str = "\x1b[?1049h\x1b[?25l";
const LEAVE: &str = "\x1b[?25h\x1b[?1049l";
/// To the upper left corner; what is behind a line, and below the last, goes.
const HOME: &str = "\x1b[H";
const CLEAR_LINE: &str = "\x1b[K";
const CLEAR_BELOW: &str = "\x1b[J";

/// What to look at, and how often.
#[derive(Debug, Args)]
pub(super) struct TopArgs {
    /// The server's public API [default: http://127.0.0.1:8080]
    #[arg(long, value_name = "URL")]
    url: Option<String>,
    #[command(flatten)]
    server: AdminArgs,
    /// Seconds between frames
    #[arg(long, value_name = "SECONDS", default_value_t = 2.0, value_parser = interval)]
    interval: f64,
    /// Most adapters that are shown
    #[arg(long, value_name = "N", default_value_t = 20)]
    rows: usize,
    /// Prints one frame, of one interval, and ends
    #[arg(long)]
    once: bool,
}

fn interval(text: &str) -> Result<f64, String> {
    let seconds: f64 = text.parse().map_err(|error| format!("{error}"))?;
    match (0.05..=3600.0).contains(&seconds) {
        true => Ok(seconds),
        false => Err("not between 0.05 and 3600".to_owned()),
    }
}

/// A look at the server.
struct Look {
    at: Instant,
    metrics: Exposition,
    used: Value,
}

/// Where to look.
struct Source {
    http: reqwest::Client,
    url: String,
    admin: AdminClient,
}

impl TopArgs {
    pub(super) fn run(self) -> Result<ExitCode> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.context("start the runtime")?.block_on(self.watch())?;
        Ok(ExitCode::SUCCESS)
    }

    async fn watch(self) -> Result<()> {
        let http = reqwest::Client::builder().no_proxy().timeout(ANSWER_MAX).build();
        let url = self.url.clone().unwrap_or_else(|| format!("http://{LISTEN}"));
        let url = url.trim_end_matches('/').to_owned();
        let source =
            Source { http: http.context("start the client")?, url, admin: self.server.client()? };
        let mut before = source.look().await?;
        let on_screen = !self.once && std::io::stdout().is_terminal();
        // Put back however this ends.
        let _screen = on_screen.then(Screen::enter).transpose()?;
        loop {
            tokio::select! {
                () = tokio::time::sleep(Duration::from_secs_f64(self.interval)) => {}
                _ = tokio::signal::ctrl_c() => return Ok(()),
            }
            let now = source.look().await?;
            let view = View {
                url: &source.url,
                before: &before.metrics,
                now: &now.metrics,
                used_before: &before.used,
                used: &now.used,
                seconds: (now.at - before.at).as_secs_f64(),
                rows: self.rows,
            };
            show(&view.text(), on_screen)?;
            if self.once {
                return Ok(());
            }
            before = now;
        }
    }
}

impl Source {
    async fn look(&self) -> Result<Look> {
        let url = format!("{}/metrics", self.url);
        let named = || format!("call {url}; is the server running?");
        let mut answer = self.http.get(&url).send().await.with_context(named)?;
        if !answer.status().is_success() {
            bail!("{url} answered {}", answer.status());
        }
        let mut text = Vec::new();
        while let Some(chunk) = answer.chunk().await.with_context(|| format!("read {url}"))? {
            text.extend_from_slice(&chunk);
            if text.len() > METRICS_BYTES_MAX {
                bail!("{url} has more than {METRICS_BYTES_MAX} bytes");
            }
        }
        let metrics = Exposition::parse(&String::from_utf8_lossy(&text));
        if !metrics.has(KNOWN) {
            bail!("{url} is not a server's: it has no {KNOWN}");
        }
        let at = Instant::now();
        let used = self.admin.call(Method::GET, "/admin/usage", None).await?;
        Ok(Look { at, metrics, used })
    }
}

fn show(text: &str, on_screen: bool) -> Result<()> {
    let mut out = std::io::stdout().lock();
    let text = match on_screen {
        true => format!("{HOME}{}{CLEAR_BELOW}", text.replace('\n', &format!("{CLEAR_LINE}\n"))),
        false => text.to_owned(),
    };
    out.write_all(text.as_bytes()).and_then(|()| out.flush()).context("write to stdout")
}

/// The other screen, while this lives.
struct Screen;

impl Screen {
    fn enter() -> Result<Self> {
        write!(std::io::stdout(), "{ENTER}").context("write to stdout")?;
        Ok(Self)
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        // Nobody is there to be told.
        let _ = write!(std::io::stdout(), "{LEAVE}");
        let _ = std::io::stdout().flush();
    }
}
