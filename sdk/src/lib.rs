//! Write plugins for Mortise: implement the trait of a kind, export it, test it natively.
//!
//! A plugin is a crate with `crate-type = ["cdylib"]`, a `plugin.toml`, and one call of [`export!`]:
//!
//! | kind | trait | what it does |
//! | --- | --- | --- |
//! | router | [`Router`] | chooses who answers `model: "auto"` |
//! | preprocessor | [`Preprocessor`] | changes, answers or refuses a conversation before the model |
//! | postprocessor | [`Postprocessor`] | passes, holds, replaces or stops the answer as it streams |
//! | scorer | [`Scorer`] | turns evidence into shares |
//! | agent | [`Agent`] | answers in the model's place, with the model's help |
//!
//! Every plugin may use [`log`], [`config`], [`kv`] and [`metrics`]; all but scorers [`mod@env`];
//! [`tokenizer`], [`corpus`] and (agents) [`generate`] must be asked for in `plugin.toml` and granted
//! by the operator. A component imports only what it uses.
//!
//! Nothing here knows the host's crates: the contract is `wit/`, and [`testing`] stands in for the
//! host in native tests.

#![forbid(unsafe_code)]

// What `export!` expands to names this crate from outside, in its own doctests and tests too.
extern crate self as mortise_sdk;

mod bindings;
mod convert;
mod export;
mod host;
mod kind;
#[cfg(not(target_arch = "wasm32"))]
pub mod testing;
mod types;

pub use host::{config, corpus, env, generate, kv, log, metrics, tokenizer};
pub use kind::agent::Agent;
pub use kind::postprocessor::{Action, Postprocessor};
pub use kind::preprocessor::{Outcome, Preprocessor};
pub use kind::router::{Candidate, Decision, Router};
pub use kind::scorer::{Evidence, OwnerCount, SHARES_TOTAL, Scorer, Share, Span};
pub use types::{
    Attr, Error, Media, Message, Part, Reject, RequestInfo, Result, Role, Sampling, Usage, Value,
};

/// For the expansion of [`export!`] only.
#[doc(hidden)]
pub mod __private {
    pub use wit_bindgen::rt;

    /// The exported interfaces.
    pub mod bindings {
        pub use crate::bindings::{agent, lifecycle, postprocessor, preprocessor, router, scorer};
    }

    pub use crate::export::{Identity, Lifecycle};
    pub use crate::kind::{agent, postprocessor, preprocessor, router, scorer};
}
