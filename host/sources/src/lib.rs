//! Adapters that lie elsewhere: object stores, web servers and Hugging Face's hub. Fetched into directories
//! of this machine that are named by their content.
//!
//! Parts: [`Location`] and [`Prefix`] (addresses, and what an operator allows of them), `remote` (the other
//! side: `store`, `web`, `hub`, over `http`), `cache` (directories under a budget), `fetch` (from one to the
//! other).
//!
//! Fetches nothing that was not allowed, shows nothing that is not whole, and knows nothing of what an
//! adapter's files mean. Reads no environment: secrets are handed in.

#![forbid(unsafe_code)]

mod cache;
mod error;
mod fetch;
mod http;
mod hub;
mod location;
mod remote;
mod store;
mod web;

pub use cache::Fetched;
pub use error::SourceError;
pub use fetch::{Sources, SourcesConfig};
pub use location::{Location, Prefix, Scheme};

#[cfg(test)]
mod tests;
