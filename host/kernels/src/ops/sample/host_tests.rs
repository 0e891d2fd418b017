//! Rows on the host at every level of instructions: the token of the specification, and no other.

use super::{BadLogit, LogitRows, NOT_FINITE, SampleParams, scalar};
use crate::dispatch::available;
use crate::ops::testing::Random;

/// Rows of awkward lengths, with ties and tokens that can't be.
fn rows() -> Vec<Vec<f32>> {
    let mut random = Random::new(5);
    let lengths = [1, 2, 15, 16, 17, 255, 256, 257, 1000, 5000];
    let row = |length: usize| {
        let mut value = || match random.below(20) {
            0 => f32::NEG_INFINITY,
            1 => 7.5,
            _ => random.below(1 << 20) as f32 / (1 << 20) as f32 * 37.5 - 30.0,
        };
        (0..length).map(|_| value()).collect()
    };
    lengths.into_iter().map(row).collect()
}

fn on_levels(check: impl Fn(&mut LogitRows)) {
    for level in available() {
        // The same memory for rows of all lengths, as a thread has it.
        check(&mut LogitRows::with_level(level));
    }
}

/// Likelier first; of equals, the lower token.
fn ranked(row: &[f32]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..row.len()).collect();
    order.sort_by(|a, b| row[*b].partial_cmp(&row[*a]).unwrap());
    order
}

#[test]
fn the_peak_is_the_first_of_the_largest() {
    on_levels(|rows_of| {
        for row in rows() {
            let best = ranked(&row)[0];
            assert_eq!(rows_of.peak(&row), Ok((best, row[best])));
            for bad in [f32::NAN, f32::INFINITY] {
                for token in [0, row.len() / 2, row.len() - 1] {
                    let mut row = row.clone();
                    row[token] = bad;
                    assert_eq!(rows_of.peak(&row), Err(BadLogit { token }));
                }
            }
        }
        assert_eq!(rows_of.peak(&[f32::NEG_INFINITY; 40]), Ok((0, f32::NEG_INFINITY)));
    });
}

/// Cuts and draws of all kinds.
fn choices() -> Vec<SampleParams> {
    let plain = SampleParams { temperature: 0.8, top_k: 0, top_p: 1.0, min_p: 0.0, draw: 0.0 };
    let mut choices = Vec::new();
    for draw in [0.0, 0.3, 0.77, 1.0 - f64::EPSILON] {
        for temperature in [0.0, 1e-40, 1e-20, 0.3, 1.0, 50.0, f32::MAX] {
            let plain = SampleParams { temperature, draw, ..plain };
            choices.extend(
                [0.0, 1e-6, 0.4, 0.9, 0.999_999].map(|top_p| SampleParams { top_p, ..plain }),
            );
            choices.extend([1e-12, 0.01, 0.5, 1.0].map(|min_p| SampleParams { min_p, ..plain }));
            choices.extend([1, 3, 40, 999, 4999].map(|top_k| SampleParams { top_k, ..plain }));
            choices.extend([
                plain,
                SampleParams { top_k: 40, top_p: 0.9, ..plain },
                SampleParams { top_k: 300, top_p: 0.9, min_p: 0.01, ..plain },
                SampleParams { top_p: 0.5, min_p: 0.1, ..plain },
            ]);
        }
    }
    choices
}

#[test]
fn the_token_is_the_one_that_the_specification_names() {
    on_levels(|rows_of| {
        for row in rows() {
            for params in choices() {
                let choice = params.checked().unwrap();
                let expected = match scalar::sample(&row, &choice) {
                    NOT_FINITE => 0,
                    token => token as usize,
                };
                let found = rows_of.sample(&row, &choice);
                assert_eq!(found, Ok(expected), "{} {params:?}", row.len());
            }
        }
    });
}

#[test]
fn far_logits_and_few_distinct_ones_are_cut_exactly() {
    on_levels(|rows_of| {
        let mut random = Random::new(9);
        for (distinct, offset) in [(1, 0.5), (3, 0.0), (3, 1e4), (1 << 20, -3e3), (40, 1e6)] {
            let mut value = || random.below(distinct) as f32 / distinct as f32 * 12.0 + offset;
            let row: Vec<f32> = (0..4000).map(|_| value()).collect();
            for params in choices() {
                let choice = params.checked().unwrap();
                let expected = scalar::sample(&row, &choice) as usize;
                assert_eq!(rows_of.sample(&row, &choice), Ok(expected), "{offset} {params:?}");
            }
        }
    });
}

#[test]
fn the_likeliest_are_those_of_a_full_sort() {
    on_levels(|rows_of| {
        for row in rows() {
            let order = ranked(&row);
            for count in [0, 1, 3, 20, 21, 300, row.len(), row.len() + 1] {
                let expected = &order[..count.min(row.len())];
                assert_eq!(rows_of.likeliest(&row, count).unwrap(), expected);
            }
        }
    });
}

#[test]
fn the_sum_of_exponentials_is_close_to_the_real_one() {
    on_levels(|rows_of| {
        for row in rows() {
            let expected = row.iter().map(|logit| f64::from(*logit).exp()).sum::<f64>().ln();
            let found = rows_of.log_sum_exp(&row).unwrap();
            assert!((found - expected).abs() < 1e-6 || found == expected, "{found} {expected}");
        }
    });
}
