//! Which part of each weight a rank has: heads, columns inside the MLP and rows of the vocabulary, each
//! cut into runs that follow each other.
//!
//! What comes out of a cut weight is cut the same way until a weight that is cut along its inputs, of
//! which the ranks' products are added up. One table says it for weights and for adapters.

use std::ops::Range;

use kernels::PairCut;
use lora::ModelShape;

use crate::{ModelConfig, ModelError};

/// The part of one rank.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Split {
    /// Query heads.
    pub(crate) heads: Range<usize>,
    /// Key and value heads that these need; several ranks have one where there are more ranks.
    pub(crate) kv_heads: Range<usize>,
    /// Columns inside the MLP.
    pub(crate) inner: Range<usize>,
    /// Columns inside each expert; empty without experts.
    pub(crate) expert_inner: Range<usize>,
    /// Rows of the embedding and the head.
    pub(crate) vocab: Range<usize>,
    /// Rows of the head that each rank has.
    pub(crate) vocab_widths: Vec<usize>,
}

/// What a rank has of one weight `[outputs, inputs]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Cut {
    /// Range after range.
    pub(crate) outputs: Vec<Range<usize>>,
    pub(crate) inputs: Range<usize>,
    /// Whether the ranks' products are to be added up.
    pub(crate) is_partial: bool,
}

impl Split {
    /// All of it, for a rank alone.
    pub(crate) fn whole(config: &ModelConfig) -> Self {
        Self {
            heads: 0..config.heads,
            kv_heads: 0..config.kv_heads,
            inner: 0..config.intermediate_size,
            expert_inner: 0..config.experts.as_ref().map_or(0, |experts| experts.intermediate_size),
            vocab: 0..config.vocab_size,
            vocab_widths: vec![config.vocab_size],
        }
    }

    /// The parts of `ranks` ranks, of weights that are kept in blocks of `block_len` inputs.
    ///
    /// # Errors
    /// More ranks than there are parts to give, or heads that are no whole blocks.
    pub(crate) fn all(
        config: &ModelConfig,
        ranks: usize,
        block_len: usize,
    ) -> Result<Vec<Self>, ModelError> {
        if ranks == 1 {
            return Ok(vec![Self::whole(config)]);
        }
        let refused = |reason: String| ModelError::Parallel { ranks, reason };
        let heads = head_parts(config, ranks).ok_or_else(|| {
            let (heads, kv_heads) = (config.heads, config.kv_heads);
            refused(format!("{heads} query heads over {kv_heads} key heads are too few to share"))
        })?;
        for (heads, _) in &heads {
            let (from, to) = (heads.start * config.head_dim, heads.end * config.head_dim);
            // The last block of a row may be short.
            let ends = to.is_multiple_of(block_len) || heads.end == config.heads;
            if !from.is_multiple_of(block_len) || !ends {
                return Err(refused(format!(
                    "heads {heads:?} are columns {from}..{to} of o_proj, which do not begin and end \
                     at blocks of {block_len} weights"
                )));
            }
        }
        let columns = |what: &str, width: usize| {
            parts(width, block_len, ranks).ok_or_else(|| {
                refused(format!("{width} columns of {what} are too few blocks of {block_len}"))
            })
        };
        let inner = columns("down_proj", config.intermediate_size)?;
        let expert_inner = match &config.experts {
            Some(experts) => columns("an expert's down_proj", experts.intermediate_size)?,
            None => vec![Range::default(); ranks],
        };
        let vocab = parts(config.vocab_size, 1, ranks)
            .ok_or_else(|| refused(format!("a vocabulary of {}", config.vocab_size)))?;
        let vocab_widths: Vec<usize> = vocab.iter().map(Range::len).collect();
        let rest = inner.into_iter().zip(expert_inner).zip(vocab);
        let of_rank = |((heads, kv_heads), ((inner, expert_inner), vocab))| Self {
            heads,
            kv_heads,
            inner,
            expert_inner,
            vocab,
            vocab_widths: vocab_widths.clone(),
        };
        Ok(heads.into_iter().zip(rest).map(of_rank).collect())
    }

