//! Sampling on every machine: the very token that the specification names.

use super::device::{Memory, choose, items_of};
use super::{LogitAdjustment, NOT_FINITE, SampleParams, sample, scalar};
use crate::KernelError;
use crate::ops::testing::Random;
use crate::tensor::from_host;
use crate::tests::{Machine, on_machines};

const GREEDY: SampleParams =
    SampleParams { temperature: 0.0, top_k: 0, top_p: 1.0, min_p: 0.0, draw: 0.0 };

fn on_machine(
    machine: &Machine,
    logits: &[f32],
    params: &[SampleParams],
    adjustments: &[LogitAdjustment],
) -> Vec<u32> {
    let sizes = (params.len(), logits.len() / params.len());
    let items = items_of(adjustments, sizes).unwrap();
    let rows: Vec<_> = params.iter().map(|p| p.checked().unwrap()).collect();
    let (logits, rows) = (machine.upload(logits), machine.upload(&rows));
    let tokens = machine.upload(&vec![7_777_777_u32; params.len()]);
    let uploaded = machine.upload(&items);
    let memory = Memory {
        logits: logits.ptr(),
        items: uploaded.ptr(),
        rows: rows.ptr(),
        tokens: tokens.ptr(),
    };
    // SAFETY: buffers of these sizes.
    unsafe { choose(machine, memory, sizes, items.len()) }.unwrap();
    machine.download(&tokens)
}

#[test]
fn chooses_what_the_specification_chooses() {
    let mut cases = vec![GREEDY];
    for draw in [0.3, 1.0 - f64::EPSILON] {
        let plain = SampleParams { temperature: 0.8, draw, ..GREEDY };
        cases.extend([
            plain,
            SampleParams { temperature: 1e-20, ..plain },
            SampleParams { temperature: 50.0, ..plain },
            SampleParams { top_k: 1, ..plain },
            SampleParams { top_k: 5, ..plain },
            SampleParams { top_k: 1_000_000, ..plain },
            SampleParams { top_p: 0.0, ..plain },
            SampleParams { top_p: 0.4, ..plain },
            SampleParams { top_p: 0.999, ..plain },
            SampleParams { min_p: 0.5, ..plain },
            SampleParams { min_p: 1.0, top_k: 3, ..plain },
            SampleParams { top_k: 7, top_p: 0.6, ..plain },
            SampleParams { top_k: 40, top_p: 0.9, min_p: 0.01, temperature: 2.0, ..plain },
        ]);
    }
    on_machines(|machine| {
        for (vocab, distinct) in [(1, 9), (2, 1), (31, 3), (600, 4), (1100, 1 << 20)] {
            let mut random = Random::new(vocab as u64);
            // Few distinct logits make many equals, which cuts must take in order of ids.
            let mut logit = || (random.below(distinct) as f32 / distinct as f32 - 0.5) * 12.0;
            let logits: Vec<f32> = (0..vocab * cases.len()).map(|_| logit()).collect();
            let found = on_machine(machine, &logits, &cases, &[]);
            let tensor = from_host(logits.clone(), (cases.len(), vocab)).unwrap();
            assert_eq!(sample(&tensor, &cases).unwrap(), found, "the host's");
            for ((params, logits), found) in cases.iter().zip(logits.chunks(vocab)).zip(found) {
                let expected = scalar::sample(logits, &params.checked().unwrap());
                assert_eq!(found, expected, "{vocab} {distinct} {params:?}");
            }
        }
    });
}

#[test]
fn adjustments_come_first() {
    let change = |row, token, repetition, subtract, add| LogitAdjustment {
        row,
        token,
        repetition,
        subtract,
        add,
    };
    on_machines(|machine| {
        let logits = [[1.0, 3.0, 2.0, -1.0]; 6].concat();
        let changes = [
            change(1, 1, 2.0, 0.0, 0.0),
            change(2, 1, 1.0, 1.5, 0.0),
            change(3, 3, 1.0, 0.0, 10.0),
            change(4, 1, 1.0, 0.0, f32::NEG_INFINITY),
            change(5, 3, 0.125, 0.0, 4.0),
        ];
        assert_eq!(on_machine(machine, &logits, &[GREEDY; 6], &changes), [1, 2, 2, 3, 2, 3]);
    });
}

#[test]
fn what_is_no_distribution_is_told() {
    on_machines(|machine| {
        for bad in [f32::NAN, f32::INFINITY] {
            let logits = [0.0, bad, 1.0, 0.0, 0.5, 1.0];
            let found = on_machine(machine, &logits, &[GREEDY; 2], &[]);
            assert_eq!(found, [NOT_FINITE, 2]);
            assert_eq!(on_host(&logits, &[GREEDY; 2]).unwrap(), found);
        }
        let none = [f32::NEG_INFINITY; 3];
        let drawn = SampleParams { temperature: 1.0, ..GREEDY };
        for params in [drawn, GREEDY] {
            assert_eq!(on_machine(machine, &none, &[params], &[]), [NOT_FINITE]);
            assert_eq!(on_host(&none, &[params]).unwrap(), [NOT_FINITE]);
        }
    });
}

fn on_host(logits: &[f32], params: &[SampleParams]) -> Result<Vec<u32>, KernelError> {
    let shape = (params.len(), logits.len() / params.len());
    sample(&from_host(logits.to_vec(), shape)?, params)
}

#[test]
fn rows_that_are_not_there_are_refused() {
    let logits = from_host(vec![1.0, 2.0, 0.5, 3.0], (2, 2)).unwrap();
    assert_eq!(sample(&logits, &[GREEDY; 2]).unwrap(), [1, 1]);
    assert!(sample(&logits, &[GREEDY]).is_err());
    assert!(sample(&logits.flatten_all().unwrap(), &[GREEDY; 4]).is_err());
    assert!(sample(&logits, &[GREEDY, SampleParams { draw: 1.0, ..GREEDY }]).is_err());
    let doubles = logits.to_dtype(candle_core::DType::F64).unwrap();
    assert!(sample(&doubles, &[GREEDY; 2]).is_err());
    let nothing = from_host(Vec::new(), (0, 2)).unwrap();
    assert_eq!(sample(&nothing, &[]).unwrap(), [0; 0]);
    assert!(sample(&from_host(Vec::new(), (2, 0)).unwrap(), &[GREEDY; 2]).is_err());
}

#[test]
fn wrong_numbers_are_refused() {
    let check = |change: &dyn Fn(&mut SampleParams)| {
        let mut params = GREEDY;
        change(&mut params);
        params.checked().is_ok()
    };
    assert!(check(&|_| ()));
    assert!(!check(&|p| p.temperature = -0.1));
    assert!(!check(&|p| p.temperature = f32::NAN));
    assert!(!check(&|p| p.top_p = 1.1));
    assert!(!check(&|p| p.min_p = -0.1));
    assert!(!check(&|p| p.draw = 1.0));
    let change = LogitAdjustment { row: 1, token: 3, repetition: 1.0, subtract: 0.0, add: 1.0 };
    assert!(items_of(&[change], (2, 4)).is_ok());
    assert!(items_of(&[change, change], (2, 4)).is_err(), "twice");
    assert!(items_of(&[change], (1, 4)).is_err());
    assert!(items_of(&[change], (2, 3)).is_err());
}
