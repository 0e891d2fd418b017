//! Several adapters as one: `a:0.7+b:0.3` adds what `a` changes, times 0.7, to what `b` changes,
//! times 0.3. The pairs of a module are laid side by side, so that a blend is an adapter like any
//! other: its rank is the sum of ranks, its `B` carries weights and scales, and its identity is that
//! of its parts with their weights.

use kernels::{LoraPair, WeightBytes, WeightFormat};
use request::{AdapterGeneration, Digest};

use crate::{LoraError, ModuleShape};

/// Largest weight of a part, of either sign.
const WEIGHT_MAX: f32 = 100.0;
/// First field of the hashed content.
const IDENTITY_TAG: &[u8] = b"mortise blend 1";

/// The parts that a name spells out: `a:0.7+b:0.3`, where a weight of one need not be said. `None` if
/// it spells none: one adapter without a weight is no blend, and where no parts are allowed nothing is.
///
/// # Errors
/// A weight that can't be used, or more than `parts_max` parts.
pub(crate) fn parse(name: &str, parts_max: usize) -> Result<Option<Vec<(&str, f32)>>, LoraError> {
    if parts_max == 0 {
        return Ok(None);
    }
    let refused = |reason: String| LoraError::Blend { name: name.to_owned(), reason };
    let mut parts = Vec::new();
    let mut weighted = false;
    for part in name.split('+') {
        let (alias, weight) = match part.rsplit_once(':') {
            Some((alias, weight)) => match weight.parse::<f32>() {
                Ok(weight) => {
                    weighted = true;
                    (alias, weight)
                }
                // A colon may be part of an alias.
                Err(_) => (part, 1.0),
            },
            None => (part, 1.0),
        };
        if alias.is_empty() {
            return Ok(None);
        }
        if weight.is_nan() || weight.abs() > WEIGHT_MAX {
            return Err(refused(format!("{weight} is not within -{WEIGHT_MAX} and {WEIGHT_MAX}")));
        }
        parts.push((alias, weight));
    }
    if parts.len() > parts_max {
        return Err(refused(format!("{} parts, at most {parts_max}", parts.len())));
    }
    Ok((parts.len() > 1 || weighted).then_some(parts))
}

/// What a blend of these generations is.
pub(crate) fn identity(parts: &[(AdapterGeneration, f32)]) -> AdapterGeneration {
    let mut fields: Vec<Vec<u8>> = vec![IDENTITY_TAG.to_vec()];
    for (generation, weight) in parts {
        fields.push(generation.0.0.to_vec());
        fields.push(weight.to_bits().to_le_bytes().to_vec());
    }
    AdapterGeneration(Digest::of_fields(fields.iter().map(Vec::as_slice)))
}

/// One module of a blend while its parts are read.
#[derive(Default)]
pub(crate) struct Pairs {
    /// Rows of all `A`, one part after another.
    a: Vec<f32>,
    /// Rank, `B` as `[out, rank]`, and the factor of the product, of each part.
    b: Vec<(usize, Vec<f32>, f32)>,
}

impl Pairs {
    /// Adds a part's pair; `factor` is its scale times its weight.
    pub(crate) fn push(&mut self, a: &WeightBytes<'_>, b: &WeightBytes<'_>, factor: f32) {
        self.a.extend(a.to_floats());
        self.b.push((a.rows(), b.to_floats(), factor));
    }

    /// The pair of `module` that adds up what the parts' pairs would, a part per rank; nothing without
    /// parts.
    pub(crate) fn join(self, module: &ModuleShape) -> Result<Vec<LoraPair>, LoraError> {
        let rank: usize = self.b.iter().map(|(rank, ..)| rank).sum();
        let Some((first, values, _)) = self.b.first() else { return Ok(Vec::new()) };
        let out_features = values.len() / first;
        let mut b = Vec::with_capacity(out_features * rank);
        for output in 0..out_features {
            for (rank, values, factor) in &self.b {
                let row = &values[output * rank..(output + 1) * rank];
                b.extend(row.iter().map(|value| value * factor));
            }
        }
        let bytes = |values: &[f32]| -> Vec<u8> {
            values.iter().flat_map(|value| value.to_le_bytes()).collect()
        };
        let (a, b) = (bytes(&self.a), bytes(&b));
        let a = WeightBytes::new(&a, WeightFormat::F32, rank, module.in_features)?;
        let b = WeightBytes::new(&b, WeightFormat::F32, out_features, rank)?;
        Ok(LoraPair::divided(&a, &b, 1.0, &module.cuts)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_spell_parts() {
        let check = |name: &str, expect: Option<&[(&str, f32)]>| {
            assert_eq!(parse(name, 2).unwrap().as_deref(), expect, "{name}");
            assert_eq!(parse(name, 0).unwrap(), None, "{name}");
        };
        check("a:0.7+b:0.3", Some(&[("a", 0.7), ("b", 0.3)]));
        check("a+b", Some(&[("a", 1.0), ("b", 1.0)]));
        check("a:-1+b", Some(&[("a", -1.0), ("b", 1.0)]));
        check("a:0.5", Some(&[("a", 0.5)]));
        check("org:x+b:2", Some(&[("org:x", 1.0), ("b", 2.0)]));
        check("org:x:2", Some(&[("org:x", 2.0)]));
        check("a:100", Some(&[("a", 100.0)]));
        for name in ["a", "org:x", "", "+", "a+", "+a", ":1", "a++b"] {
            check(name, None);
        }
        for name in ["a:101", "a:nan+b", "a:inf", "a:-inf+b", "a:1e9"] {
            assert!(matches!(parse(name, 2), Err(LoraError::Blend { .. })), "{name}");
        }
        assert_eq!(parse("a+b+c", 3).unwrap().unwrap().len(), 3);
        assert!(parse("a+b+c+d", 3).is_err());
    }

    #[test]
    fn identity_is_of_parts_and_weights_in_their_order() {
        let generation = |byte: u8| AdapterGeneration(Digest([byte; 32]));
        let base = identity(&[(generation(1), 0.5), (generation(2), 0.5)]);
        assert_eq!(identity(&[(generation(1), 0.5), (generation(2), 0.5)]), base);
        for other in [
            vec![(generation(2), 0.5), (generation(1), 0.5)],
            vec![(generation(1), 0.5), (generation(2), 0.25)],
            vec![(generation(1), 0.5)],
        ] {
            assert_ne!(identity(&other), base);
        }
    }
}
