//! Frequencies of the rotary embedding, and the angles of the rows of one step.
//!
//! Frequencies are computed in f32 as transformers does, since a model was trained with those.
//! Sine and cosine are computed in f64 and rounded, so that they do not vary with the C library.

use crate::KernelError;

const OP: &str = "rope";

/// How frequencies are changed for contexts longer than those of pretraining.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum RopeScaling {
    /// Not at all.
    None,
    /// Divided by a factor.
    Linear {
        /// The factor.
        factor: f64,
    },
    /// Low frequencies divided, high ones kept, those between interpolated.
    Llama3 {
        /// Divisor of low frequencies.
        factor: f64,
        /// Turns within the original context below which a frequency is low.
        low_freq_factor: f64,
        /// Turns within the original context above which a frequency is high.
        high_freq_factor: f64,
        /// Positions of pretraining.
        original_max_position_embeddings: f64,
    },
}

/// A rotary embedding.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RopeConfig {
    /// Width of a head, even.
    pub head_dim: usize,
    /// Base of the frequencies.
    pub theta: f64,
    /// Scaling of the frequencies.
    pub scaling: RopeScaling,
}

/// Frequencies of a rotary embedding.
#[derive(Clone, Debug)]
pub struct RopeTable {
    head_dim: usize,
    frequencies: Vec<f32>,
}

/// Cosine and sine for each row of a step and each frequency; the same for all layers.
#[derive(Clone, Debug)]
pub struct RopeAngles {
    pub(super) head_dim: usize,
    pub(super) rows: usize,
    /// `[rows, head_dim / 2]`
    pub(super) cos: Vec<f32>,
    /// `[rows, head_dim / 2]`
    pub(super) sin: Vec<f32>,
}

impl RopeTable {
    /// Computes the frequencies.
    ///
    /// # Errors
    /// A head of odd or no width.
    pub fn new(config: &RopeConfig) -> Result<Self, KernelError> {
        let head_dim = config.head_dim;
        if head_dim == 0 || !head_dim.is_multiple_of(2) {
            return Err(KernelError::Size { op: OP, what: "head_dim must be even" });
        }
        let frequency = |index: usize| {
            let exponent = (2 * index) as f32 / head_dim as f32;
            let power = config.theta.powf(f64::from(exponent)) as f32;
            scale(1.0 / power, &config.scaling)
        };
        Ok(Self { head_dim, frequencies: (0..head_dim / 2).map(frequency).collect() })
    }

    /// Angles of rows at these positions.
    #[must_use]
    pub fn angles(&self, positions: &[u32]) -> RopeAngles {
        let len = positions.len() * self.frequencies.len();
        let (mut cos, mut sin) = (Vec::with_capacity(len), Vec::with_capacity(len));
        for position in positions {
            for frequency in &self.frequencies {
                let angle = f64::from(*position as f32 * frequency);
                cos.push(angle.cos() as f32);
                sin.push(angle.sin() as f32);
            }
        }
        RopeAngles { head_dim: self.head_dim, rows: positions.len(), cos, sin }
    }
}

fn scale(frequency: f32, scaling: &RopeScaling) -> f32 {
    match *scaling {
        RopeScaling::None => frequency,
        RopeScaling::Linear { factor } => frequency / factor as f32,
        RopeScaling::Llama3 {
            factor,
            low_freq_factor,
            high_freq_factor,
            original_max_position_embeddings: context,
        } => {
            let wavelength = 2.0 * std::f32::consts::PI / frequency;
            if wavelength > (context / low_freq_factor) as f32 {
                return frequency / factor as f32;
            }
            if wavelength < (context / high_freq_factor) as f32 {
                return frequency;
            }
            let smooth = (context as f32 / wavelength - low_freq_factor as f32)
                / (high_freq_factor - low_freq_factor) as f32;
            (1.0 - smooth) * frequency / factor as f32 + smooth * frequency
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scalings_change_the_frequencies_they_should() {
        let config = |scaling| RopeConfig { head_dim: 64, theta: 500_000.0, scaling };
        let plain = RopeTable::new(&config(RopeScaling::None)).unwrap().frequencies;
        assert_eq!(plain[0], 1.0);
        let linear = RopeScaling::Linear { factor: 4.0 };
        let linear = RopeTable::new(&config(linear)).unwrap().frequencies;
        let llama3 = RopeScaling::Llama3 {
            factor: 8.0,
            low_freq_factor: 1.0,
            high_freq_factor: 4.0,
            original_max_position_embeddings: 8192.0,
        };
        let llama3 = RopeTable::new(&config(llama3)).unwrap().frequencies;
        for i in 0..32 {
            assert_eq!(linear[i], plain[i] / 4.0);
            let turns = 8192.0 * plain[i] / (2.0 * std::f32::consts::PI);
            if turns > 4.0 {
                assert_eq!(llama3[i], plain[i]);
            } else if turns < 1.0 {
                assert_eq!(llama3[i], plain[i] / 8.0);
            } else {
                assert!(llama3[i] < plain[i] && llama3[i] > plain[i] / 8.0);
            }
        }
    }

    #[test]
    fn odd_heads_are_refused() {
        for head_dim in [0, 1, 15] {
            let config = RopeConfig { head_dim, theta: 1e4, scaling: RopeScaling::None };
            assert!(RopeTable::new(&config).is_err());
        }
    }
}
