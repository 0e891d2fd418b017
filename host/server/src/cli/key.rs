//! `mortise key`: keys for applications. The key is shown once; the server keeps its hash.

use std::process::ExitCode;

use anyhow::{Result, bail};
use clap::Subcommand;

use crate::http::hash_key;

/// Bytes of randomness in a key.
const KEY_BYTES: usize = 32;

#[derive(Debug, Subcommand)]
pub(super) enum KeyCommand {
    /// Prints a new key, and its line for api_keys_file
    New {
        /// Who the key is for
        tenant: String,
    },
}

impl KeyCommand {
    pub(super) fn run(self) -> Result<ExitCode> {
        let Self::New { tenant } = self;
        if tenant.is_empty() || tenant.contains(|c: char| c.is_whitespace() || c == '#') {
            bail!("a tenant is one word without `#`, got {tenant:?}");
        }
        let key = format!("mk-{}", hex::encode(rand::random::<[u8; KEY_BYTES]>()));
        println!("key, shown once:          {key}");
        println!("line for api_keys_file:   {} {tenant}", hash_key(&key));
        Ok(ExitCode::SUCCESS)
    }
}
