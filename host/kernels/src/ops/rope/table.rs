//! Frequencies of the rotary embedding, and the angles of the rows of one step.
//!
//! Frequencies are computed in f32 as transformers does, since a model was trained with those.
//! Sine and cosine are computed in f64 and rounded, so that they do not vary with the C library.

use crate::KernelError;
use crate::on_device::Memo;

const OP: &str = "rope";

/// How frequencies are changed for contexts longer than those of pretraining.
#[derive(Clone, Debug, PartialEq)]
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
    /// Each frequency divided by its own factor, and sine and cosine multiplied: one of the two sets
    /// that LongRoPE has.
    Each {
        /// A divisor per frequency.
        factors: Vec<f32>,
        /// Factor of sine and cosine.
        attention_factor: f32,
    },
}

/// A rotary embedding.
#[derive(Clone, Debug, PartialEq)]
pub struct RopeConfig {
    /// Width of a head.
    pub head_dim: usize,
    /// How much of a head is turned, from its start: even, at most all of it.
    pub rotary_dim: usize,
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
    /// Factor of sine and cosine.
    amplitude: f32,
}

/// Cosine and sine for each row of a step and each frequency; the same for all layers.
#[derive(Clone, Debug)]
pub struct RopeAngles {
    pub(crate) head_dim: usize,
    /// Frequencies: half of what is turned of a head.
    pub(crate) half: usize,
    pub(crate) rows: usize,
    /// `[rows, half]`
    pub(crate) cos: Vec<f32>,
    /// `[rows, half]`
    pub(crate) sin: Vec<f32>,
    /// The copy on a device.
    pub(crate) memo: Memo,
}

impl RopeTable {
    /// Computes the frequencies.
    ///
    /// # Errors
    /// A turned part that is odd, empty or wider than the head; factors that are not one per frequency.
    pub fn new(config: &RopeConfig) -> Result<Self, KernelError> {
        let RopeConfig { head_dim, rotary_dim, theta, ref scaling } = *config;
        if rotary_dim == 0 || !rotary_dim.is_multiple_of(2) || rotary_dim > head_dim {
            let what = "rotary_dim must be even and within head_dim";
            return Err(KernelError::Size { op: OP, what });
        }
        let amplitude = match scaling {
            RopeScaling::Each { factors, .. } if factors.len() != rotary_dim / 2 => {
                return Err(KernelError::Size { op: OP, what: "one factor per frequency" });
            }
            RopeScaling::Each { attention_factor, .. } => *attention_factor,
            _ => 1.0,
        };
        let frequency = |index: usize| {
            let exponent = (2 * index) as f32 / rotary_dim as f32;
            let power = theta.powf(f64::from(exponent)) as f32;
            scaled(power, index, scaling)
        };
        let frequencies = (0..rotary_dim / 2).map(frequency).collect();
        Ok(Self { head_dim, frequencies, amplitude })
    }

    /// Angles of rows at these positions.
    #[must_use]
    pub fn angles(&self, positions: &[u32]) -> RopeAngles {
        let len = positions.len() * self.frequencies.len();
        let (mut cos, mut sin) = (Vec::with_capacity(len), Vec::with_capacity(len));
        for position in positions {
            for frequency in &self.frequencies {
                let angle = f64::from(*position as f32 * frequency);
                cos.push(angle.cos() as f32 * self.amplitude);
                sin.push(angle.sin() as f32 * self.amplitude);
            }
        }
        let (head_dim, half) = (self.head_dim, self.frequencies.len());
        RopeAngles { head_dim, half, rows: positions.len(), cos, sin, memo: Memo::default() }
    }
}

/// Frequency `index`, whose unscaled value is the inverse of `power`.
fn scaled(power: f32, index: usize, scaling: &RopeScaling) -> f32 {
    let frequency = 1.0 / power;
    match *scaling {
        RopeScaling::None => frequency,
        RopeScaling::Linear { factor } => frequency / factor as f32,
        RopeScaling::Each { ref factors, .. } => 1.0 / (factors[index] * power),
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
        let config =
            |scaling| RopeConfig { head_dim: 80, rotary_dim: 64, theta: 500_000.0, scaling };
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
    fn factors_divide_frequencies_and_multiply_angles() {
        let config = |scaling| RopeConfig { head_dim: 8, rotary_dim: 4, theta: 100.0, scaling };
        let each = |factors: &[f32]| {
            let (factors, attention_factor) = (factors.to_vec(), 1.5);
            RopeTable::new(&config(RopeScaling::Each { factors, attention_factor }))
        };
        let table = each(&[1.0, 4.0]).unwrap();
        assert_eq!(table.frequencies, [1.0, 1.0 / 40.0]);
        let angles = table.angles(&[0, 2]);
        assert_eq!((angles.half, angles.head_dim, angles.rows), (2, 8, 2));
        let expected = [1.5, 1.5, 1.5 * 2.0_f32.cos(), 1.5 * 0.05_f32.cos()];
        for (found, expected) in angles.cos.iter().zip(expected) {
            assert!((found - expected).abs() < 1e-6, "{found}, {expected}");
        }
        for factors in [&[1.0][..], &[1.0; 3], &[]] {
            assert!(matches!(each(factors), Err(KernelError::Size { .. })));
        }
    }

    #[test]
    fn odd_and_wide_parts_are_refused() {
        for (head_dim, rotary_dim) in [(0, 0), (1, 1), (15, 15), (16, 15), (16, 0), (16, 18)] {
            let scaling = RopeScaling::None;
            let config = RopeConfig { head_dim, rotary_dim, theta: 1e4, scaling };
            assert!(RopeTable::new(&config).is_err());
        }
        let config =
            RopeConfig { head_dim: 15, rotary_dim: 14, theta: 1e4, scaling: RopeScaling::None };
        assert!(RopeTable::new(&config).is_ok());
    }
}
