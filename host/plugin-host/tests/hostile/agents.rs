//! Agents: budgets, and loops that share their thread.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use async_trait::async_trait;
use plugin_host::{
    AgentContext, Capabilities, Capability, CapabilityError, Completion, FaultKind, GenerateCall,
    GenerateCapability, HostConfig, PluginKind, PluginPolicy,
};
use request::{Message, Role, Usage};
use tokio::sync::Notify;

use crate::guests::{FOREVER, Guest};
use crate::harness::{Harness, config, fault, info, named};

/// Answers each call with a fixed use of tokens.
struct Model {
    tokens: u32,
    calls: AtomicU32,
    budgets: std::sync::Mutex<Vec<u32>>,
}

#[async_trait]
impl GenerateCapability for Model {
    async fn generate(&self, call: GenerateCall) -> Result<Completion, CapabilityError> {
        self.calls.fetch_add(1, Ordering::SeqCst);
        self.budgets.lock().expect("no panic").push(call.budget_tokens);
        tokio::task::yield_now().await;
        let usage =
            Usage { prompt_tokens: self.tokens - 1, completion_tokens: 1, cached_tokens: 0 };
        let message = Message::new(Role::Assistant, "42");
        Ok(Completion { message, finish_reason: "stop".to_owned(), usage })
    }
}

fn model(tokens: u32) -> Arc<Model> {
    Arc::new(Model { tokens, calls: AtomicU32::new(0), budgets: Default::default() })
}

const RUN: &str = "(import \"mortise:cap/generate@0.1.0\" \"run\" (func $run (param i32 i32)))";

/// Asks the model until it is told no, and answers with the code of that error.
fn insatiable() -> Guest {
    let body = "(loop $again
           (call $run (i32.const 4096) (i32.const 5000))
           (br_if $again (i32.eqz (i32.load8_u (i32.const 5000)))))
         ;; An assistant's message with one part of text: the error's code.
         (i32.store (i32.const 6004) (i32.const 2))
         (i32.store (i32.const 6028) (i32.const 7000))
         (i32.store (i32.const 6032) (i32.const 1))
         (i32.store (i32.const 7004) (i32.load (i32.const 5004)))
         (i32.store (i32.const 7008) (i32.load (i32.const 5008)))
         (i32.const 6000)";
    Guest::new(PluginKind::Agent)
        .manifest("capabilities = [\"generate\"]")
        .import("mortise:cap/generate@0.1.0", RUN)
        .hook("run", body)
}

fn harness(budget_tokens: u32) -> Harness {
    harness_with(config(), budget_tokens)
}

fn harness_with(config: HostConfig, budget_tokens: u32) -> Harness {
    let grants = BTreeSet::from([Capability::Generate]);
    let policy = PluginPolicy { grants, budget_tokens, ..PluginPolicy::default() };
    let config = HostConfig { default_policy: policy, ..config };
    Harness::with(config, Capabilities::default())
}

#[tokio::test]
async fn budgets_end_runs_that_would_not() {
    for (policy, asked, budgets) in [
        (10, None, vec![10, 6, 2]),
        (100, Some(8), vec![8, 4]),
        (4, Some(1_000), vec![4]),
        (0, None, vec![]),
    ] {
        let harness = harness(policy);
        let plugin = harness.activate(&insatiable());
        let model = model(4);
        let context = AgentContext { generate: model.clone(), budget_tokens: asked };
        let answer = plugin.run_agent(info(), vec![], context).await.expect("an answer");
        assert_eq!(answer, Message::new(Role::Assistant, "over-budget"));
        assert_eq!(*model.budgets.lock().expect("no panic"), budgets);
    }
}

