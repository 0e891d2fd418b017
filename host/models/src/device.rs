//! Where a model is to live: what the operator asked for, and what there is.

use candle_core::{DType, Device};
use kernels::{KernelError, KvFormat, WeightFormat, has_device_kernel};

use crate::weights::Weights;
use crate::{LoadOptions, ModelConfig, ModelError, Quantization};

/// What the operator asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DeviceChoice {
    /// A CUDA device if there is one and models can use it, else the CPU.
    #[default]
    Auto,
    /// The CPU.
    Cpu,
    /// A CUDA device, or an error.
    Cuda,
}

/// What a choice came to.
#[derive(Clone, Debug)]
pub struct Placement {
    /// The device.
    pub device: Device,
    /// Why it is not a CUDA device, where one could have been expected.
    pub passed_over: Option<String>,
}

impl DeviceChoice {
    /// The device that this choice comes to on this machine and in this build.
    ///
    /// # Errors
    /// [`DeviceChoice::Cuda`] in a build without CUDA or on a machine without a device or driver.
    pub fn place(self) -> Result<Placement, ModelError> {
        self.place_on(kernels::cuda_device)
    }

    fn place_on(
        self,
        find: impl FnOnce() -> Result<Device, KernelError>,
    ) -> Result<Placement, ModelError> {
        let cpu = |passed_over| Placement { device: Device::Cpu, passed_over };
        match self {
            Self::Cpu => Ok(cpu(None)),
            Self::Cuda => Ok(Placement { device: find()?, passed_over: None }),
            Self::Auto => Ok(match find() {
                Ok(device) => Placement { device, passed_over: None },
                // Who built without CUDA expects no device.
                Err(KernelError::NotBuiltWithCuda { .. }) => cpu(None),
                Err(error) => cpu(Some(error.to_string())),
            }),
        }
    }
}

/// What rows are computed in: floats on the CPU, on a device what the embedding gives.
pub(crate) fn activations(
    config: &ModelConfig,
    embedding: WeightFormat,
    options: &LoadOptions,
) -> DType {
    let rounded = config.tie_word_embeddings && options.quantization.is_some();
    match embedding {
        _ if options.device.is_cpu() => DType::F32,
        WeightFormat::F32 if !rounded => DType::F32,
        WeightFormat::F16 if !rounded => DType::F16,
        _ => DType::BF16,
    }
}

/// Refuses a model that has something without a path on devices, before anything is copied.
pub(crate) fn check_device(
    config: &ModelConfig,
    (weights, options): (&Weights, &LoadOptions),
    dtype: DType,
) -> Result<(), ModelError> {
    let refused =
        |reason: String| Err(ModelError::Device { architecture: config.architecture, reason });
    if config.experts.is_some() {
        return refused("experts have no kernels".to_owned());
    }
    if !matches!(options.quantization, None | Some(Quantization::Q8_0)) {
        return refused("of rounded weights only q8_0 has kernels".to_owned());
    }
    if let Some(format) = weights.blocks_other_than(WeightFormat::Q8_0) {
        return refused(format!("weights in {format:?} have no kernels, q8_0 has"));
    }
    let columns = [config.hidden_size, config.intermediate_size, config.heads * config.head_dim];
    if let Some(width) = columns.into_iter().find(|width| !width.is_multiple_of(32))
        && options.quantization.is_some()
    {
        return refused(format!("{width} columns are no whole blocks of q8_0"));
    }
    let head_dim = config.head_dim;
    if !has_device_kernel(head_dim, dtype != DType::F32) {
        return refused(format!("attention has no kernel for heads of {head_dim} in {dtype:?}"));
    }
    let ropes = [Some(&config.rope), config.local_rope.as_ref()];
    match ropes.into_iter().flatten().any(|rope| rope.rotary_dim != rope.head_dim) {
        true => refused("heads that are turned in part have no kernel".to_owned()),
        false => Ok(()),
    }
}

/// Refuses a cache that a device does not keep: keys stay as they are computed there.
pub(crate) fn check_format(
    config: &ModelConfig,
    (own, asked): (KvFormat, KvFormat),
    device: &Device,
) -> Result<(), ModelError> {
    if device.is_cpu() || own == asked {
        return Ok(());
    }
    let reason = format!("keys and values are kept in {own:?}, not in {asked:?}");
    Err(ModelError::Device { architecture: config.architecture, reason })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_choice_comes_to_what_there_is() {
        type Find = fn() -> Result<Device, KernelError>;
        let not_built: Find = || Err(KernelError::NotBuiltWithCuda { op: "device" });
        let broken: Find =
            || Err(KernelError::Tensor(candle_core::Error::Msg("no driver".to_owned())));
        // The CPU stands for a device that was found.
        let there: Find = || Ok(Device::Cpu);
        let never: Find = || unreachable!("nobody asked for a device");
        let check = |choice: DeviceChoice, find: Find, expect: Option<Option<&str>>| {
            let found = choice.place_on(find).ok().map(|placement| placement.passed_over);
            assert_eq!(found, expect.map(|reason| reason.map(str::to_owned)), "{choice:?}");
        };
        check(DeviceChoice::Cpu, never, Some(None));
        check(DeviceChoice::Auto, not_built, Some(None));
        check(DeviceChoice::Auto, broken, Some(Some("no driver")));
        check(DeviceChoice::Auto, there, Some(None));
        check(DeviceChoice::Cuda, not_built, None);
        check(DeviceChoice::Cuda, broken, None);
        check(DeviceChoice::Cuda, there, Some(None));
    }
}
