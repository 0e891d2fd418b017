//! From a type that implements a kind's trait to the exports of a component.

use std::any::Any;
use std::cell::RefCell;
use std::marker::PhantomData;

use crate::bindings::lifecycle::exports::mortise::hooks::lifecycle as wit;
use crate::types::{Error, Result};

/// What [`crate::export!`] says of a plugin.
#[doc(hidden)]
pub trait Identity: 'static {
    /// The plugin.
    type Plugin: Any;
    /// The name of its crate.
    const NAME: &'static str;
    /// The version of its crate.
    const VERSION: &'static str;
    /// Makes the plugin.
    ///
    /// # Errors
    /// The plugin's.
    fn create() -> Result<Self::Plugin>;
}

thread_local! {
    /// The one plugin of this instance, from `init` on.
    static PLUGIN: RefCell<Option<Box<dyn Any>>> = const { RefCell::new(None) };
}

/// Calls the plugin that `init` made.
pub(crate) fn with_plugin<P: Any, T>(call: impl FnOnce(&mut P) -> Result<T>) -> Result<T> {
    PLUGIN.with_borrow_mut(|plugin| match plugin.as_mut().and_then(|p| p.downcast_mut()) {
        Some(plugin) => call(plugin),
        None => Err(Error::internal("a hook was called before `init`")),
    })
}

/// The exported `lifecycle` of a plugin.
#[doc(hidden)]
pub struct Lifecycle<I>(PhantomData<I>);

impl<I: Identity> wit::Guest for Lifecycle<I> {
    fn init(_info: wit::InitInfo) -> std::result::Result<wit::PluginInfo, wit::Error> {
        crate::host::backend::log_panics();
        let plugin = I::create()?;
        PLUGIN.set(Some(Box::new(plugin)));
        Ok(wit::PluginInfo {
            name: I::NAME.to_owned(),
            version: I::VERSION.to_owned(),
            attrs: Vec::new(),
        })
    }
}

/// Exports a plugin: once per crate, with the kind and the type that implements its trait. Its name
/// and version are those of the crate.
///
/// ```
/// # use mortise_sdk::{Message, Outcome, Preprocessor, RequestInfo, Result, Sampling};
/// struct Nothing;
///
/// impl Preprocessor for Nothing {
///     fn new() -> Result<Self> {
///         Ok(Self)
///     }
///     fn process(&mut self, _: &RequestInfo, _: Vec<Message>, _: &Sampling) -> Result<Outcome> {
///         Ok(Outcome::Unchanged)
///     }
/// }
///
/// mortise_sdk::export!(preprocessor: Nothing);
/// ```
#[macro_export]
macro_rules! export {
    (router: $plugin:ty) => {
        $crate::__export_kind!($plugin, Router, router);
    };
    (preprocessor: $plugin:ty) => {
        $crate::__export_kind!($plugin, Preprocessor, preprocessor);
    };
    (postprocessor: $plugin:ty) => {
        $crate::__export_kind!($plugin, Postprocessor, postprocessor);
    };
    (scorer: $plugin:ty) => {
        $crate::__export_kind!($plugin, Scorer, scorer);
    };
    (agent: $plugin:ty) => {
        $crate::__export_kind!($plugin, Agent, agent);
    };
}

/// The exports of one kind. Symbols such as `mortise:hooks/router@0.1.0#route` upset native linkers
/// and serve nobody there, so only wasm gets them.
#[doc(hidden)]
#[macro_export]
macro_rules! __export_kind {
    ($plugin:ty, $trait:ident, $kind:ident) => {
        const _: () = {
            struct Exported;
            impl $crate::__private::Identity for Exported {
                type Plugin = $plugin;
                const NAME: &'static str = ::core::env!("CARGO_PKG_NAME");
                const VERSION: &'static str = ::core::env!("CARGO_PKG_VERSION");
                fn create() -> $crate::Result<$plugin> {
                    <$plugin as $crate::$trait>::new()
                }
            }
            // Without exports nothing would use the plugin, and the compiler would say so.
            #[cfg(not(target_arch = "wasm32"))]
            #[allow(dead_code, reason = "kept for its own sake")]
            fn kept() -> $crate::Result<$plugin> {
                <Exported as $crate::__private::Identity>::create()
            }
            #[cfg(target_arch = "wasm32")]
            const _: () = {
                type Lifecycle = $crate::__private::Lifecycle<Exported>;
                type Kind = $crate::__private::$kind::Component<Exported>;
                $crate::__private::bindings::lifecycle::export_interface!(
                    Lifecycle with_types_in $crate::__private::bindings::lifecycle
                );
                $crate::__private::bindings::$kind::export_interface!(
                    Kind with_types_in $crate::__private::bindings::$kind
                );
            };
        };
    };
}
