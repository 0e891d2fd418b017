//! The Rust face of `wit/`, generated. Private to this crate: everything is converted at the edge.
//!
//! The hooks are bound interface by interface, so that each kind is checked for what it must export
//! and for nothing else. Agents are called asynchronously, hence the second set.

// Generated code is not held to our lints.
#![allow(missing_docs, unreachable_pub, clippy::all)]

mod sync {
    wasmtime::component::bindgen!({
        path: "../../wit",
        inline: "
            package mortise:host;
            world sync-hooks {
                include mortise:core/always@0.1.0;
                import mortise:core/env@0.1.0;
                import mortise:cap/tokenizer@0.1.0;
                import mortise:cap/generate@0.1.0;
                import mortise:cap/corpus@0.1.0;
                export mortise:hooks/lifecycle@0.1.0;
                export mortise:hooks/router@0.1.0;
                export mortise:hooks/preprocessor@0.1.0;
                export mortise:hooks/postprocessor@0.1.0;
                export mortise:hooks/scorer@0.1.0;
            }
        ",
        world: "mortise:host/sync-hooks",
        imports: { "mortise:cap/generate.run": async },
    });
}

mod agents {
    wasmtime::component::bindgen!({
        path: "../../wit",
        inline: "
            package mortise:host;
            world async-hooks {
                import mortise:core/types@0.1.0;
                export mortise:hooks/lifecycle@0.1.0;
                export mortise:hooks/agent@0.1.0;
            }
        ",
        world: "mortise:host/async-hooks",
        exports: { default: async },
        with: { "mortise:core": super::sync::mortise::core },
    });
}

pub(crate) use agents::exports::mortise::hooks::agent;
pub(crate) use agents::exports::mortise::hooks::lifecycle as agent_lifecycle;
pub(crate) use sync::exports::mortise::hooks::{
    lifecycle, postprocessor, preprocessor, router, scorer,
};
pub(crate) use sync::mortise::cap::{corpus, generate, tokenizer};
pub(crate) use sync::mortise::core::{config, env, kv, logging, metrics, types};
