//! Files that must be read as they are, and such as must be refused.

use std::fs;

use half::{bf16, f16};
use safetensors::Dtype;

use super::*;
use crate::Adapter;
use crate::seen::FileStamp;
use crate::testing::{SIZES, Written, shape, tensors, write};

const CONFIG: &str = r#""r": 2, "lora_alpha": 3"#;

fn load_with(config: &str, tensors: &[Written]) -> Result<Adapter, LoraError> {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), config, tensors);
    Adapter::from_dir(dir.path(), &shape())
}

#[test]
fn tensors_and_scale_arrive() {
    let adapter = load_with(CONFIG, &tensors(2, 1.0)).unwrap();
    let pair = adapter.module(1).unwrap();
    assert_eq!((pair.rank(), pair.in_features(), pair.out_features()), (2, SIZES.0, SIZES.1));
    assert_eq!(pair.scale(), 1.5);
    assert_eq!((adapter.rank_max(), adapter.targets()), (2, ["q_proj".to_owned()].as_slice()));
    let held: u64 = (0..2).map(|module| adapter.module(module).unwrap().bytes()).sum();
    assert_eq!(adapter.bytes(), held);
    assert!(adapter.module(2).is_none());
    assert!(adapter.fits(&shape()));
}

#[test]
fn identity_is_what_changes_an_answer() {
    let generation =
        |config: &str, tensors: &[Written]| load_with(config, tensors).unwrap().generation();
    let base = generation(CONFIG, &tensors(2, 1.0));
    // Neither the order of tensors nor keys without effect count.
    let mut turned = tensors(2, 1.0);
    turned.reverse();
    assert_eq!(generation(CONFIG, &turned), base);
    let harmless = format!(r#"{CONFIG}, "lora_dropout": 0.5, "revision": "x""#);
    assert_eq!(generation(&harmless, &tensors(2, 1.0)), base);
    // A scale, a rank, or one bit of one weight does.
    let mut flipped = tensors(2, 1.0);
    flipped[3].bytes[0] ^= 1;
    let others = [
        generation(r#""r": 2, "lora_alpha": 4"#, &tensors(2, 1.0)),
        generation(r#""r": 2, "lora_alpha": 3, "use_rslora": true"#, &tensors(2, 1.0)),
        generation(r#""r": 1, "lora_alpha": 3"#, &tensors(1, 1.0)),
        generation(CONFIG, &flipped),
    ];
    for (index, other) in others.iter().enumerate() {
        assert_ne!(*other, base);
        assert!(!others[..index].contains(other));
    }
}

#[test]
fn half_width_tensors_are_widened() {
    let narrow = |dtype: Dtype, convert: fn(f32) -> [u8; 2]| {
        let mut tensors = tensors(2, 0.3);
        for tensor in &mut tensors {
            let floats = tensor.bytes.as_chunks::<4>().0.iter().map(|v| f32::from_le_bytes(*v));
            tensor.bytes = floats.flat_map(convert).collect();
            tensor.dtype = dtype;
        }
        load_with(CONFIG, &tensors)
    };
    assert!(narrow(Dtype::F16, |v| f16::from_f32(v).to_le_bytes()).is_ok());
    assert!(narrow(Dtype::BF16, |v| bf16::from_f32(v).to_le_bytes()).is_ok());
    let refused = narrow(Dtype::I16, |v| (v as i16).to_le_bytes());
    assert!(matches!(refused, Err(LoraError::TensorDtype { .. })));
}

#[test]
fn tensors_are_exactly_those_required() {
    let check = |edit: fn(&mut Vec<Written>), expect: &str| {
        let mut tensors = tensors(2, 1.0);
        edit(&mut tensors);
        let error = load_with(CONFIG, &tensors).expect_err(expect).to_string();
        assert!(error.contains(expect), "{error}");
    };
    check(|t| drop(t.remove(1)), "layers.0.q_proj.lora_B.weight is missing");
    check(|t| drop(t.remove(2)), "layers.1.q_proj.lora_A.weight is missing");
    check(|t| t[0].name = "model.embed_tokens.lora_embedding_A".to_owned(), "no targeted module");
    check(|t| t[0].name = t[0].name.replace("lora_A", "lora_magnitude_vector"), "no targeted");
    check(|t| t[0].shape = vec![SIZES.0, 2], "expected shape [2, 6], found [6, 2]");
    check(|t| t[1].shape = vec![2 * SIZES.1], "expected shape [10, 2], found [20]");
    check(|t| *t = tensors_of_rank_3(), "expected shape [2, 6], found [3, 6]");
}

fn tensors_of_rank_3() -> Vec<Written> {
    tensors(3, 1.0)
}

#[test]
fn files_cut_short_or_lying_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), CONFIG, &tensors(2, 1.0));
    let path = dir.path().join(WEIGHTS_FILE);
    let whole = fs::read(&path).unwrap();
    let load = || Adapter::from_dir(dir.path(), &shape());
    assert!(load().is_ok());
    for length in 0..whole.len() {
        fs::write(&path, &whole[..length]).unwrap();
        assert!(matches!(load(), Err(LoraError::WeightsFile { .. })), "cut at {length}");
    }
    for length in [u64::MAX, 1 << 40, whole.len() as u64] {
        let mut lying = whole.clone();
        lying[..8].copy_from_slice(&length.to_le_bytes());
        fs::write(&path, lying).unwrap();
        assert!(matches!(load(), Err(LoraError::WeightsFile { .. })), "header of {length}");
    }
    let file = fs::File::create(&path).unwrap();
    file.set_len(crate::header::HEADER_BYTES_MAX + 4 * 64 + 1).unwrap();
    assert!(matches!(load(), Err(LoraError::FileTooLarge { .. })));
    fs::remove_file(&path).unwrap();
    assert!(matches!(load(), Err(LoraError::Read { .. })));
}

#[test]
fn a_file_is_hashed_again_if_it_may_have_changed() {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), CONFIG, &tensors(2, 1.0));
    let load = |seen: Option<&Seen>| {
        let plan = Plan::read(dir.path(), &shape()).unwrap();
        super::load(plan.file, &shape(), &plan.targets, seen).unwrap()
    };
    let first = load(None);
    // Written just now: a write in the same tick of the clock would not show.
    assert_eq!(first.seen, None);
    let plan = Plan::read(dir.path(), &shape()).unwrap();
    let frame = Source::new(plan.file).frame(&shape(), &plan.targets).unwrap();
    let told = AdapterGeneration(Digest::of(b"told"));
    let path = dir.path().join(WEIGHTS_FILE);
    let stamp = || FileStamp::of(&File::open(&path).unwrap()).unwrap();
    let seen = Seen { file: stamp(), frame, generation: told };
    let again = load(Some(&seen));
    assert_eq!((again.generation, again.seen), (told, Some(seen)));
    let laid = |loaded: &Loaded| format!("{:?}", loaded.modules);
    assert_eq!(laid(&again), laid(&first));
    // Another configuration, or another file.
    let other = Seen { frame: Digest::of(b"other"), ..seen };
    assert_eq!(load(Some(&other)).generation, first.generation);
    write(dir.path(), r#""r": 2, "lora_alpha": 4"#, &tensors(2, 1.0));
    let moved = load(Some(&Seen { file: stamp(), ..seen }));
    assert!(moved.generation != told && moved.generation != first.generation);
    let mut flipped = tensors(2, 1.0);
    flipped[0].bytes[0] ^= 1;
    write(dir.path(), CONFIG, &flipped);
    let changed = load(Some(&seen)).generation;
    assert!(changed != told && changed != first.generation);
}