    /// What the rank has of a module, by the end of its path, such as `self_attn.q_proj`; all of it where
    /// the module is not cut.
    pub(crate) fn cut(
        &self,
        config: &ModelConfig,
        name: &str,
        [outputs, inputs]: [usize; 2],
    ) -> Cut {
        let dim = config.head_dim;
        let times = |range: &Range<usize>, by: usize| range.start * by..range.end * by;
        let after = |range: &Range<usize>, offset: usize| range.start + offset..range.end + offset;
        let by_outputs = |outputs| Cut { outputs, inputs: 0..inputs, is_partial: false };
        let all = 0..outputs;
        let by_inputs = |inputs| Cut { outputs: vec![all.clone()], inputs, is_partial: true };
        let (q, kv) = (times(&self.heads, dim), times(&self.kv_heads, dim));
        let (keys_at, values_at) = (config.heads * dim, (config.heads + config.kv_heads) * dim);
        match name.rsplit('.').next().unwrap_or(name) {
            "q_proj" => by_outputs(vec![q]),
            "k_proj" | "v_proj" => by_outputs(vec![kv]),
            "qkv_proj" => by_outputs(joined(&[q, after(&kv, keys_at), after(&kv, values_at)])),
            "o_proj" => by_inputs(q),
            "gate_proj" | "up_proj" => by_outputs(vec![self.inner.clone()]),
            "gate_up_proj" => {
                let up = after(&self.inner, config.intermediate_size);
                by_outputs(joined(&[self.inner.clone(), up]))
            }
            "down_proj" => by_inputs(self.inner.clone()),
            _ => by_outputs(vec![all.clone()]),
        }
    }

    /// As [`Split::cut`], of a projection of an expert.
    pub(crate) fn expert_cut(&self, config: &ModelConfig, name: &str, sizes: [usize; 2]) -> Cut {
        let within = Self { inner: self.expert_inner.clone(), ..self.clone() };
        within.cut(config, name, sizes)
    }
}

impl Cut {
    /// Whether it is all of a weight.
    pub(crate) fn is_whole(&self, [outputs, inputs]: [usize; 2]) -> bool {
        self.inputs == (0..inputs)
            && matches!(self.outputs.as_slice(), [all] if *all == (0..outputs))
    }

    /// Outputs and inputs of the part.
    pub(crate) fn sizes(&self) -> [usize; 2] {
        [self.outputs.iter().map(Range::len).sum(), self.inputs.len()]
    }
}

/// The shape of a model with what each of several ranks has of its modules.
pub(crate) fn divided_shape(config: &ModelConfig, splits: &[Split]) -> ModelShape {
    let mut shape = config.model_shape();
    if splits.len() > 1 {
        for module in shape.modules.iter_mut().filter(|module| module.adaptable) {
            let sizes = [module.out_features, module.in_features];
            let cut = |split: &Split| {
                let Cut { outputs, inputs, .. } = split.cut(config, &module.path, sizes);
                PairCut { inputs, outputs }
            };
            module.cuts = splits.iter().map(cut).collect();
        }
    }
    shape
}

/// Ranges that follow each other as one.
fn joined(ranges: &[Range<usize>]) -> Vec<Range<usize>> {
    let mut all: Vec<Range<usize>> = Vec::new();
    for range in ranges {
        match all.last_mut() {
            Some(last) if last.end == range.start => last.end = range.end,
            _ => all.push(range.clone()),
        }
    }
    all
}

/// `total` in `ranks` runs of whole `unit`s, none empty, as even as can be; the last unit may be short.
fn parts(total: usize, unit: usize, ranks: usize) -> Option<Vec<Range<usize>>> {
    let units = total.div_ceil(unit);
    if units < ranks {
        return None;
    }
    // Those with one more come first, so that the short unit is in a part with fewer.
    let (each, more) = (units / ranks, units % ranks);
    let begin = |rank: usize| ((rank * each + rank.min(more)) * unit).min(total);
    Some((0..ranks).map(|rank| begin(rank)..begin(rank + 1)).collect())
}

