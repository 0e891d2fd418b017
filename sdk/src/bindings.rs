//! What `wit-bindgen` generates from `wit/`. Private to the SDK: plugins see the types of
//! [`crate::types`] and the traits, never these.
//!
//! The contract's worlds all export `lifecycle`, and five generated copies of it would collide, so
//! the SDK cuts the same interfaces differently: a world of imports, one for `lifecycle`, and one
//! per kind. Each leaves a description of itself in the module; the encoder merges them, and the
//! component ends up with the exports of one kind and the imports that it really uses.

#![allow(missing_docs, unreachable_pub, reason = "generated")]

/// The imports and every shared type.
pub(crate) mod imports {
    wit_bindgen::generate!({
        path: "wit",
        inline: "
            package mortise:sdk;
            world imports {
                include mortise:core/always@0.1.0;
                import mortise:core/env@0.1.0;
                include mortise:hooks/capabilities@0.1.0;
            }
        ",
        world: "mortise:sdk/imports",
        generate_all,
    });
}

/// A module for one exported interface: `Guest` to implement and a macro that exports it.
macro_rules! exported {
    ($module:ident, $world:literal, $inline:literal) => {
        pub mod $module {
            wit_bindgen::generate!({
                path: "wit",
                inline: $inline,
                world: $world,
                with: { "mortise:core/types@0.1.0": crate::bindings::imports::mortise::core::types },
                pub_export_macro: true,
                export_macro_name: "export_interface",
                runtime_path: "::mortise_sdk::__private::rt",
            });
        }
    };
}

exported!(
    lifecycle,
    "mortise:sdk/exports-lifecycle",
    "package mortise:sdk; world exports-lifecycle { export mortise:hooks/lifecycle@0.1.0; }"
);
exported!(
    router,
    "mortise:sdk/exports-router",
    "package mortise:sdk; world exports-router { export mortise:hooks/router@0.1.0; }"
);
exported!(
    preprocessor,
    "mortise:sdk/exports-preprocessor",
    "package mortise:sdk; world exports-preprocessor { export mortise:hooks/preprocessor@0.1.0; }"
);
exported!(
    postprocessor,
    "mortise:sdk/exports-postprocessor",
    "package mortise:sdk; world exports-postprocessor { export mortise:hooks/postprocessor@0.1.0; }"
);
exported!(
    scorer,
    "mortise:sdk/exports-scorer",
    "package mortise:sdk; world exports-scorer { export mortise:hooks/scorer@0.1.0; }"
);
exported!(
    agent,
    "mortise:sdk/exports-agent",
    "package mortise:sdk; world exports-agent { export mortise:hooks/agent@0.1.0; }"
);
