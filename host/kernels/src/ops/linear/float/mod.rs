//! Weights in floats, in panels of sixteen outputs: `[out/16][in][16]`, each as wide as in the file.

mod scalar;
#[cfg(target_arch = "x86_64")]
mod simd;

use crate::KernelError;
use crate::WeightBytes;
use crate::aligned::LANES;
use crate::dispatch::Level;
use crate::elements::{Element, Elements, with_elements};
use crate::ops::columns::{Columns, Tile};
use crate::simd::vector_levels;

vector_levels! {
    fn gemm(x: &[f32], weight: &Panels<'_>, out: &mut Columns<'_>)
}

/// Panels that one task works on.
struct Panels<'a> {
    held: &'a Elements,
    /// First of the panels.
    first: usize,
    panels: usize,
    /// One float per output of these panels, padded to sixteen; empty without a bias.
    bias: &'a [f32],
    /// Inputs.
    depth: usize,
}

impl Panels<'_> {
    /// The elements of these panels, `[panels][depth][16]`.
    fn of<'a, T: Element>(&self, elements: &'a [T]) -> &'a [T] {
        let len = self.depth * LANES;
        &elements[self.first * len..(self.first + self.panels) * len]
    }
}

/// A packed weight.
#[derive(Debug)]
pub(super) struct FloatPanels {
    elements: Elements,
    depth: usize,
}

impl FloatPanels {
    pub(super) fn pack(weight: &WeightBytes<'_>) -> Result<Self, KernelError> {
        let (outputs, depth) = (weight.rows(), weight.columns());
        // Whatever the width, no more bytes than this are held.
        outputs
            .next_multiple_of(LANES)
            .checked_mul(depth)
            .filter(|len| *len <= isize::MAX as usize / size_of::<f32>())
            .ok_or(KernelError::Size { op: super::OP, what: "weight" })?;
        let panel = (LANES, LANES * depth);
        let place = |output: usize, input: usize| input * LANES + output;
        Ok(Self { elements: Elements::arranged(weight, panel, place), depth })
    }

    pub(super) fn bytes(&self) -> usize {
        self.elements.bytes()
    }

    pub(super) fn read_row(&self, index: usize, target: &mut [f32]) {
        let start = index / LANES * LANES * self.depth + index % LANES;
        with_elements!(&self.elements, elements => {
            for (input, value) in target.iter_mut().enumerate() {
                *value = elements[start + input * LANES].widen();
            }
        });
    }

    /// `x` holds the rows of the tile.
    pub(super) fn product(
        &self,
        level: Level,
        (x, bias): (&[f32], &[f32]),
        tile: Tile,
        out: &mut Columns<'_>,
    ) {
        let (first, panels) = (tile.panel, tile.panels);
        let weight = Panels { held: &self.elements, first, panels, bias, depth: self.depth };
        run(level, x, &weight, out);
    }
}
