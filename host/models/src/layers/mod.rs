//! What all architectures are made of. Batching, paging and LoRA live here, so an architecture is a
//! description.

pub(crate) mod attention;
pub(crate) mod decoder;
mod experts;
mod fused;
pub(crate) mod linear;
pub(crate) mod loader;
pub(crate) mod mlp;
pub(crate) mod norm;
pub(crate) mod step;
