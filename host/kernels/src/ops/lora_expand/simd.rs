//! The vector body: one row against a few panels of sixteen outputs at a time.

use crate::LoraPair;
use crate::aligned::LANES;
use crate::simd::Vector;

/// Panels at a time.
const PANELS: usize = 4;

/// # Safety
/// As [`Vector`].
#[inline(always)]
pub(super) unsafe fn expand<V: Vector>(hidden: &[f32], weight: &LoraPair, out: &mut [f32]) {
    let (rank, width) = (weight.rank(), weight.out_features());
    let panels = width / LANES;
    for (hidden, y) in hidden.chunks_exact(rank).zip(out.chunks_exact_mut(width)) {
        let mut panel = 0;
        // SAFETY: the caller has the instructions of `V`; all panels below `panels` have sixteen
        // outputs in `y`.
        unsafe {
            while panel + PANELS <= panels {
                some::<V, PANELS>(hidden, weight, panel, y);
                panel += PANELS;
            }
            while panel < panels {
                some::<V, 1>(hidden, weight, panel, y);
                panel += 1;
            }
            if width % LANES != 0 {
                let mut last = [0.0; LANES];
                let rest = &mut y[panels * LANES..];
                last[..rest.len()].copy_from_slice(rest);
                let panel = &weight.b()[panels * LANES * rank..];
                add::<V, 1>(hidden, (panel, weight.scale()), &mut last);
                rest.copy_from_slice(&last[..rest.len()]);
            }
        }
    }
}

/// Panels `panel..panel + N`, all of sixteen outputs.
///
/// # Safety
/// As [`Vector`].
#[inline(always)]
unsafe fn some<V: Vector, const N: usize>(
    hidden: &[f32],
    weight: &LoraPair,
    panel: usize,
    y: &mut [f32],
) {
    let panels = &weight.b()[panel * LANES * weight.rank()..];
    let y = &mut y[panel * LANES..(panel + N) * LANES];
    // SAFETY: the caller has the instructions of `V`.
    unsafe { add::<V, N>(hidden, (panels, weight.scale()), y) }
}

/// # Safety
/// As [`Vector`].
#[inline(always)]
unsafe fn add<V: Vector, const N: usize>(
    hidden: &[f32],
    (panels, scale): (&[f32], f32),
    y: &mut [f32],
) {
    let rank = hidden.len();
    assert!(panels.len() >= N * rank * LANES && y.len() == N * LANES);
    // SAFETY: the caller has the instructions; `panels` holds `N * rank * 16` floats and `y` holds
    // `N * 16`.
    unsafe {
        let mut sums = [V::splat(0.0); N];
        for (i, h) in hidden.iter().enumerate() {
            let h = V::splat(*h);
            for (n, sum) in sums.iter_mut().enumerate() {
                *sum = h.mul_add(V::load(panels.as_ptr().add((n * rank + i) * LANES)), *sum);
            }
        }
        for (n, sum) in sums.iter().enumerate() {
            let target = y.as_mut_ptr().add(n * LANES);
            sum.mul_add(V::splat(scale), V::load(target)).store(target);
        }
    }
}
