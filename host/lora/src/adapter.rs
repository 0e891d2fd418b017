//! One adapter in memory: immutable, named by its content.

use std::collections::BTreeSet;
use std::path::Path;

use kernels::LoraPair;
use request::AdapterGeneration;

use crate::config::PeftConfig;
use crate::registry::Reservation;
use crate::{LoraError, ModelShape, files};

/// Weights of one adapter, laid out for shrink and expand. Shared by all requests that lease it.
#[derive(Debug)]
pub struct Adapter {
    generation: AdapterGeneration,
    /// One entry per module of the shape it was loaded for.
    modules: Vec<Option<LoraPair>>,
    targets: Vec<String>,
    rank_max: usize,
    bytes: u64,
    /// Gives the bytes back when the adapter is dropped.
    _reservation: Option<Reservation>,
}

impl Adapter {
    /// Loads a PEFT directory for a base model, outside any registry.
    ///
    /// # Errors
    /// See [`LoraError`].
    pub fn from_dir(dir: &Path, shape: &ModelShape) -> Result<Self, LoraError> {
        Self::load(dir, shape, |_| Ok(None))
    }

    /// As [`Adapter::from_dir`]; `reserve` is asked for the bytes before the weights are read.
    pub(crate) fn load(
        dir: &Path,
        shape: &ModelShape,
        reserve: impl FnOnce(u64) -> Result<Option<Reservation>, LoraError>,
    ) -> Result<Self, LoraError> {
        let config = PeftConfig::from_dir(dir)?;
        let targets = config.targets(shape)?;
        // The widest that a file may have.
        let width = size_of::<f32>();
        let bytes = targets.iter().try_fold(0_u64, |sum, target| {
            let module = &shape.modules[target.module];
            let sizes = (target.rank, module.in_features, module.out_features);
            sum.checked_add(LoraPair::bytes_for(sizes, width)?)
        });
        let bytes = bytes.ok_or_else(|| config.invalid("r", "the weights can't be addressed"))?;
        let reservation = reserve(bytes)?;
        let loaded = files::load(dir, shape, &targets)?;
        let names: BTreeSet<&str> = targets
            .iter()
            .map(|target| {
                let path = shape.modules[target.module].path.as_str();
                path.rsplit('.').next().unwrap_or(path)
            })
            .collect();
        Ok(Self {
            generation: loaded.generation,
            modules: loaded.modules,
            targets: names.into_iter().map(str::to_owned).collect(),
            rank_max: targets.iter().map(|target| target.rank).max().unwrap_or(0),
            bytes,
            _reservation: reservation,
        })
    }

    /// Hash of configuration and weights.
    #[must_use]
    pub fn generation(&self) -> AdapterGeneration {
        self.generation
    }

    /// Largest rank of any module.
    #[must_use]
    pub fn rank_max(&self) -> usize {
        self.rank_max
    }

    /// Bytes of weights.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Last names of the modules it changes, such as `q_proj`, sorted.
    #[must_use]
    pub fn targets(&self) -> &[String] {
        &self.targets
    }

    /// The pair of a module, by its index in the shape.
    #[must_use]
    pub fn module(&self, index: usize) -> Option<&LoraPair> {
        self.modules.get(index)?.as_ref()
    }

    /// Whether the adapter was loaded for a model of this shape.
    #[must_use]
    pub fn fits(&self, shape: &ModelShape) -> bool {
        self.modules.len() == shape.modules.len()
            && self.modules.iter().zip(&shape.modules).all(|(pair, module)| {
                pair.as_ref().is_none_or(|pair| {
                    pair.in_features() == module.in_features
                        && pair.out_features() == module.out_features
                })
            })
    }
}
