//! Adapters that lie elsewhere, as a server fetches them: the crate `sources` with what the operator
//! allowed, and the secrets of the environment. Loads nothing: that is `adapters`' affair.

use std::time::Duration;

use anyhow::{Context, Result};
use sources::{Sources, SourcesConfig};

use crate::config::Config;

/// Folder of fetched adapters in the data directory.
const FETCHED_DIR: &str = "fetched";
/// Where Hugging Face's hub is, unless the configuration or the environment says otherwise.
const HUB: &str = "https://huggingface.co";
/// What the variables begin with that object stores are configured by.
const PREFIXES: [&str; 3] = ["AWS_", "GOOGLE_", "AZURE_"];

/// What fetches adapters; `None` where nothing may be fetched.
pub(super) fn open(config: &Config) -> Result<Option<Sources>> {
    if config.adapter_sources.is_empty() {
        return Ok(None);
    }
    let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    let endpoint = config.hf_endpoint.clone().or_else(|| variable("HF_ENDPOINT"));
    let limits = &config.limits;
    let dir = config.data_dir.join(FETCHED_DIR);
    super::create_dir(&dir)?;
    let sources = Sources::open(SourcesConfig {
        dir: dir.clone(),
        allowed: config.adapter_sources.clone(),
        cache_bytes_max: limits.source_cache_bytes_max,
        adapter_bytes_max: limits.source_adapter_bytes_max,
        timeout: Duration::from_secs(limits.source_fetch_s_max),
        hub_endpoint: endpoint.unwrap_or_else(|| HUB.to_owned()),
        hub_token: variable("HF_TOKEN"),
        options: std::env::vars_os().filter_map(option).collect(),
    });
    sources.map(Some).with_context(|| format!("open {}", dir.display()))
}

/// A variable that is for object stores.
fn option((key, value): (std::ffi::OsString, std::ffi::OsString)) -> Option<(String, String)> {
    let (key, value) = (key.into_string().ok()?, value.into_string().ok()?);
    let is_one = PREFIXES.iter().any(|prefix| key.starts_with(prefix));
    is_one.then(|| (key.to_ascii_lowercase(), value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stores_are_told_their_own_variables() {
        let check = |key: &str, expect: Option<&str>| {
            let found = option((key.into(), "v".into()));
            assert_eq!(found, expect.map(|key| (key.to_owned(), "v".to_owned())), "{key}");
        };
        check("AWS_ACCESS_KEY_ID", Some("aws_access_key_id"));
        check("GOOGLE_SERVICE_ACCOUNT", Some("google_service_account"));
        check("AZURE_STORAGE_ACCOUNT_NAME", Some("azure_storage_account_name"));
        check("PATH", None);
        check("MY_AWS_KEY", None);
    }
}
