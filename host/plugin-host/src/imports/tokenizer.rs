//! `tokenizer`: the embedder's, where it was granted.

use std::sync::Arc;

use crate::bindings::tokenizer::Host;
use crate::bindings::types::Error;
use crate::capability::TokenizerCapability;
use crate::guest::Guest;
use crate::imports::error;

impl Guest {
    fn tokenizer(&self) -> Result<Arc<dyn TokenizerCapability>, Error> {
        // Linked only where there is one; a guest that gets here without is told no, not trusted.
        self.lent.tokenizer.clone().ok_or_else(|| error("denied", "tokenizer was not granted"))
    }
}

impl Host for Guest {
    fn count(&mut self, text: String) -> Result<u32, Error> {
        let tokens = self.tokenizer()?.encode(&text)?;
        Ok(u32::try_from(tokens.len()).unwrap_or(u32::MAX))
    }

    fn encode(&mut self, text: String) -> Result<Vec<u32>, Error> {
        Ok(self.tokenizer()?.encode(&text)?)
    }

    fn decode(&mut self, ids: Vec<u32>) -> Result<String, Error> {
        Ok(self.tokenizer()?.decode(&ids)?)
    }
}
