//! One adapter in memory: immutable, named by its content.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use kernels::LoraPair;
use request::AdapterGeneration;

use crate::blend;
use crate::files::{self, Loaded};
use crate::index::{self, Plan};
use crate::registry::Hold;
use crate::seen::Seen;
use crate::{LoraError, ModelShape};

/// Weights of one adapter, laid out for shrink and expand.
#[derive(Debug)]
pub(crate) struct Weights {
    generation: AdapterGeneration,
    /// One entry per module of the shape it was loaded for: a part per rank, or nothing.
    modules: Vec<Vec<LoraPair>>,
    targets: Vec<String>,
    rank_max: usize,
    bytes: u64,
    /// Of a blend, what each part is.
    parts: Vec<AdapterGeneration>,
    seen: Option<Seen>,
}

impl Weights {
    /// Loads a PEFT directory for a base model. `check` sees how many bytes the weights will take
    /// before they are read; `seen` is what an earlier load left.
    pub(crate) fn load(
        dir: &Path,
        shape: &ModelShape,
        seen: Option<&Seen>,
        check: impl FnOnce(u64) -> Result<(), LoraError>,
    ) -> Result<Self, LoraError> {
        let plan = Plan::read(dir, shape)?;
        check(plan.bytes)?;
        let (targets, rank_max) = (plan.names(shape), plan.rank_max());
        let loaded = files::load(plan.file, shape, &plan.targets, seen)?;
        let Loaded { generation, modules, seen } = loaded;
        let (bytes, parts) = (plan.bytes, Vec::new());
        Ok(Self { generation, modules, targets, rank_max, bytes, parts, seen })
    }

    /// Loads several directories as one adapter, each with its weight; `check` as in
    /// [`Weights::load`].
    pub(crate) fn load_blend(
        parts: &[(&Path, f32)],
        shape: &ModelShape,
        check: impl FnOnce(u64) -> Result<(), LoraError>,
    ) -> Result<Self, LoraError> {
        let plans = index::plans(parts, shape)?;
        let bytes = index::blend_bytes(&plans, shape).unwrap_or(u64::MAX);
        check(bytes)?;
        let rank_max = index::blend_ranks(&plans, shape).into_iter().max().unwrap_or(0);
        let names = plans.iter().flat_map(|(plan, _)| plan.names(shape));
        let targets = names.collect::<BTreeSet<String>>().into_iter().collect();
        let (generations, modules) = files::load_blend(plans, shape)?;
        let weights = parts.iter().map(|(_, weight)| *weight);
        let weighted: Vec<_> = generations.iter().copied().zip(weights).collect();
        let generation = blend::identity(&weighted);
        let (parts, seen) = (generations, None);
        Ok(Self { generation, modules, targets, rank_max, bytes, parts, seen })
    }

    /// What spares the next load of the same files the hashing.
    pub(crate) fn seen(&self) -> Option<Seen> {
        self.seen
    }

    /// Of a blend, what each part is.
    pub(crate) fn parts(&self) -> &[AdapterGeneration] {
        &self.parts
    }

    /// Weights without modules, for tests of who holds what.
    #[cfg(test)]
    pub(crate) fn fake(generation: AdapterGeneration, bytes: u64) -> Self {
        let (modules, targets) = (Vec::new(), Vec::new());
        Self { generation, modules, targets, rank_max: 1, bytes, parts: Vec::new(), seen: None }
    }

    pub(crate) fn generation(&self) -> AdapterGeneration {
        self.generation
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }
}

/// An adapter that a request holds: as long as it lives, its weights stay where they are. Shared by
/// everything that works for the request.
#[derive(Debug)]
pub struct Adapter {
    /// Before the hold: who is told that it is over may count on the weights being let go.
    weights: Arc<Weights>,
    _hold: Option<Hold>,
}

impl Adapter {
    /// Loads a PEFT directory for a base model, outside any registry.
    ///
    /// # Errors
    /// See [`LoraError`].
    pub fn from_dir(dir: &Path, shape: &ModelShape) -> Result<Self, LoraError> {
        let weights = Arc::new(Weights::load(dir, shape, None, |_| Ok(()))?);
        Ok(Self { weights, _hold: None })
    }

    pub(crate) fn held(weights: Arc<Weights>, hold: Hold) -> Self {
        Self { weights, _hold: Some(hold) }
    }

    /// Hash of configuration and weights.
    #[must_use]
    pub fn generation(&self) -> AdapterGeneration {
        self.weights.generation
    }

    /// Largest rank of any module.
    #[must_use]
    pub fn rank_max(&self) -> usize {
        self.weights.rank_max
    }

    /// Bytes of weights.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.weights.bytes
    }

    /// Last names of the modules it changes, such as `q_proj`, sorted.
    #[must_use]
    pub fn targets(&self) -> &[String] {
        &self.weights.targets
    }

    /// The pair of a module, by its index in the shape; of a model that is divided, the first rank's part.
    #[must_use]
    pub fn module(&self, index: usize) -> Option<&LoraPair> {
        self.part(index, 0)
    }

    /// One rank's part of the pair of a module.
    #[must_use]
    pub fn part(&self, index: usize, rank: usize) -> Option<&LoraPair> {
        self.weights.modules.get(index)?.get(rank)
    }

    /// Whether the adapter was loaded for a model of this shape.
    #[must_use]
    pub fn fits(&self, shape: &ModelShape) -> bool {
        let modules = &self.weights.modules;
        modules.len() == shape.modules.len()
            && modules.iter().zip(&shape.modules).all(|(parts, module)| {
                let whole = (module.in_features, module.out_features);
                let cuts = module.cuts.iter().map(|cut| (cut.inputs.len(), cut.out_features()));
                let sizes = parts.iter().map(|part| (part.in_features(), part.out_features()));
                match (parts.is_empty(), module.cuts.is_empty()) {
                    (true, _) => true,
                    (_, true) => sizes.eq([whole]),
                    (_, false) => sizes.eq(cuts),
                }
            })
    }
}
