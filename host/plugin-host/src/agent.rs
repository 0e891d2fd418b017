//! An agent's run: asynchronous, because it waits for the model; held to wall time, because it
//! yields to others at every tick.

use std::sync::Arc;
use std::time::Duration;

use request::Message;
use wasmtime::Store;
use wasmtime::component::Instance;

use crate::bindings::{agent_lifecycle, types};
use crate::capability::AgentContext;
use crate::convert;
use crate::fault::FaultKind;
use crate::guest::{AgentRun, Guest};
use crate::instance::{Failure, Setting, guest_error};
use crate::manifest::PluginKind;
use crate::metrics::Hook;
use crate::plugin::{Exports, Plugin, broken};
use crate::types::RequestInfo;

/// One run from instance to answer.
pub(crate) async fn run(
    plugin: &Plugin,
    info: &RequestInfo,
    messages: &[Message],
    context: AgentContext,
) -> Result<Message, FaultKind> {
    let Exports::Agent(lifecycle, hook) = &plugin.exports else {
        return Err(plugin.not_a(PluginKind::Agent));
    };
    let setting = &plugin.setting;
    let budget = plugin.policy.budget_tokens;
    let left = context.budget_tokens.map_or(budget, |asked| asked.min(budget));
    let run = AgentRun { generate: context.generate, left };
    let _ticking = setting.runtime.ticker.enter();
    let (mut store, instance, _) =
        start(setting, &plugin.pre, lifecycle, (&info.id, Some(run))).await?;
    // The run as a whole is held to wall time, most of which it waits for the model.
    store.data_mut().slices_left = u64::MAX;
    let call = async {
        let guest = hook.load(&mut store, &instance)?;
        let (info, messages) = (convert::info_to_guest(info), convert::messages_to_guest(messages));
        guest.call_run(&mut store, &info, &messages).await
    };
    let limit_ms = setting.limits.hook_ms_max;
    let answer = within(limit_ms, Hook::Run, call).await?;
    let answer = settle(setting, (Hook::Run, limit_ms), answer, &store)?;
    convert::message_from_guest(answer).map_err(broken(Hook::Run))
}

type Started = (Store<Guest>, Instance, (String, String));

/// Makes an instance and asks it to `init`. The caller keeps the clock ticking.
pub(crate) async fn start(
    setting: &Setting,
    pre: &wasmtime::component::InstancePre<Guest>,
    indices: &agent_lifecycle::GuestIndices,
    (request_id, run): (&str, Option<AgentRun>),
) -> Result<Started, FaultKind> {
    let mut guest = Guest::new(Arc::clone(&setting.lent), request_id, &setting.limits);
    guest.run = run;
    let limit_ms = setting.kinds.init_ms_max;
    guest.slices_left = limit_ms;
    let mut store = setting.runtime.yielding_store(guest, &setting.limits);
    let begin = async {
        let instance = pre.instantiate_async(&mut store).await?;
        let guest = indices.load(&mut store, &instance)?;
        let host_version = setting.host_version.clone();
        let info = agent_lifecycle::InitInfo { host_version, attrs: Vec::new() };
        let said = guest.call_init(&mut store, &info).await?;
        Ok(said.map(|said| (instance, (said.name, said.version))))
    };
    // A busy executor is not the guest's fault, so that wall time is the last resort here.
    let wall_ms = limit_ms.saturating_mul(setting.kinds.wall_factor.max(1));
    let said = within(wall_ms, Hook::Init, begin).await?;
    let (instance, said) = settle(setting, (Hook::Init, limit_ms), said, &store)?;
    Ok((store, instance, said))
}

/// Ends `work` after `limit_ms` of wall time.
async fn within<T>(
    limit_ms: u64,
    hook: Hook,
    work: impl Future<Output = T>,
) -> Result<T, FaultKind> {
    let over = |_| FaultKind::DeadlineExceeded { hook: hook.as_str(), limit_ms };
    tokio::time::timeout(Duration::from_millis(limit_ms), work).await.map_err(over)
}

fn settle<T>(
    setting: &Setting,
    (hook, limit_ms): (Hook, u64),
    outcome: wasmtime::Result<Result<T, types::Error>>,
    store: &Store<Guest>,
) -> Result<T, FaultKind> {
    let output_bytes_max = setting.limits.output_bytes_max as u64;
    match outcome {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(error)) => Err(guest_error(hook, error)),
        Err(error) => Err(Failure { hook, limit_ms, output_bytes_max }.kind(&error, store.data())),
    }
}
