//! The credits of an answer that several adapters gave together: each adapter's own, by its weight.
//!
//! Which adapter a word came from can't be told, so spans of every corpus count, and the shares found
//! in one corpus are worth what its adapter's weight is among those that have any.

use std::collections::BTreeMap;

use ::request::Digest;

use crate::answer::{Attribution, AttributionStatus, Credit};
use crate::stage::attribute::Attributed;

/// All shares of an answer.
const BILLION: u64 = 1_000_000_000;
/// Weights are compared in millionths, so that shares are whole numbers on every machine.
const WEIGHT_SCALE: f64 = 1e6;

/// One attribution of what was found for each adapter, with the adapter's weight. The first alone if
/// there is no other.
pub(crate) fn combine(mut parts: Vec<(f32, Attributed)>, spans_max: usize) -> Option<Attributed> {
    if parts.len() < 2 {
        return parts.pop().map(|(_, attributed)| attributed);
    }
    let segments: Vec<[u8; 32]> = parts.iter().filter_map(|(_, part)| part.segment).collect();
    let segment = Digest::of_fields(segments.iter().map(<[u8; 32]>::as_slice)).0;
    let segment = (!segments.is_empty()).then_some(segment);
    let is = |status| move |(_, part): &&(f32, Attributed)| part.attribution.status == status;
    let scored = parts.iter().find(is(AttributionStatus::Scored));
    let shown = scored.or_else(|| parts.iter().find(is(AttributionStatus::Failed)));
    let shown = shown.unwrap_or(&parts[0]).1.attribution.clone();
    let (mut method, mut note) = (shown.method, shown.note);
    if scored.is_some() {
        method.push_str("*weights@1");
        let reason = note.map(|note| format!("; {note}")).unwrap_or_default();
        note = Some(format!("the credits of each adapter count by its weight{reason}"));
    }
    let status = shown.status;
    let credits = credits(&parts);
    let spans = parts.into_iter().flat_map(|(_, part)| part.attribution.spans);
    let spans = spans.take(spans_max).collect();
    let attribution = Attribution { status, method, credits, spans, note };
    Some(Attributed { attribution, segment })
}

/// Shares that sum to a billion, or none.
fn credits(parts: &[(f32, Attributed)]) -> Vec<Credit> {
    let weight = |weight: f32| (f64::from(weight).abs() * WEIGHT_SCALE).round() as u64;
    let scored = parts.iter().filter(|(of, part)| {
        weight(*of) > 0 && part.attribution.status == AttributionStatus::Scored
    });
    let total: u64 = scored.clone().map(|(of, _)| weight(*of)).sum();
    let mut shares: BTreeMap<&str, u64> = BTreeMap::new();
    for (of, part) in scored {
        for credit in &part.attribution.credits {
            let share = u64::from(credit.parts_per_billion) * weight(*of) / total;
            *shares.entry(&credit.contributor).or_default() += share;
        }
    }
    let mut credits: Vec<(&str, u64)> = shares.into_iter().collect();
    credits.sort_by_key(|(_, share)| std::cmp::Reverse(*share));
    // What rounding has lost goes to the largest.
    let lost = BILLION - credits.iter().map(|(_, share)| share).sum::<u64>();
    if let Some((_, largest)) = credits.first_mut() {
        *largest += lost;
    }
    let credit = |(contributor, share): (&str, u64)| Credit {
        contributor: contributor.to_owned(),
        parts_per_billion: u32::try_from(share).unwrap_or(u32::MAX),
    };
    credits.into_iter().filter(|(_, share)| *share > 0).map(credit).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stage::attribute::without;

    fn scored(segment: u8, shares: &[(&str, u32)]) -> Attributed {
        let mut attributed = without(Some([segment; 32]), "exact spans");
        attributed.attribution.status = AttributionStatus::Scored;
        attributed.attribution.credits = shares
            .iter()
            .map(|(name, parts)| Credit {
                contributor: (*name).to_owned(),
                parts_per_billion: *parts,
            })
            .collect();
        attributed
    }

    #[test]
    fn shares_follow_weights_and_sum_to_a_billion() {
        let check = |parts: Vec<(f32, Attributed)>, expect: &[(&str, u32)]| {
            let combined = combine(parts, 8).expect("parts").attribution;
            let found: Vec<_> = combined
                .credits
                .iter()
                .map(|credit| (credit.contributor.as_str(), credit.parts_per_billion))
                .collect();
            assert_eq!(found, expect);
            let sum: u64 = found.iter().map(|(_, parts)| u64::from(*parts)).sum();
            assert!(sum == BILLION || expect.is_empty(), "{sum}");
            assert_eq!(combined.status == AttributionStatus::Scored, !expect.is_empty());
        };
        let of = |name| scored(1, &[(name, 1_000_000_000)]);
        let none = || without(None, "nothing");
        check(vec![(0.7, of("a")), (0.3, of("b"))], &[("a", 700_000_000), ("b", 300_000_000)]);
        check(vec![(1.0, of("a")), (-1.0, of("b"))], &[("a", 500_000_000), ("b", 500_000_000)]);
        check(vec![(2.0, of("a")), (2.0, of("a"))], &[("a", 1_000_000_000)]);
        // Who left no trace takes nothing from those who did.
        check(vec![(0.1, of("a")), (0.9, none())], &[("a", 1_000_000_000)]);
        check(vec![(0.1, none()), (0.9, none())], &[]);
        let three = || scored(1, &[("a", 333_333_334), ("b", 333_333_333), ("c", 333_333_333)]);
        check(
            vec![(1.0, three()), (1.0, three()), (1.0, of("d"))],
            &[("d", 333_333_334), ("a", 222_222_222), ("b", 222_222_222), ("c", 222_222_222)],
        );
    }

    #[test]
    fn one_part_stays_as_it_is() {
        let alone = combine(vec![(0.5, scored(1, &[("a", 1_000_000_000)]))], 8).expect("a part");
        assert_eq!((alone.segment, alone.attribution.method.as_str()), (Some([1; 32]), "spans@1"));
        let two = combine(vec![(1.0, scored(1, &[])), (1.0, without(None, "none"))], 8);
        assert_ne!(two.expect("parts").segment, Some([1; 32]));
        assert!(combine(Vec::new(), 8).is_none());
    }
}
