//! What guests may call, one file per interface. Every number and string from a guest is hostile:
//! each file bounds what it keeps and how long it works. Nothing here waits, but for `generate`.

pub(crate) mod config;
pub(crate) mod corpus;
pub(crate) mod env;
pub(crate) mod generate;
pub(crate) mod kv;
pub(crate) mod logging;
pub(crate) mod metrics;
pub(crate) mod tokenizer;

use std::collections::BTreeSet;

use wasmtime::Engine;
use wasmtime::component::{HasSelf, Linker};

use crate::bindings;
use crate::capability::{Capability, CapabilityError};
use crate::guest::Guest;
use crate::manifest::PluginKind;

/// A linker with what every plugin of `kind` has, and with `lent` of what is granted one by one.
pub(crate) fn linker(
    engine: &Engine,
    kind: PluginKind,
    lent: &BTreeSet<Capability>,
) -> wasmtime::Result<Linker<Guest>> {
    let mut linker = Linker::new(engine);
    let own: fn(&mut Guest) -> &mut Guest = |guest| guest;
    bindings::types::add_to_linker::<_, HasSelf<Guest>>(&mut linker, own)?;
    bindings::logging::add_to_linker::<_, HasSelf<Guest>>(&mut linker, own)?;
    bindings::config::add_to_linker::<_, HasSelf<Guest>>(&mut linker, own)?;
    bindings::metrics::add_to_linker::<_, HasSelf<Guest>>(&mut linker, own)?;
    bindings::kv::add_to_linker::<_, HasSelf<Guest>>(&mut linker, own)?;
    if has_env(kind) {
        bindings::env::add_to_linker::<_, HasSelf<Guest>>(&mut linker, own)?;
    }
    for capability in lent {
        match capability {
            Capability::Tokenizer => {
                bindings::tokenizer::add_to_linker::<_, HasSelf<Guest>>(&mut linker, own)?;
            }
            Capability::Generate => {
                bindings::generate::add_to_linker::<_, HasSelf<Guest>>(&mut linker, own)?;
            }
            Capability::Corpus => {
                bindings::corpus::add_to_linker::<_, HasSelf<Guest>>(&mut linker, own)?;
            }
        }
    }
    Ok(linker)
}

/// Whether `kind` has a clock and randomness. Scorers do not: a disputed share is settled by
/// running the scorer again.
pub(crate) fn has_env(kind: PluginKind) -> bool {
    kind != PluginKind::Scorer
}

impl bindings::types::Host for Guest {}

/// An error in the words of the contract.
pub(crate) fn error(code: &str, message: impl Into<String>) -> bindings::types::Error {
    CapabilityError::new(code, message).into()
}

impl From<CapabilityError> for bindings::types::Error {
    fn from(error: CapabilityError) -> Self {
        let CapabilityError { code, message, retryable } = error;
        Self { code, message, retryable, attrs: Vec::new() }
    }
}

/// `text`, cut at the last character that ends within `bytes_max`.
pub(crate) fn cut(text: &str, bytes_max: usize) -> &str {
    &text[..text.floor_char_boundary(bytes_max)]
}
