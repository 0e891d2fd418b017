//! Where a model is to live: what the operator asked for, and what there is.

use candle_core::Device;
use kernels::KernelError;

use crate::ModelError;

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
                // Layers have no path for it yet; see `kernels::ops::*::cuda`.
                Ok(_) => cpu(Some("models do not run on cuda devices yet".to_owned())),
                // Who built without CUDA expects no device.
                Err(KernelError::NotBuiltWithCuda { .. }) => cpu(None),
                Err(error) => cpu(Some(error.to_string())),
            }),
        }
    }
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
        let not_yet = "models do not run on cuda devices yet";
        let check = |choice: DeviceChoice, find: Find, expect: Option<Option<&str>>| {
            let found = choice.place_on(find).ok().map(|placement| placement.passed_over);
            assert_eq!(found, expect.map(|reason| reason.map(str::to_owned)), "{choice:?}");
        };
        check(DeviceChoice::Cpu, never, Some(None));
        check(DeviceChoice::Auto, not_built, Some(None));
        check(DeviceChoice::Auto, broken, Some(Some("no driver")));
        check(DeviceChoice::Auto, there, Some(Some(not_yet)));
        check(DeviceChoice::Cuda, not_built, None);
        check(DeviceChoice::Cuda, broken, None);
        check(DeviceChoice::Cuda, there, Some(None));
    }
}
