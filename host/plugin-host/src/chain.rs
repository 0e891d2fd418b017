//! The plugins that are active at one moment. Immutable: a swap publishes a new chain, and whoever
//! holds an old one goes on with it.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::manifest::PluginKind;
use crate::plugin::Plugin;

/// A request pins one chain for its whole life and so sees one version of each plugin.
#[derive(Debug, Default)]
pub struct Chain {
    router: Option<Arc<Plugin>>,
    preprocessors: Vec<Arc<Plugin>>,
    postprocessors: Vec<Arc<Plugin>>,
    scorer: Option<Arc<Plugin>>,
    agents: BTreeMap<String, Arc<Plugin>>,
}

impl Chain {
    /// A chain of `plugins`: the smallest [`crate::PluginPolicy::order`] first, ties by name. Of
    /// routers and scorers the caller passes at most one.
    pub(crate) fn new(plugins: impl IntoIterator<Item = Arc<Plugin>>) -> Self {
        let mut plugins: Vec<_> = plugins.into_iter().collect();
        plugins.sort_by(|a, b| (a.policy.order, a.name()).cmp(&(b.policy.order, b.name())));
        let mut chain = Self::default();
        for plugin in plugins {
            match plugin.kind() {
                PluginKind::Router => chain.router = Some(plugin),
                PluginKind::Preprocessor => chain.preprocessors.push(plugin),
                PluginKind::Postprocessor => chain.postprocessors.push(plugin),
                PluginKind::Scorer => chain.scorer = Some(plugin),
                PluginKind::Agent => {
                    chain.agents.insert(plugin.name().to_owned(), plugin);
                }
            }
        }
        chain
    }

    /// The router, if one is active.
    #[must_use]
    pub fn router(&self) -> Option<Arc<Plugin>> {
        self.router.clone()
    }

    /// Preprocessors in order.
    #[must_use]
    pub fn preprocessors(&self) -> &[Arc<Plugin>] {
        &self.preprocessors
    }

    /// Postprocessors in order.
    #[must_use]
    pub fn postprocessors(&self) -> &[Arc<Plugin>] {
        &self.postprocessors
    }

    /// The scorer, if one is active.
    #[must_use]
    pub fn scorer(&self) -> Option<Arc<Plugin>> {
        self.scorer.clone()
    }

    /// The agent of that name.
    #[must_use]
    pub fn agent(&self, name: &str) -> Option<Arc<Plugin>> {
        self.agents.get(name).cloned()
    }

    /// All agents, by name.
    pub fn agents(&self) -> impl Iterator<Item = &Arc<Plugin>> {
        self.agents.values()
    }
}
