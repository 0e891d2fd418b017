//! What models are made of, where architectures differ; plain data, the layers act on it.

/// What the MLP's gate goes through.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Activation {
    /// `x / (1 + exp(-x))`
    #[default]
    Silu,
    /// The approximation of GELU that has a tanh.
    GeluTanh,
}

/// Where an architecture's layers differ from Llama's, which is the default.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Variation {
    /// Whether q, k and v projections have a bias.
    pub qkv_bias: bool,
    /// Whether the output projection has a bias.
    pub output_bias: bool,
    /// Whether the MLP's projections have a bias.
    pub mlp_bias: bool,
    /// Whether queries and keys are normed per head.
    pub qk_norm: bool,
    /// Whether one weight holds q, k and v, and one the MLP's gate and up projections.
    pub fused_projections: bool,
    /// What the MLP's gate goes through.
    pub activation: Activation,
    /// Whether one is added to the weights of norms.
    pub unit_offset_norms: bool,
    /// Whether what attention and the MLP give is normed before it is added.
    pub output_norms: bool,
    /// Whether embeddings are multiplied by the root of their width.
    pub scaled_embedding: bool,
    /// Factor of attention's scores, where it is not the inverse root of a head's width.
    pub attention_scale: Option<f32>,
    /// Soft limit of attention's scores.
    pub attention_softcap: Option<f32>,
    /// Soft limit of the logits.
    pub logits_softcap: Option<f32>,
}

/// A mixture of experts in place of the MLP.
#[derive(Clone, Debug, PartialEq)]
pub struct Experts {
    /// Experts of a layer.
    pub count: usize,
    /// Experts of each token.
    pub per_token: usize,
    /// Width inside an expert.
    pub intermediate_size: usize,
    /// Whether the weights of a token's experts are made to add up to one.
    pub normalised: bool,
    /// Whether a layer has experts, per layer; the others have an MLP.
    pub layers: Vec<bool>,
}