#[tokio::test]
async fn a_looping_agent_shares_its_thread_and_ends() {
    let mut config = config();
    config.limits.agent.hook_ms_max = 2_000;
    let harness = harness_with(config, 100);
    let looping = Guest::new(PluginKind::Agent).named("looping").hook("run", FOREVER);
    let looping_plugin = harness.activate(&looping);
    let good = harness.activate(&insatiable());
    let context = || AgentContext { generate: model(4), budget_tokens: None };
    // One thread, both at once: the good one must get through while the other loops.
    let order = std::sync::Mutex::new(Vec::new());
    let bad_run = async {
        let outcome = looping_plugin.run_agent(info(), vec![], context()).await;
        order.lock().expect("no panic").push("looping");
        outcome
    };
    let good_run = async {
        let outcome = good.run_agent(info(), vec![], context()).await;
        order.lock().expect("no panic").push("good");
        outcome
    };
    let (bad, good) = tokio::join!(bad_run, good_run);
    good.expect("the good one is not disturbed");
    let kind = fault(bad, &looping);
    assert_eq!(kind, FaultKind::DeadlineExceeded { hook: "run", limit_ms: 2_000 });
    assert_eq!(*order.lock().expect("no panic"), ["good", "looping"]);
}

#[tokio::test]
async fn traps_growth_and_lies_are_named() {
    let harness = harness(100);
    let context = || AgentContext { generate: model(4), budget_tokens: None };
    let run = async |version: &str, body: &str| {
        let guest = Guest::new(PluginKind::Agent).version(version).hook("run", body);
        let plugin = harness.activate(&guest);
        let outcome = plugin.run_agent(info(), vec![], context()).await;
        named(outcome, &guest).err()
    };
    assert_eq!(run("0.0.1", "(i32.const 4096)").await, None);
    let kind = run("0.0.2", "(unreachable)").await.expect("a fault");
    assert!(matches!(kind, FaultKind::Trapped { hook: "run", .. }), "{kind:?}");
    let grow = "(drop (memory.grow (i32.const 100))) (unreachable)";
    let kind = run("0.0.3", grow).await.expect("a fault");
    assert!(matches!(kind, FaultKind::MemoryLimit { hook: "run", .. }), "{kind:?}");
    // A message whose list of parts is longer than any memory.
    let lie = "(i32.store (i32.const 4124) (i32.const 4096))
               (i32.store (i32.const 4128) (i32.const -1)) (i32.const 4096)";
    let kind = run("0.0.4", lie).await.expect("a fault");
    let contained = matches!(
        kind,
        FaultKind::Broken { .. } | FaultKind::OutputTooLarge { .. } | FaultKind::Trapped { .. }
    );
    assert!(contained, "{kind:?}");
}

/// Never answers, and tells when it is asked and when it is dropped.
struct Silent {
    asked: Notify,
    dropped: Arc<Notify>,
}

struct TellDrop(Arc<Notify>);

impl Drop for TellDrop {
    fn drop(&mut self) {
        self.0.notify_one();
    }
}

#[async_trait]
impl GenerateCapability for Silent {
    async fn generate(&self, _: GenerateCall) -> Result<Completion, CapabilityError> {
        let _tell = TellDrop(Arc::clone(&self.dropped));
        self.asked.notify_one();
        std::future::pending().await
    }
}

// The clock jumps to the limit once all tasks wait.
#[tokio::test(start_paused = true)]
async fn a_run_that_is_dropped_drops_its_call() {
    let harness = harness(100);
    let plugin = harness.activate(&insatiable());
    let dropped = Arc::new(Notify::new());
    let silent = Arc::new(Silent { asked: Notify::new(), dropped: Arc::clone(&dropped) });
    let context = AgentContext { generate: silent.clone(), budget_tokens: None };
    {
        let run = plugin.run_agent(info(), vec![], context);
        tokio::pin!(run);
        tokio::select! {
            outcome = &mut run => panic!("{outcome:?}"),
            () = silent.asked.notified() => {}
        }
        assert_eq!(harness.host.list()[0].in_flight, 1);
    }
    dropped.notified().await;
    assert_eq!(harness.host.list()[0].in_flight, 0);
    // The same silence, waited for, ends at the wall limit.
    let context = AgentContext { generate: silent, budget_tokens: None };
    let kind = fault(plugin.run_agent(info(), vec![], context).await, &insatiable());
    assert_eq!(kind, FaultKind::DeadlineExceeded { hook: "run", limit_ms: 60_000 });
}
