//! What a plugin may ask of the host, one module per import. On wasm each call crosses to the host;
//! anywhere else it reaches the mocks of [`crate::testing`], so a plugin's logic runs in native
//! tests unchanged. A component imports only the modules that it uses.

pub mod config;
pub mod corpus;
pub mod env;
pub mod generate;
pub mod kv;
pub mod log;
pub mod metrics;
pub mod tokenizer;

#[cfg_attr(target_arch = "wasm32", path = "backend_wasm.rs")]
#[cfg_attr(not(target_arch = "wasm32"), path = "backend_native.rs")]
pub(crate) mod backend;
