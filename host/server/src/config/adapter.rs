//! `NAME=DIR`, or an `[[adapter]]` table: a name on the wire and a PEFT directory.

use std::path::PathBuf;
use std::str::FromStr;

use serde::Deserialize;

/// An adapter to load.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct NamedAdapter {
    /// Its name in requests.
    pub(crate) name: String,
    /// Its PEFT directory, or an address.
    pub(crate) path: PathBuf,
}

impl FromStr for NamedAdapter {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.split_once('=') {
            Some((name, path)) if !name.is_empty() && !path.is_empty() => {
                Ok(Self { name: name.to_owned(), path: path.into() })
            }
            _ => Err(format!("expected NAME=DIR, got `{text}`")),
        }
    }
}
