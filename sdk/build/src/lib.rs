//! Builds plugins: finds a toolchain that can make wasm, compiles crates in one go, turns each into
//! a component, and checks it against its `plugin.toml` before anything is written.
//!
//! Parts: [`Toolchain`] (which cargo, and how it is called), [`Builder`] (crates in, plugin folders
//! out), [`scaffold()`] (a new crate for an author to start from).
//!
//! A component that comes out of here has no import outside the plugin contract, none that its
//! manifest does not ask for, and the exports of its kind. This crate never depends on a host crate,
//! and never builds into the target directory of the cargo that may be running it.

#![forbid(unsafe_code)]

mod builder;
mod cargo;
mod component;
mod environment;
mod error;
mod manifest;
mod output;
mod scaffold;
mod toolchain;

pub use builder::{Builder, BuiltPlugin, build, default_target_dir};
pub use error::BuildError;
pub use manifest::{Capability, Kind, Manifest};
pub use scaffold::scaffold;
pub use toolchain::Toolchain;

/// What plugins are compiled for.
pub const TARGET: &str = "wasm32-unknown-unknown";
