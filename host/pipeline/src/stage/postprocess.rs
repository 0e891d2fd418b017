//! Postprocessors on one stream of text, called off the async threads.

use std::sync::Arc;

use plugin_host::{Plugin, PluginFault, StreamAction, StreamFilter};

use crate::context::Context;
use crate::error::PipelineError;
use crate::stage::blocking;
use crate::stage::filters::{Action, Filter, FilterChain, Output, Rejected};

/// One plugin's instance on one stream.
struct Guest {
    plugin: Arc<Plugin>,
    filter: StreamFilter,
}

impl Filter for Guest {
    type Fault = PluginFault;

    fn push(&mut self, text: &str) -> Result<Action, PluginFault> {
        Ok(match self.filter.push(text)? {
            StreamAction::Pass => Action::Pass,
            StreamAction::Hold => Action::Hold,
            StreamAction::Replace(text) => Action::Replace(text),
            StreamAction::Stop(text) => Action::Stop(text),
        })
    }

    fn finish(&mut self, reason: &str) -> Result<String, PluginFault> {
        self.filter.finish(reason)
    }

    fn bypass(&self) -> bool {
        self.plugin.bypasses()
    }
}

/// A fault with the plugin that made it, for the receipt.
pub(crate) type Faults = Vec<(Arc<Plugin>, PluginFault)>;

/// The postprocessors of one choice. Text goes through [`Self::push`] and [`Self::finish`]; what
/// plugins did wrong is collected by [`Self::into_faults`].
pub(crate) struct Postprocessors {
    plugins: Vec<Arc<Plugin>>,
    /// Away while a call runs on the blocking pool.
    chain: Option<FilterChain<Guest>>,
}

impl Postprocessors {
    /// Opens one instance of each postprocessor of the request's chain. Those that fail to open
    /// and may be bypassed are left out; their faults stand in `context`.
    pub(crate) async fn open(context: &mut Context) -> Result<Self, PipelineError> {
        let (mut plugins, mut guests) = (Vec::new(), Vec::new());
        for plugin in context.chain.postprocessors().to_vec() {
            let (info, opened) = (context.info(), Arc::clone(&plugin));
            let filter = blocking(move || opened.open_stream(&info)).await?;
            match filter {
                Ok(filter) => {
                    guests.push(Guest { plugin: Arc::clone(&plugin), filter });
                    plugins.push(plugin);
                }
                Err(fault) => context.fault(&plugin, &fault)?,
            }
        }
        Ok(Self { plugins, chain: Some(FilterChain::new(guests)) })
    }

    /// Sends text through the chain.
    pub(crate) async fn push(&mut self, text: String) -> Result<Output, PipelineError> {
        if text.is_empty() || self.chain.as_ref().is_some_and(FilterChain::is_empty) {
            return Ok(Output { text, stopped: false });
        }
        self.call(move |chain| chain.push(&text)).await
    }

    /// Ends the stream.
    pub(crate) async fn finish(&mut self, reason: &'static str) -> Result<Output, PipelineError> {
        if self.chain.as_ref().is_some_and(FilterChain::is_empty) {
            return Ok(Output::default());
        }
        self.call(move |chain| chain.finish(reason)).await
    }

    /// What went wrong on this stream, and every plugin that was on it.
    pub(crate) fn into_faults(self) -> (Vec<Arc<Plugin>>, Faults) {
        let faults = self.chain.map_or_else(Vec::new, |chain| chain.faults);
        let named = |(index, fault): (usize, _)| (Arc::clone(&self.plugins[index]), fault);
        let faults = faults.into_iter().map(named).collect();
        (self.plugins, faults)
    }

    async fn call(
        &mut self,
        work: impl FnOnce(&mut FilterChain<Guest>) -> Result<Output, Rejected> + Send + 'static,
    ) -> Result<Output, PipelineError> {
        let mut chain = self.chain.take().expect("a call returns the chain before the next");
        let (chain, output) = blocking(move || {
            let output = work(&mut chain);
            (chain, output)
        })
        .await?;
        let failed = chain.faults.last().map(|(index, fault)| (*index, fault.kind.to_string()));
        self.chain = Some(chain);
        output.map_err(|Rejected| {
            let (index, reason) = failed.expect("a rejection comes from a fault");
            PipelineError::PluginFailed { plugin: self.plugins[index].name().to_owned(), reason }
        })
    }
}

/// Runs a whole text that did not come from the engine through the request's postprocessors.
pub(crate) async fn whole(
    post: &mut Postprocessors,
    text: String,
    reason: &'static str,
) -> Result<Output, PipelineError> {
    let mut output = post.push(text).await?;
    if !output.stopped {
        let rest = post.finish(reason).await?;
        output.text.push_str(&rest.text);
        output.stopped = rest.stopped;
    }
    Ok(output)
}
