//! What makes two KV blocks equal: the same tokens behind the same tokens under the same key.

use request::TokenId;
use sha2::{Digest, Sha256};

/// Identity of a full block's content. Wide enough that equal hashes are equal content.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct BlockHash([u8; 32]);

impl BlockHash {
    /// Where a chain begins: a digest of the adapter's generation and the tenant's salt, so that no
    /// block is shared across either.
    #[must_use]
    pub fn root(cache_key: [u8; 32]) -> Self {
        Self(cache_key)
    }

    /// The block with these tokens behind this one.
    #[must_use]
    pub fn child(&self, tokens: &[TokenId]) -> Self {
        let mut hasher = Sha256::new();
        hasher.update(self.0);
        for token in tokens {
            hasher.update(token.to_le_bytes());
        }
        Self(hasher.finalize().into())
    }
}
