//! A postprocessor's instance for the life of one stream. After a fault, a stop or the end the
//! instance is gone, and every further call says so.

use crate::bindings::postprocessor;
use crate::convert;
use crate::fault::{FaultKind, PluginFault};
use crate::instance::Running;
use crate::metrics::Hook;
use crate::plugin::{InFlight, Plugin, broken};
use crate::types::StreamAction;

/// Longest reason that is told to a guest, in bytes. The host's own are far shorter.
const REASON_BYTES_MAX: usize = 64;

/// One stream through one postprocessor. Calls are synchronous and belong off the async threads.
pub struct StreamFilter {
    in_flight: InFlight,
    open: Option<Open>,
}

struct Open {
    running: Running,
    guest: postprocessor::Guest,
    /// Whether the plugin keeps text, so that letting more pass would change the order.
    holds: bool,
}

impl std::fmt::Debug for StreamFilter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (plugin, open) = (self.in_flight.plugin(), self.open.is_some());
        f.debug_struct("StreamFilter").field("plugin", plugin).field("open", &open).finish()
    }
}

impl StreamFilter {
    pub(crate) fn new(in_flight: InFlight, running: Running, guest: postprocessor::Guest) -> Self {
        Self { in_flight, open: Some(Open { running, guest, holds: false }) }
    }

    /// Whose stream it is.
    #[must_use]
    pub fn plugin(&self) -> &Plugin {
        self.in_flight.plugin()
    }

    /// Sends a piece of text. After [`StreamAction::Stop`] the stream has ended.
    ///
    /// # Errors
    /// The postprocessor's fault; `pass` while it holds text is one. The stream has ended.
    pub fn push(&mut self, text: &str) -> Result<StreamAction, PluginFault> {
        let plugin = self.in_flight.plugin();
        let open = &mut self.open;
        let action = plugin.observe(Hook::Push, || {
            let stream = open.as_mut().ok_or(FaultKind::StreamEnded)?;
            let limit_ms = plugin.setting.kinds.push_ms_max;
            let action = stream
                .running
                .call(Hook::Push, limit_ms, |store, _| stream.guest.call_push(store, text))?;
            let action = convert::action_from_guest(action);
            match action {
                StreamAction::Hold => stream.holds = true,
                StreamAction::Replace(_) | StreamAction::Stop(_) => stream.holds = false,
                StreamAction::Pass if stream.holds => {
                    return Err(broken(Hook::Push)("it passes while it holds text".to_owned()));
                }
                StreamAction::Pass => {}
            }
            Ok(action)
        });
        if matches!(action, Err(_) | Ok(StreamAction::Stop(_))) {
            self.open = None;
        }
        action
    }

    /// Ends the stream and gives the last text. `finish_reason` is as the OpenAI API spells it.
    ///
    /// # Errors
    /// The postprocessor's fault.
    pub fn finish(&mut self, finish_reason: &str) -> Result<String, PluginFault> {
        let plugin = self.in_flight.plugin();
        let open = self.open.take();
        plugin.observe(Hook::Finish, || {
            let mut stream = open.ok_or(FaultKind::StreamEnded)?;
            let reason = crate::imports::cut(finish_reason, REASON_BYTES_MAX);
            stream.running.call(Hook::Finish, plugin.hook_ms(), |store, _| {
                stream.guest.call_finish(store, reason)
            })
        })
    }
}
