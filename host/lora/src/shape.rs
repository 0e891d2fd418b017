//! What an adapter may attach to: the linear modules of a base model, by their transformers path.
//!
//! A shape never holds weights; it is how `models` tells `lora` what exists without `lora` knowing
//! any architecture.

use kernels::{LoraPair, PairCut};

/// One linear module of the base model.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ModuleShape {
    /// Path as transformers names it, such as `model.layers.0.self_attn.q_proj`.
    pub path: String,
    /// Columns of the weight.
    pub in_features: usize,
    /// Rows of the weight.
    pub out_features: usize,
    /// Whether the forward pass applies adapters here. A module that PEFT could target but we do
    /// not adapt (embeddings, `lm_head`) is listed with `false`, so that an adapter which targets
    /// it is refused instead of applied in part.
    pub adaptable: bool,
    /// What each rank has of it, where several share the model; empty for one that has all.
    pub cuts: Vec<PairCut>,
}

impl ModuleShape {
    /// Bytes of a pair of this module for all ranks, its numbers `width` bytes each; `None` if that
    /// overflows.
    pub(crate) fn pair_bytes(&self, rank: usize, width: usize) -> Option<u64> {
        let sizes = (rank, self.in_features, self.out_features);
        LoraPair::bytes_divided(sizes, width, &self.cuts)
    }
}

/// Every module of a base model that an adapter may name. The position of a module in this list is
/// its index in [`crate::Adapter::module`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ModelShape {
    /// The modules, in the order of the model.
    pub modules: Vec<ModuleShape>,
}

impl ModelShape {
    /// Index of the module with this path.
    #[must_use]
    pub fn index_of(&self, path: &str) -> Option<usize> {
        self.modules.iter().position(|module| module.path == path)
    }
}
