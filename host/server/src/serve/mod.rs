//! A server from its configuration to its exit: two listeners, signals, the drain.
//!
//! Parts: [`listener`] (connections, bounded and in time), [`drain`] (the end). Builds nothing itself:
//! see `assemble`.

mod drain;
pub(crate) mod listener;

use std::io::Write;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail};
use tokenization::ChatTemplate;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::Notify;

use crate::admin::{self, AdminState, UsageSource};
use crate::assemble::{self, Parts, token};
use crate::config::Config;
use crate::http::{self, HttpLimits, Keys, PublicState};
use crate::telemetry::{Endpoints, Telemetry};
use listener::Listener;

/// Most connections to the admin API.
const ADMIN_CONNECTIONS_MAX: usize = 64;
/// What a process that a second signal stops exits with.
const EXIT_INTERRUPTED: i32 = 130;

/// What the caller may print once the server is ready.
pub(crate) struct Ready {
    /// Address of the public listener.
    pub(crate) public: SocketAddr,
    /// Address of the admin listener.
    pub(crate) admin: SocketAddr,
}

/// Serves until told to stop.
///
/// # Errors
/// Something could not be loaded or bound, or the engine ended.
pub(crate) fn run(config: Config, ready: impl FnOnce(&Ready)) -> Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let runtime = runtime.context("start the runtime")?;
    let code = runtime.block_on(serve(config, ready));
    // A plugin that is being compiled for a request that has gone need not be waited for.
    runtime.shutdown_background();
    code
}

async fn serve(config: Config, ready: impl FnOnce(&Ready)) -> Result<ExitCode> {
    let keys = config.api_keys_file.as_deref().map(Keys::from_file).transpose()?.map(Arc::new);
    let endpoints =
        Endpoints::resolve(config.otlp_endpoint.as_deref(), |name| std::env::var(name).ok())?;
    let telemetry = endpoints.as_ref().map(Telemetry::start).transpose()?;
    let limits = &config.limits;
    let public = Listener::bind(config.listen, limits.connections_max).await?;
    let admin = Listener::bind(config.admin_listen, ADMIN_CONNECTIONS_MAX).await?;
    let mut signals = Signals::new()?;
    let (config, parts, token) = tokio::select! {
        built = build(config) => built?,
        () = signals.next() => {
            tracing::info!("told to stop by a signal before anything was served");
            return Ok(ExitCode::SUCCESS);
        }
    };

    let draining = Arc::new(AtomicBool::new(false));
    let drain_asked = Arc::new(Notify::new());
    let http_limits = HttpLimits {
        body_bytes_max: config.limits.body_bytes_max,
        body_read_s_max: config.limits.body_read_s_max,
        prompts_max: config.limits.prompts_max,
    };
    let by_template = parts.pipeline.chat_template().and_then(ChatTemplate::tool_call_format);
    let public_routes = http::router(PublicState {
        pipeline: parts.pipeline.clone(),
        engine: parts.engine.clone(),
        ledger: Arc::clone(&parts.ledger),
        keys,
        limits: http_limits,
        metrics: Arc::clone(&parts.metrics),
        adapters: Arc::clone(&parts.adapters),
        runtime_adapters: config.runtime_adapters,
        tool_calls: config.tool_call_parser.format(by_template),
        telemetry: telemetry.clone(),
        draining: Arc::clone(&draining),
    });
    let admin_routes = admin::router(AdminState {
        adapters: Arc::clone(&parts.adapters),
        plugins: Arc::clone(&parts.plugins),
        usage: UsageSource {
            book: Arc::clone(parts.pipeline.usage()),
            base_name: config.base_name.as_str().into(),
            since: SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs(),
        },
        token: Arc::new(token),
        limits: http_limits,
        drain: Arc::clone(&drain_asked),
    });
    let addresses = Ready { public: public.address()?, admin: admin.address()? };
    let public = public.serve(public_routes);
    let admin = admin.serve(admin_routes);
    announce(&addresses)?;
    ready(&addresses);

    tokio::select! {
        () = parts.engine.ended() => bail!("the engine has stopped; see the log for its reason"),
        () = signals.next() => tracing::info!("told to stop by a signal"),
        () = drain_asked.notified() => {}
    }
    tokio::spawn(async move {
        signals.next().await;
        tracing::warn!("told to stop a second time");
        std::process::exit(EXIT_INTERRUPTED);
    });
    let code = drain::run(&parts, &draining, [public, admin], config.limits.drain_s_max).await;
    if let Some(telemetry) = telemetry {
        telemetry.shutdown().await;
    }
    code
}

/// Loads everything, away from the threads that will serve.
async fn build(config: Config) -> Result<(Config, Parts, token::Token)> {
    let work = move || {
        assemble::create_dir(&config.data_dir)?;
        let (token, path) = token::load(config.admin_token_file.as_deref(), &config.data_dir)?;
        tracing::info!(path = %path.display(), "admin token");
        let ledger = assemble::open_ledger(&config)?;
        let parts = assemble::assemble(&config, ledger)?;
        Ok((config, parts, token))
    };
    tokio::task::spawn_blocking(work).await.context("load")?
}

/// The two lines that scripts wait for.
fn announce(ready: &Ready) -> Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "listening on http://{}", ready.public)
        .and_then(|()| writeln!(out, "admin on http://{}", ready.admin))
        .and_then(|()| out.flush())
        .context("write to stdout")
}

/// SIGTERM and SIGINT.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn new() -> Result<Self> {
        let handle = |kind| signal(kind).context("handle signals");
        let terminate = handle(SignalKind::terminate())?;
        Ok(Self { terminate, interrupt: handle(SignalKind::interrupt())? })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}
