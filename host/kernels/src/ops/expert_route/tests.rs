//! Routing against its specification and against plain arithmetic.

use super::*;
use crate::ops::testing::{Random, on_levels};

fn rule(per_row: usize, normalised: bool) -> RoutingRule {
    RoutingRule { per_row, normalised }
}

#[test]
fn is_softmax_at_every_level() {
    let mut random = Random::new(11);
    for (rows, experts) in [(1, 1), (3, 7), (2, 16), (5, 17), (4, 128), (1, 100)] {
        let logits: Vec<f32> = random.floats(rows * experts).iter().map(|v| v * 30.0).collect();
        let out = on_levels(|level| {
            let mut out = logits.clone();
            run(level, &mut out, experts);
            out
        });
        for (logits, out) in logits.chunks(experts).zip(out.chunks(experts)) {
            let largest = logits.iter().copied().fold(f32::MIN, f32::max);
            let powers: Vec<f64> = logits.iter().map(|v| f64::from(v - largest).exp()).collect();
            let total: f64 = powers.iter().sum();
            for (found, power) in out.iter().zip(powers) {
                assert!((f64::from(*found) - power / total).abs() < 1e-6);
            }
        }
    }
}

/// Experts and weights of each row, in ascending order of expert.
fn pairs(routing: &Routing) -> Vec<Vec<(usize, f32)>> {
    let expert_of = |position: u32| {
        let found = routing.experts().find(|(_, pairs)| pairs.contains(&(position as usize)));
        found.expect("every pair belongs to an expert").0
    };
    let row = |choices: &[Choice]| {
        choices.iter().map(|choice| (expert_of(choice.position), choice.weight)).collect()
    };
    routing.choices().map(row).collect()
}

#[test]
fn every_row_gets_its_best_experts_and_every_expert_its_rows() {
    let mut random = Random::new(12);
    for (rows, experts, per_row) in [(1, 4, 4), (9, 7, 2), (40, 16, 3), (5, 3, 1), (0, 5, 2)] {
        for normalised in [false, true] {
            let logits = random.floats(rows * experts);
            let tensor = from_host(logits.clone(), (rows, experts)).unwrap();
            let routing = expert_route(&tensor, rule(per_row, normalised)).unwrap();
            assert_eq!((routing.rows(), routing.rows.len()), (rows, rows * per_row));
            let mut weights = logits;
            scalar::softmax(&mut weights, experts);
            for (row, found) in pairs(&routing).into_iter().enumerate() {
                let weights = &weights[row * experts..(row + 1) * experts];
                let mut best: Vec<usize> = (0..experts).collect();
                best.sort_by(|a, b| weights[*b].total_cmp(&weights[*a]));
                let mut best = best[..per_row].to_vec();
                let total: f32 = best.iter().map(|expert| weights[*expert]).sum();
                best.sort_unstable();
                assert_eq!(found.iter().map(|(expert, _)| *expert).collect::<Vec<_>>(), best);
                for (expert, weight) in found {
                    let expected = weights[expert] / if normalised { total } else { 1.0 };
                    assert_eq!(weight, expected);
                }
            }
            let mut next = 0;
            for (_, pairs) in routing.experts() {
                assert_eq!(pairs.start, next);
                assert!(routing.rows[pairs.clone()].is_sorted(), "rows in order");
                next = pairs.end;
            }
            assert_eq!(next, rows * per_row);
        }
    }
}

#[test]
fn ties_and_no_numbers_have_an_order() {
    let tensor = from_host(vec![1.0, 2.0, 2.0, 2.0, f32::NAN, 0.0, 0.0, 0.0], (2, 4)).unwrap();
    let found = pairs(&expert_route(&tensor, rule(2, false)).unwrap());
    let experts = |row: &Vec<(usize, f32)>| row.iter().map(|(e, _)| *e).collect::<Vec<_>>();
    assert_eq!(experts(&found[0]), [1, 2]);
    assert_eq!(experts(&found[1]), [0, 1]);
}

#[test]
fn gathers_rows_in_order_of_expert() {
    let tensor = from_host(vec![0.0, 1.0, 2.0, 1.0, 0.0, 2.0], (2, 3)).unwrap();
    let routing = expert_route(&tensor, rule(2, false)).unwrap();
    let x = from_host(vec![1.0, 2.0, 3.0, 4.0], (2, 2)).unwrap();
    let gathered = routing.gather(&x).unwrap().to_vec2::<f32>().unwrap();
    assert_eq!(gathered, [[3.0, 4.0], [1.0, 2.0], [1.0, 2.0], [3.0, 4.0]]);
    assert_eq!(routing.experts().collect::<Vec<_>>(), [(0, 0..1), (1, 1..2), (2, 2..4)]);
    for shape in [(1, 4), (4, 1)] {
        let x = x.reshape(shape).unwrap();
        assert!(matches!(routing.gather(&x), Err(KernelError::Shape { .. })));
    }
}

#[test]
fn wrong_operands_are_refused() {
    let logits = from_host(vec![0.0; 6], (2, 3)).unwrap();
    for per_row in [0, 4] {
        let error = expert_route(&logits, rule(per_row, false));
        assert!(matches!(error, Err(KernelError::Bound { what: "per_row", .. })));
    }
    assert!(expert_route(&logits, rule(3, false)).is_ok());
    let flat = logits.reshape(6).unwrap();
    assert!(matches!(expert_route(&flat, rule(1, false)), Err(KernelError::Shape { .. })));
    let turned = logits.t().unwrap();
    let error = expert_route(&turned, rule(1, false));
    assert!(matches!(error, Err(KernelError::NotContiguous { .. })));
}
