//! The specification: a score adds its products in order of dimension, the sum of a softmax has
//! sixteen parts by position modulo sixteen from the first position, an output adds its values in
//! order of position and is divided last. Where keys and values have scales, a score is multiplied by its
//! key's before all else, and a weight, once it has been summed up, by its value's.

use super::Job;
use crate::aligned::LANES;
use crate::elements::Element;
use crate::ops::kv_write::{Kept, Pages, ReadPages};
use crate::simd::math::{exp, softcap};
use crate::simd::{max_lanes, sum_lanes};

pub(super) fn attend(job: &Job<'_>, scores: &mut Vec<f32>, out: &mut [f32]) {
    job.blocks.read(Attend { job, scores, out });
}

struct Attend<'a> {
    job: &'a Job<'a>,
    scores: &'a mut Vec<f32>,
    out: &'a mut [f32],
}

impl ReadPages for Attend<'_> {
    fn read<T: Kept>(self, pages: Pages<'_, T>) {
        attend_in(self.job, pages, self.scores, self.out);
    }
}

fn attend_in<T: Kept>(job: &Job<'_>, pages: Pages<'_, T>, scores: &mut Vec<f32>, out: &mut [f32]) {
    let geometry = job.blocks.geometry();
    let (dim, tokens) = (geometry.head_dim, geometry.padded_tokens());
    for (query, out) in job.queries.chunks_exact(dim).zip(out.chunks_exact_mut(dim)) {
        scores.clear();
        for position in job.first..job.end {
            let block = job.block_table[position / geometry.block_tokens] as usize;
            let keys = pages.keys_of(block, job.kv_head);
            let offset = position % geometry.block_tokens;
            let mut score = 0.0_f32;
            for (d, q) in query.iter().enumerate() {
                score = q.mul_add(keys[d * tokens + offset].widen(), score);
            }
            if T::SCALED {
                score *= pages.key_scales_of(block, job.kv_head)[offset].widen();
            }
            let score = score * job.scale;
            scores.push(job.softcap.map_or(score, |cap| softcap(score, cap)));
        }
        let mut largest = [f32::NEG_INFINITY; LANES];
        for (i, score) in scores.iter().enumerate() {
            largest[i % LANES] = crate::simd::math::max(largest[i % LANES], *score);
        }
        let largest = max_lanes(largest);
        let mut sums = [0.0_f32; LANES];
        for (i, score) in scores.iter_mut().enumerate() {
            *score = exp(*score - largest);
            sums[i % LANES] += *score;
        }
        let total = sum_lanes(sums);
        if T::SCALED {
            for (position, weight) in (job.first..job.end).zip(scores.iter_mut()) {
                let block = job.block_table[position / geometry.block_tokens] as usize;
                let scales = pages.value_scales_of(block, job.kv_head);
                *weight *= scales[position % geometry.block_tokens].widen();
            }
        }
        for (d, out) in out.iter_mut().enumerate() {
            let mut sum = 0.0_f32;
            for (position, weight) in (job.first..job.end).zip(scores.iter()) {
                let block = job.block_table[position / geometry.block_tokens] as usize;
                let values = pages.values_of(block, job.kv_head);
                let offset = position % geometry.block_tokens;
                sum = weight.mul_add(values[offset * geometry.padded_dim() + d].widen(), sum);
            }
            *out = sum / total;
        }
    }
}
