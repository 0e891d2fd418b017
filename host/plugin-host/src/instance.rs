//! One running instance, and what its failures are called. An instance that failed is dropped by
//! whoever called it; nothing here enters one twice after a failure.

use std::sync::Arc;

use wasmtime::component::{Instance, InstancePre};
use wasmtime::{PoolConcurrencyLimitError, Store, Trap, WasmBacktrace};

use crate::bindings::{self, lifecycle, types};
use crate::clock::Deadline;
use crate::config::{CallLimits, KindLimits};
use crate::fault::FaultKind;
use crate::guest::{Guest, Lent};
use crate::imports::cut;
use crate::metrics::Hook;
use crate::runtime::Runtime;

/// Longest code of an error that a guest returns, in bytes.
const ERROR_CODE_BYTES_MAX: usize = 64;
/// Longest text of a guest's that goes into an error, in bytes.
const ERROR_TEXT_BYTES_MAX: usize = 1024;

/// What starting an instance needs beside its code.
pub(crate) struct Setting {
    pub(crate) runtime: Arc<Runtime>,
    pub(crate) lent: Arc<Lent>,
    /// Of the plugin's kind.
    pub(crate) limits: CallLimits,
    pub(crate) kinds: KindLimits,
    pub(crate) host_version: String,
}

/// An instance that is called synchronously and has answered `init`.
pub(crate) struct Running {
    pub(crate) store: Store<Guest>,
    pub(crate) instance: Instance,
    /// What it said it is.
    pub(crate) said: (String, String),
    runtime: Arc<Runtime>,
    wall_factor: u64,
    output_bytes_max: u64,
}

impl Running {
    /// Makes an instance for one request or stream and asks it to `init`.
    pub(crate) fn start(
        setting: &Setting,
        pre: &InstancePre<Guest>,
        indices: &lifecycle::GuestIndices,
        request_id: &str,
    ) -> Result<Self, FaultKind> {
        let guest = Guest::new(Arc::clone(&setting.lent), request_id, &setting.limits);
        let mut store = setting.runtime.store(guest, &setting.limits);
        let output_bytes_max = setting.limits.output_bytes_max as u64;
        let (limit_ms, wall_factor) = (setting.kinds.init_ms_max, setting.kinds.wall_factor);
        let _ticking = setting.runtime.ticker.enter();
        begin(&mut store, limit_ms, wall_factor);
        let started = pre.instantiate(&mut store).and_then(|instance| {
            let guest = indices.load(&mut store, &instance)?;
            let info = lifecycle::InitInfo {
                host_version: setting.host_version.clone(),
                attrs: Vec::new(),
            };
            Ok((instance, guest.call_init(&mut store, &info)?))
        });
        let context = Failure { hook: Hook::Init, limit_ms, output_bytes_max };
        let (instance, said) = started.map_err(|error| context.kind(&error, store.data()))?;
        let said = said.map_err(|error| guest_error(Hook::Init, error))?;
        let said = (said.name, said.version);
        let runtime = Arc::clone(&setting.runtime);
        Ok(Self { store, instance, said, runtime, wall_factor, output_bytes_max })
    }

    /// Calls a hook under its own deadline.
    pub(crate) fn call<T>(
        &mut self,
        hook: Hook,
        limit_ms: u64,
        work: impl FnOnce(&mut Store<Guest>, &Instance) -> wasmtime::Result<Result<T, types::Error>>,
    ) -> Result<T, FaultKind> {
        let _ticking = self.runtime.ticker.enter();
        begin(&mut self.store, limit_ms, self.wall_factor);
        let context = Failure { hook, limit_ms, output_bytes_max: self.output_bytes_max };
        match work(&mut self.store, &self.instance) {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(error)) => Err(guest_error(hook, error)),
            Err(error) => Err(context.kind(&error, self.store.data())),
        }
    }
}

fn begin(store: &mut Store<Guest>, limit_ms: u64, wall_factor: u64) {
    store.data_mut().deadline = Deadline::start(limit_ms, wall_factor);
    // One more than the limit, because the present tick has begun already.
    store.set_epoch_deadline(limit_ms.saturating_add(1));
}

/// An error that the guest returned, as a fault.
pub(crate) fn guest_error(hook: Hook, error: bindings::types::Error) -> FaultKind {
    FaultKind::Error {
        hook: hook.as_str(),
        code: cut(&error.code, ERROR_CODE_BYTES_MAX).into(),
        message: cut(&error.message, ERROR_TEXT_BYTES_MAX).into(),
    }
}

/// Where a wasmtime error came up.
pub(crate) struct Failure {
    pub(crate) hook: Hook,
    pub(crate) limit_ms: u64,
    pub(crate) output_bytes_max: u64,
}

impl Failure {
    /// What `error` is called.
    pub(crate) fn kind(&self, error: &wasmtime::Error, guest: &Guest) -> FaultKind {
        let hook = self.hook.as_str();
        if let Some(full) = error.downcast_ref::<PoolConcurrencyLimitError>() {
            return FaultKind::Exhausted { reason: full.to_string() };
        }
        if let Some(trap) = error.downcast_ref::<Trap>() {
            return self.trapped(*trap, error, guest);
        }
        if let Some(denied) = guest.limiter.denied {
            return FaultKind::MemoryLimit { hook, limit: denied.limit, unit: denied.unit };
        }
        let text = format!("{error:#}");
        // Its type is private to wasmtime.
        if text.contains("fuel allocated for hostcalls") {
            return FaultKind::OutputTooLarge { hook, limit_bytes: self.output_bytes_max };
        }
        FaultKind::Broken { hook, rule: cut(&text, ERROR_TEXT_BYTES_MAX).to_owned() }
    }

    fn trapped(&self, trap: Trap, error: &wasmtime::Error, guest: &Guest) -> FaultKind {
        let hook = self.hook.as_str();
        if trap == Trap::Interrupt {
            return FaultKind::DeadlineExceeded { hook, limit_ms: self.limit_ms };
        }
        // Guests give up with a trap when they are refused memory.
        if let Some(denied) = guest.limiter.denied {
            return FaultKind::MemoryLimit { hook, limit: denied.limit, unit: denied.unit };
        }
        let place = error.downcast_ref::<WasmBacktrace>().and_then(|backtrace| {
            backtrace.frames().first().and_then(|frame| frame.func_name().map(str::to_owned))
        });
        let reason = match place {
            Some(name) => format!("{trap}, in {}", cut(&name, ERROR_CODE_BYTES_MAX)),
            None => trap.to_string(),
        };
        FaultKind::Trapped { hook, reason }
    }
}