/// Query heads and key heads of each rank: whole groups while there are groups for all, else a part of
/// one group, whose key head all ranks of the group have.
fn head_parts(config: &ModelConfig, ranks: usize) -> Option<Vec<(Range<usize>, Range<usize>)>> {
    let group = config.heads / config.kv_heads;
    if let Some(of_kv) = parts(config.kv_heads, 1, ranks) {
        let heads = |kv: Range<usize>| (kv.start * group..kv.end * group, kv);
        return Some(of_kv.into_iter().map(heads).collect());
    }
    let mut all = Vec::with_capacity(ranks);
    let (each, more) = (ranks / config.kv_heads, ranks % config.kv_heads);
    for kv in 0..config.kv_heads {
        let sharing = each + usize::from(kv < more);
        for part in parts(group, 1, sharing)? {
            let first = kv * group;
            all.push((first + part.start..first + part.end, kv..kv + 1));
        }
    }
    Some(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_are_whole_units_and_even() {
        let check = |total, unit, ranks, expect: Option<Vec<Range<usize>>>| {
            assert_eq!(parts(total, unit, ranks), expect, "{total} {unit} {ranks}");
        };
        check(8, 1, 2, Some(vec![0..4, 4..8]));
        check(7, 1, 3, Some(vec![0..3, 3..5, 5..7]));
        check(80, 32, 2, Some(vec![0..64, 64..80]));
        check(80, 32, 3, Some(vec![0..32, 32..64, 64..80]));
        check(80, 32, 4, None);
        check(3, 1, 3, Some(vec![0..1, 1..2, 2..3]));
        check(3, 1, 4, None);
    }

    fn config(heads: usize, kv_heads: usize) -> ModelConfig {
        let llama = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/fixtures/models/llama");
        let config = ModelConfig::from_dir(llama.as_ref()).unwrap();
        ModelConfig { heads, kv_heads, ..config }
    }

    #[test]
    fn heads_stay_with_their_keys() {
        let check = |(heads, kv_heads), ranks, expect: Option<&[(Range<usize>, Range<usize>)]>| {
            let found = head_parts(&config(heads, kv_heads), ranks);
            assert_eq!(found.as_deref(), expect, "{heads} over {kv_heads} on {ranks}");
        };
        check((4, 2), 2, Some(&[(0..2, 0..1), (2..4, 1..2)]));
        check((6, 3), 2, Some(&[(0..4, 0..2), (4..6, 2..3)]));
        check((4, 1), 2, Some(&[(0..2, 0..1), (2..4, 0..1)]));
        check((3, 1), 2, Some(&[(0..2, 0..1), (2..3, 0..1)]));
        check((4, 2), 4, Some(&[(0..1, 0..1), (1..2, 0..1), (2..3, 1..2), (3..4, 1..2)]));
        check((6, 3), 4, Some(&[(0..1, 0..1), (1..2, 0..1), (2..4, 1..2), (4..6, 2..3)]));
        check((3, 1), 4, None);
        check((4, 4), 5, None);
    }

    #[test]
    fn weights_are_covered_once() {
        let config = config(4, 2);
        let splits = Split::all(&config, 2, 1).unwrap();
        for module in config.model_shape().modules.iter().filter(|module| module.adaptable) {
            let sizes = [module.out_features, module.in_features];
            let cuts: Vec<Cut> =
                splits.iter().map(|split| split.cut(&config, &module.path, sizes)).collect();
            let covered: usize = cuts.iter().map(|cut| cut.sizes().iter().product::<usize>()).sum();
            assert_eq!(covered, sizes[0] * sizes[1], "{}", module.path);
            assert!(cuts.iter().all(|cut| !cut.is_whole(sizes)), "{}", module.path);
        }
        assert!(Split::all(&config, 1, 256).is_ok(), "one rank cuts nothing");
        let error = Split::all(&config, 4, 32).unwrap_err().to_string();
        assert!(error.contains("4 ranks") && error.contains("blocks of 32"), "{error}");
        let error = Split::all(&config, 2, 256).unwrap_err().to_string();
        assert!(error.contains("blocks of 256"), "{error}");
        let error = Split::all(&config, 5, 1).unwrap_err().to_string();
        assert!(error.contains("4 query heads over 2 key heads"), "{error}");
    }
}
