//! API keys: a file of hashes, each with the tenant it stands for. Keys themselves are never stored.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use axum::extract::{FromRef, FromRequestParts};
use axum::http::HeaderMap;
use axum::http::header::AUTHORIZATION;
use axum::http::request::Parts;
use sha2::{Digest as _, Sha256};

use super::error::ApiError;

/// The tenant of everybody where there are no keys.
const TENANT_DEFAULT: &str = "default";
/// Longest name of a tenant, in bytes.
const TENANT_BYTES_MAX: usize = 64;

/// Hashes of keys, each with its tenant.
#[derive(Debug, Default)]
pub(crate) struct Keys {
    // Found by the hash of what was presented: a lookup's timing tells nothing about a key.
    tenants: HashMap<[u8; 32], String>,
}

/// Why a key file was refused.
#[derive(Debug, thiserror::Error)]
pub(crate) enum KeysError {
    /// The file can't be read.
    #[error("failed to read the key file {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A line is not a hash and a tenant.
    #[error("key file {}, line {line}: {reason}", path.display())]
    Line {
        /// The file.
        path: PathBuf,
        /// Counted from 1.
        line: usize,
        /// What is wrong.
        reason: String,
    },
}

impl Keys {
    /// Reads lines of `<sha256 of the key in hex> <tenant>`; `#` begins a comment.
    ///
    /// # Errors
    /// [`KeysError`], naming the line.
    pub(crate) fn from_file(path: &Path) -> Result<Self, KeysError> {
        let text = std::fs::read_to_string(path)
            .map_err(|source| KeysError::Read { path: path.to_owned(), source })?;
        Self::parse(&text).map_err(|(line, reason)| KeysError::Line {
            path: path.to_owned(),
            line,
            reason,
        })
    }

    fn parse(text: &str) -> Result<Self, (usize, String)> {
        let mut tenants = HashMap::new();
        for (index, line) in text.lines().enumerate() {
            let refuse = |reason: String| (index + 1, reason);
            let line = line.split('#').next().unwrap_or_default().trim();
            if line.is_empty() {
                continue;
            }
            let mut words = line.split_whitespace();
            let (Some(hash), Some(tenant), None) = (words.next(), words.next(), words.next())
            else {
                return Err(refuse("not `<sha256 of a key> <tenant>`".to_owned()));
            };
            let mut digest = [0; 32];
            hex::decode_to_slice(hash, &mut digest).map_err(|_| {
                refuse(format!("the hash has {} characters, not 64 hex digits", hash.len()))
            })?;
            if tenant.len() > TENANT_BYTES_MAX {
                let length = tenant.len();
                let reason = format!("a tenant of {length} bytes is over {TENANT_BYTES_MAX}");
                return Err(refuse(reason));
            }
            if tenants.insert(digest, tenant.to_owned()).is_some() {
                return Err(refuse("the same key stands on an earlier line".to_owned()));
            }
        }
        Ok(Self { tenants })
    }

    fn tenant(&self, key: &str) -> Option<&str> {
        let digest: [u8; 32] = Sha256::digest(key.as_bytes()).into();
        self.tenants.get(&digest).map(String::as_str)
    }
}

/// The line of a key file for `key`, without the tenant.
pub(crate) fn hash_key(key: &str) -> String {
    hex::encode(Sha256::digest(key.as_bytes()))
}

/// Who asks. As an argument of a handler it refuses those without a valid key.
#[derive(Clone, Debug)]
pub(crate) struct Tenant(pub(crate) String);

impl<S> FromRequestParts<S> for Tenant
where
    S: Send + Sync,
    Option<Arc<Keys>>: FromRef<S>,
{
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let Some(keys) = Option::<Arc<Keys>>::from_ref(state) else {
            return Ok(Self(TENANT_DEFAULT.to_owned()));
        };
        let key = bearer(&parts.headers).ok_or_else(ApiError::no_key)?;
        keys.tenant(key).map(|tenant| Self(tenant.to_owned())).ok_or_else(ApiError::wrong_key)
    }
}

/// What a request shows as its bearer: a client's key, the operator's token.
pub(crate) fn bearer(headers: &HeaderMap) -> Option<&str> {
    let (scheme, shown) = headers.get(AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| shown.trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_found_by_its_hash_alone() {
        let file = format!("# keys\n{} acme # main\n\n{} zeta\n", hash_key("one"), hash_key("two"));
        let keys = Keys::parse(&file).expect("a good file");
        assert_eq!(keys.tenant("one"), Some("acme"));
        assert_eq!(keys.tenant("two"), Some("zeta"));
        assert_eq!(keys.tenant(&hash_key("one")), None);
        assert_eq!(keys.tenant(""), None);
    }

    #[test]
    fn a_bad_line_is_named() {
        let good = hash_key("one");
        let check = |line: &str, expect: &str| {
            let (number, reason) = Keys::parse(&format!("# first\n{line}\n")).expect_err(line);
            assert_eq!(number, 2, "{line}");
            assert!(reason.contains(expect), "{reason}");
        };
        check(&good, "not `<sha256");
        check(&format!("{good} a b"), "not `<sha256");
        check("abcd acme", "4 characters");
        check(
            &format!("{} acme", good.replace(|c: char| c.is_ascii_digit(), "z")),
            "64 hex digits",
        );
        check(&format!("{good} {}", "t".repeat(TENANT_BYTES_MAX + 1)), "over 64");
        let longest = format!("{good} {}", "t".repeat(TENANT_BYTES_MAX));
        assert!(Keys::parse(&longest).is_ok());
    }

    #[test]
    fn a_key_stands_once() {
        let line = format!("{} acme", hash_key("one"));
        let (number, reason) = Keys::parse(&format!("{line}\n{line}\n")).expect_err("twice");
        assert_eq!(number, 2);
        assert!(reason.contains("earlier line"), "{reason}");
    }
}
