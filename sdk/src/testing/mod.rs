//! Native tests of a plugin's logic: `cargo test`, no Wasm, no host. A [`Harness`] holds what the
//! imports answer, calls a plugin as the host would (a fresh instance each time, `new` first), holds
//! it to the host's rules, and keeps what it logged and counted.
//!
//! ```
//! use mortise_sdk::testing::Harness;
//! use mortise_sdk::{kv, log};
//!
//! let harness = Harness::new();
//! harness.with(|| {
//!     kv::incr("seen", 2, None).expect("counts");
//!     log::warn("twice");
//! });
//! assert_eq!(harness.with(|| kv::incr("seen", 1, None)), Ok(3));
//! assert_eq!(harness.logs()[0].message, "twice");
//! ```

mod harness;
mod words;
pub(crate) mod world;

pub use harness::{Harness, Stream};
pub use world::LogLine;
