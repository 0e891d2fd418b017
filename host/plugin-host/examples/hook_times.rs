//! Measures what a hook costs: a fresh instance per call, and a chunk on an open stream.
//!
//! `cargo run --release -p plugin-host --example hook_times`

#![allow(clippy::unwrap_used, reason = "a measurement")]

#[path = "../tests/hostile/guests.rs"]
#[allow(dead_code, reason = "shared with the tests")]
mod guests;

use std::time::{Duration, Instant};

use guests::{Guest, TEXT, action};
use plugin_host::{
    Candidate, Capabilities, HostConfig, Plugin, PluginHost, PluginKind, RequestInfo, SamplingView,
};
use request::{Message, Role};

fn main() {
    let dir = tempfile::tempdir().unwrap();
    let host = PluginHost::new(HostConfig::default(), Capabilities::default()).unwrap();
    let activate = |guest: &Guest| {
        let begun = Instant::now();
        host.install(&guest.write(dir.path())).unwrap();
        host.activate(&guest.name, None).unwrap();
        println!("{:32} {:>10.1} ms", format!("install {}", guest.kind), millis(begun.elapsed()));
    };
    activate(&Guest::new(PluginKind::Router));
    activate(&Guest::new(PluginKind::Preprocessor));
    activate(&Guest::new(PluginKind::Postprocessor).text("***").hook("push", action(2, TEXT, 3)));
    let chain = host.chain();
    let info = RequestInfo {
        id: "chatcmpl-0123456789abcdef0123456789abcdef".into(),
        tenant: "default".into(),
        endpoint: "chat".into(),
        model: "auto".into(),
        adapter: None,
        streaming: true,
    };
    let router = chain.router().unwrap();
    let candidates = [Candidate { model: "base".into(), is_adapter: false }];
    measure("route, fresh, nothing to read", 5_000, || {
        router.route(&info, &[], &candidates).unwrap();
    });
    let text = "All work and no play makes Jack a dull boy. ".repeat(9);
    let messages = vec![Message::new(Role::User, text); 8];
    let preprocessor = &chain.preprocessors()[0];
    measure("process, fresh, 8 messages, 3 KB", 5_000, || {
        preprocessor.preprocess(&info, &messages, &SamplingView::default()).unwrap();
    });
    let post = &chain.postprocessors()[0];
    measure("open and drop a stream", 5_000, || {
        post.open_stream(&info).unwrap();
    });
    chunks(post, &info);
    threads(&router, &info, &candidates);
}

/// One token of text on an open stream.
fn chunks(post: &std::sync::Arc<Plugin>, info: &RequestInfo) {
    let mut stream = post.open_stream(info).unwrap();
    measure("push, one token", 50_000, || {
        stream.push(" token").unwrap();
    });
    let begun = Instant::now();
    let streams: Vec<_> = (0..500).map(|_| post.open_stream(info).unwrap()).collect();
    println!("{:32} {:>10.1} ms", "open 500 streams at once", millis(begun.elapsed()));
    drop(streams);
}

/// Calls on as many threads as there are processors.
fn threads(router: &std::sync::Arc<Plugin>, info: &RequestInfo, candidates: &[Candidate]) {
    const CALLS: u32 = 5_000;
    let threads = std::thread::available_parallelism().unwrap().get();
    let begun = Instant::now();
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                for _ in 0..CALLS {
                    router.route(info, &[], candidates).unwrap();
                }
            });
        }
    });
    let calls = f64::from(CALLS) * threads as f64;
    let rate = calls / begun.elapsed().as_secs_f64();
    println!("{:32} {rate:>10.0} /s", format!("route on {threads} threads"));
}

fn measure(what: &str, times: usize, mut work: impl FnMut()) {
    for _ in 0..times / 10 {
        work();
    }
    let mut took: Vec<Duration> = (0..times)
        .map(|_| {
            let begun = Instant::now();
            work();
            begun.elapsed()
        })
        .collect();
    took.sort_unstable();
    let micros = |part: usize| took[(times - 1) * part / 100].as_secs_f64() * 1e6;
    println!("{what:32} {:>10.1} us p50 {:>10.1} us p99", micros(50), micros(99));
}

fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}
