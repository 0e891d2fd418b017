//! How a request is served, as far as it changes nothing in the answer.

/// What a client says about its place in the queue and its share of the cache.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServingOptions {
    /// Lower runs earlier; requests of equal priority run in order of arrival. vLLM's meaning.
    pub priority: i64,
    /// Keeps this request's prefix blocks apart from those of other salts of the same tenant. Not
    /// empty where it is given.
    pub cache_salt: Option<String>,
}
