//! Which tokens of the output are spoken for. Kept as ranges: an output's length is a claim of the
//! evidence, and no memory is laid out for it.

use std::collections::BTreeMap;

/// Disjoint ranges that do not touch: start to end.
#[derive(Default)]
pub(crate) struct Claims(BTreeMap<u64, u64>);

impl Claims {
    /// Claims `tokens` tokens from `start` and gives the number that nobody had claimed before.
    pub(crate) fn claim(&mut self, start: u32, tokens: u32) -> u64 {
        let (start, end) = (u64::from(start), u64::from(start) + u64::from(tokens));
        let mut free = end - start;
        let mut merged = (start, end);
        // From the right, every range that touches the new one; each is merged once in its life.
        while let Some((&from, &to)) = self.0.range(..=end).next_back() {
            if to < start {
                break;
            }
            free -= to.min(end).saturating_sub(from.max(start));
            merged = (merged.0.min(from), merged.1.max(to));
            self.0.remove(&from);
        }
        self.0.insert(merged.0, merged.1);
        free
    }
}

#[cfg(test)]
mod tests {
    use super::Claims;

    #[test]
    fn claims_agree_with_a_bitmap() {
        let mut state = 1_u32;
        let mut random = |below: u32| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 16) % below
        };
        for _ in 0..200 {
            let (mut claims, mut bitmap) = (Claims::default(), [false; 64]);
            for _ in 0..20 {
                let (start, tokens) = (random(50), random(14));
                let places = &mut bitmap[start as usize..(start + tokens) as usize];
                let free = places.iter().filter(|claimed| !**claimed).count() as u64;
                places.fill(true);
                assert_eq!(claims.claim(start, tokens), free, "{start} {tokens}");
            }
        }
    }

    #[test]
    fn the_largest_numbers_fit() {
        let mut claims = Claims::default();
        assert_eq!(claims.claim(u32::MAX, u32::MAX), u64::from(u32::MAX));
        assert_eq!(claims.claim(0, u32::MAX), u64::from(u32::MAX));
        assert_eq!(claims.claim(7, u32::MAX), 0);
    }
}
