//! From weights to parts per billion that add up exactly. All divisions are of integers, so no
//! machine rounds differently.

use std::collections::BTreeMap;

use mortise_sdk::{SHARES_TOTAL, Share};

/// The largest weight counts this many units; weights below one unit are nothing.
const UNITS: f64 = (1_u64 << 40) as f64;

/// Shares in proportion to `weights`, by largest remainder; equal remainders go to the smaller
/// number. Owners whose part rounds to nothing are left out.
pub(crate) fn shares(weights: &BTreeMap<u32, f64>) -> Vec<Share> {
    let largest = weights.values().copied().fold(0.0, f64::max);
    if !largest.is_finite() || largest <= 0.0 {
        return Vec::new();
    }
    // Negative weights and NaN become 0 units.
    let units = |weight: f64| (weight / largest * UNITS).round() as u128;
    let total: u128 = weights.values().map(|weight| units(*weight)).sum();
    let scaled = |weight: f64| units(weight) * u128::from(SHARES_TOTAL);
    let mut parts: Vec<(u32, u32, u128)> = weights
        .iter()
        // At most `SHARES_TOTAL`, for `units` is at most `total`.
        .map(|(owner, weight)| (*owner, (scaled(*weight) / total) as u32, scaled(*weight) % total))
        .collect();
    let given: u64 = parts.iter().map(|(_, parts, _)| u64::from(*parts)).sum();
    // Less than one part per owner is left, so each of the first owners gets one.
    let left = (u64::from(SHARES_TOTAL) - given) as usize;
    parts.sort_by_key(|(owner, _, remainder)| (std::cmp::Reverse(*remainder), *owner));
    for (_, parts, _) in parts.iter_mut().take(left) {
        *parts += 1;
    }
    parts.retain(|(_, parts, _)| *parts > 0);
    parts.sort_by_key(|(owner, ..)| *owner);
    parts.into_iter().map(|(owner, parts, _)| Share { owner, parts }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(weights: &[f64], expect: &[u32]) {
        let weights = (0..).zip(weights.iter().copied()).collect();
        let shares = shares(&weights);
        let mut parts = vec![0; weights.len()];
        for share in &shares {
            parts[share.owner as usize] = share.parts;
        }
        assert_eq!(parts, expect, "{weights:?}");
    }

    #[test]
    fn parts_are_exact() {
        check(&[], &[]);
        check(&[0.0, 0.0], &[0, 0]);
        check(&[1.0], &[1_000_000_000]);
        check(&[1e-300, 1e-300], &[500_000_000, 500_000_000]);
        check(&[1.0, 1.0, 1.0], &[333_333_334, 333_333_333, 333_333_333]);
        check(&[2.0, 1.0], &[666_666_667, 333_333_333]);
        check(&[1e300, 1e-300], &[1_000_000_000, 0]);
        check(&[1.0, f64::NAN, -1.0], &[1_000_000_000, 0, 0]);
        check(&[1.0, f64::INFINITY], &[0, 0]);
    }

    #[test]
    fn many_owners_still_sum_to_a_billion() {
        for owners in [7_u32, 1_000, 100_003] {
            let weights = (0..owners).map(|owner| (owner, f64::from(1 + owner % 13))).collect();
            let sum: u64 = shares(&weights).iter().map(|share| u64::from(share.parts)).sum();
            assert_eq!(sum, 1_000_000_000, "{owners}");
        }
    }
}
