//! What is found of a row in vectors, compiled per instruction set.

pub(super) use block_sums::run as block_sums;
pub(super) use block_weights::run as block_weights;
pub(super) use maxima::run as maxima;
pub(super) use weights::run as weights;

/// Tokens that are looked at together: sums of sixteen lanes over so many are exact in floats.
pub(super) const BLOCK: usize = 256;

/// A logit so far below the largest, in units of the temperature, has no weight: e^-28 < 2^-40.
pub(super) const NEGLIGIBLE: f32 = -28.0;

mod maxima {
    use super::super::scalar;
    #[cfg(target_arch = "x86_64")]
    use super::super::simd;

    crate::simd::vector_levels! {
        pub(in super::super) fn maxima(logits: &[f32], found: &mut [f32])
    }
}

mod block_weights {
    use super::super::scalar;
    #[cfg(target_arch = "x86_64")]
    use super::super::simd;

    crate::simd::vector_levels! {
        pub(in super::super) fn block_weights(
            logits: &[f32],
            maxima: &[f32],
            scale: (f32, f32),
            found: &mut [u64],
        )
    }
}

mod weights {
    use super::super::scalar;
    #[cfg(target_arch = "x86_64")]
    use super::super::simd;

    crate::simd::vector_levels! {
        pub(in super::super) fn weights(logits: &mut [f32], scale: (f32, f32))
    }
}

mod block_sums {
    use super::super::scalar;
    #[cfg(target_arch = "x86_64")]
    use super::super::simd;

    crate::simd::vector_levels! {
        pub(in super::super) fn block_sums(
            logits_and_weights: (&[f32], &[f32]),
            maxima: &[f32],
            floor: f32,
            found: &mut [u64],
        )
    }
}
