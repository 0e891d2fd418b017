//! The operator's settings for this plugin: `[config]` of its `plugin.toml`, overridden key by key.

use serde::de::DeserializeOwned;

use super::backend;
use crate::types::{Error, Result};

/// One top-level key: a string as it is, anything else as JSON.
#[must_use]
pub fn get(key: &str) -> Option<String> {
    backend::config_get(key)
}

/// The whole table, as one JSON object.
#[must_use]
pub fn all_json() -> String {
    backend::config_all_json()
}

/// The whole table. Derive `Deserialize` with `deny_unknown_fields`, and a misspelt key is refused
/// when the plugin is installed.
///
/// # Errors
/// `invalid` with the key or the place, if the table does not have the shape of `T`.
pub fn read<T: DeserializeOwned>() -> Result<T> {
    serde_json::from_str(&all_json()).map_err(|error| Error::invalid(format!("config: {error}")))
}
