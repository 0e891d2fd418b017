//! Who can be named in a request's `model`.

/// One name on the wire.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModelCard {
    /// The name.
    pub id: String,
    /// What it stands for.
    pub kind: ModelKind,
}

/// What a name stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ModelKind {
    /// The base model.
    Base,
    /// The base model with an adapter.
    Adapter {
        /// Identity of its content, in hex; `None` before it was first loaded.
        generation: Option<String>,
        /// Where it was loaded from.
        path: String,
        /// The base model's name.
        parent: String,
    },
    /// An agent plugin.
    Agent {
        /// Its active version.
        version: String,
    },
}
