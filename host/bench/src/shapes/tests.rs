//! Made directories, read back with what others read them with.

use std::collections::BTreeSet;
use std::path::Path;

use safetensors::SafeTensors;
use tokenization::Tokenizer;

use super::*;

/// A model that is made in no time.
fn small() -> Shape {
    Shape {
        hidden: 32,
        layers: 2,
        heads: 4,
        kv_heads: 2,
        head_dim: 16,
        ffn: 48,
        vocab: FIRST_WORD + 1000,
        tied: false,
    }
}

fn plan(count: usize, seed: u64) -> AdapterPlan {
    let targets = TARGETS.map(str::to_owned).to_vec();
    AdapterPlan { count, distinct: count, rank: 4, targets, dtype: Dtype::F16, seed }
}

fn read(path: &Path) -> Vec<u8> {
    std::fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Name, type and sizes of each tensor of a file.
fn contents(bytes: &[u8]) -> BTreeSet<(String, String, Vec<usize>)> {
    let file = SafeTensors::deserialize(bytes).expect("a safetensors file");
    let entry = |(name, view): (String, safetensors::tensor::TensorView<'_>)| {
        (name, format!("{:?}", view.dtype()), view.shape().to_vec())
    };
    file.tensors().into_iter().map(entry).collect()
}

#[test]
fn named_shapes_have_the_sizes_of_their_names() {
    let parameters = |name: &str| {
        let shape = Shape::named(name).expect(name);
        let modules: usize = TARGETS
            .iter()
            .map(|target| shape.module(target).expect(target))
            .map(|module| module.inputs * module.outputs)
            .sum();
        let embeddings = shape.vocab * shape.hidden * if shape.tied { 1 } else { 2 };
        shape.layers * (modules + 2 * shape.hidden) + embeddings + shape.hidden
    };
    assert_eq!(parameters("tiny-100m"), 100_092_672);
    assert_eq!(parameters("llama-1b"), 1_235_814_400);
    assert_eq!(parameters("llama-8b"), 8_030_261_248);
    assert!(NAMES.iter().all(|name| Shape::named(name).is_some()));
    assert_eq!(Shape::named("llama-9b"), None);
}

#[test]
fn a_model_has_every_tensor_and_its_shape_can_be_read_back() {
    let dir = tempfile::tempdir().expect("folder");
    for (tied, dtype, tag) in [(false, Dtype::Bf16, "BF16"), (true, Dtype::F32, "F32")] {
        let shape = Shape { tied, ..small() };
        make_model(&shape, dir.path(), dtype, 1).expect("made");
        assert_eq!(Shape::of(dir.path().to_str().expect("UTF-8")).expect("a config"), shape);
        let found = contents(&read(&dir.path().join("model.safetensors")));
        let has = |name: &str, sizes: &[usize]| {
            found.contains(&(name.to_owned(), tag.to_owned(), sizes.to_vec()))
        };
        assert!(has("model.embed_tokens.weight", &[1262, 32]));
        assert!(has("model.layers.1.self_attn.q_proj.weight", &[64, 32]));
        assert!(has("model.layers.1.self_attn.k_proj.weight", &[32, 32]));
        assert!(has("model.layers.0.self_attn.o_proj.weight", &[32, 64]));
        assert!(has("model.layers.0.mlp.down_proj.weight", &[32, 48]));
        assert!(has("model.layers.0.post_attention_layernorm.weight", &[32]));
        assert!(has("model.norm.weight", &[32]));
        assert_eq!(has("lm_head.weight", &[1262, 32]), !tied);
        assert_eq!(found.len(), 2 * 9 + 2 + usize::from(!tied));
    }
}

#[test]
fn the_same_seed_makes_the_same_files() {
    let made = |seed: u64| {
        let dir = tempfile::tempdir().expect("folder");
        make_model(&small(), &dir.path().join("m"), Dtype::Bf16, seed).expect("made");
        make_adapters(&small(), dir.path(), &plan(2, seed)).expect("made");
        [
            "m/model.safetensors",
            "adapter-00000/adapter_model.safetensors",
            "adapter-00001/adapter_model.safetensors",
        ]
        .map(|file| read(&dir.path().join(file)))
    };
    let (first, again, other) = (made(5), made(5), made(6));
    assert_eq!(first, again);
    assert!(first.iter().zip(&other).all(|(first, other)| first != other));
    assert_ne!(first[1], first[2], "adapters of one plan differ");
}

#[test]
fn adapters_have_a_and_b_of_every_target() {
    let dir = tempfile::tempdir().expect("folder");
    make_adapters(&small(), dir.path(), &plan(1, 0)).expect("made");
    let folder = dir.path().join(adapter_name(0));
    let found = contents(&read(&folder.join("adapter_model.safetensors")));
    assert_eq!(found.len(), 2 * 7 * 2);
    let name = |rest: &str| format!("base_model.model.model.layers.1.mlp.down_proj.{rest}.weight");
    assert!(found.contains(&(name("lora_A"), "F16".to_owned(), vec![4, 48])));
    assert!(found.contains(&(name("lora_B"), "F16".to_owned(), vec![32, 4])));
    let config: Value =
        serde_json::from_slice(&read(&folder.join("adapter_config.json"))).expect("JSON");
    assert_eq!((&config["r"], &config["lora_alpha"]), (&json!(4), &json!(8)));
}

#[test]
fn what_can_not_be_made_is_refused_by_name() {
    let dir = tempfile::tempdir().expect("folder");
    let check = |change: fn(&mut AdapterPlan), expect: &str| {
        let mut plan = plan(1, 0);
        change(&mut plan);
        let error = make_adapters(&small(), dir.path(), &plan).expect_err(expect);
        assert_eq!(error.to_string(), expect);
    };
    check(|plan| plan.rank = 0, "rank: 0 does not fit q_proj of 64 x 32");
    check(|plan| plan.rank = 33, "rank: 33 does not fit q_proj of 64 x 32");
    check(|plan| plan.targets.clear(), "targets: none are given");
    check(|plan| plan.targets.push("q_proj".to_owned()), "targets: \"q_proj\" is given twice");
    check(
        |plan| plan.targets = vec!["lm_head".to_owned()],
        "targets: \"lm_head\" is none of q_proj, k_proj, v_proj, o_proj, gate_proj, up_proj, \
         down_proj",
    );
    let mut fits = plan(1, 0);
    fits.rank = 32;
    make_adapters(&small(), dir.path(), &fits).expect("the largest rank");

    let words_none = Shape { vocab: FIRST_WORD, ..small() };
    let error = make_model(&words_none, dir.path(), Dtype::F16, 0).expect_err("too small");
    assert_eq!(error.to_string(), "shape: a vocabulary needs more than 262 tokens, got 262");
    let one_word = Shape { vocab: FIRST_WORD + 1, ..small() };
    make_model(&one_word, dir.path(), Dtype::F16, 0).expect("one word is enough");
    Shape::of("no-such-shape").expect_err("neither name nor directory");
    std::fs::write(dir.path().join("config.json"), "{\"hidden_size\": 3").expect("written");
    Shape::of(dir.path().to_str().expect("UTF-8")).expect_err("cut short");
}

#[test]
fn words_count_like_columns_of_a_spreadsheet() {
    let check = |index: usize, expect: &str| assert_eq!(word(index), expect);
    check(0, "a");
    check(25, "z");
    check(26, "aa");
    check(26 + 675, "zz");
    check(26 + 676, "aaa");
    check(26 + 676 + 17_576, "aaaa");
}

#[test]
fn every_word_is_one_token_and_every_id_is_text() {
    let dir = tempfile::tempdir().expect("folder");
    // Words of up to four letters, the last level cut short.
    let shape = Shape { vocab: 20_000, ..small() };
    make_model(&shape, dir.path(), Dtype::F16, 0).expect("made");
    let tokenizer = Tokenizer::from_dir(dir.path()).expect("a tokenizer");
    assert_eq!(tokenizer.vocab_size(), shape.vocab);
    let ids: Vec<u32> = (FIRST_WORD as u32..shape.vocab as u32).rev().collect();
    let text: String =
        ids.iter().map(|id| format!(" {}", word(*id as usize - FIRST_WORD))).collect();
    assert_eq!(tokenizer.encode(&text, false).expect("encodes"), ids);
    assert_eq!(tokenizer.decode(&ids, true).expect("decodes"), text);
    assert!((0..shape.vocab as u32).all(|id| tokenizer.token_bytes(id).is_some()));
    assert_eq!(tokenizer.encode(" a", true).expect("encodes"), [1, FIRST_WORD as u32]);
    let other = "Größe: 42 €\n";
    let ids = tokenizer.encode(other, false).expect("encodes");
    assert_eq!(tokenizer.decode(&ids, true).expect("decodes"), other);
}

#[test]
fn links_share_weights_and_are_adapters_of_their_own() {
    use std::os::unix::fs::MetadataExt;
    let dir = tempfile::tempdir().expect("folder");
    let weights = |index| dir.path().join(adapter_name(index)).join(WEIGHTS_FILE);
    let inode = |index| std::fs::metadata(weights(index)).expect("there").ino();
    let inodes = || (0..7).map(inode).collect::<BTreeSet<_>>().len();
    let config =
        |index: usize| read(&dir.path().join(adapter_name(index)).join("adapter_config.json"));
    let made = |distinct| {
        let plan = AdapterPlan { distinct, ..plan(7, 3) };
        make_adapters(&small(), dir.path(), &plan).expect("made")
    };
    let found = made(3);
    assert_eq!((found.count, found.links), (7, 4));
    assert_eq!(found.file_bytes, read(&weights(0)).len() as u64);
    assert_eq!(inodes(), 3);
    for (index, same) in [(3, 0), (4, 1), (5, 2), (6, 0)] {
        assert_eq!(inode(index), inode(same));
    }
    // All with the same weights have configurations of their own.
    assert_eq!([0, 3, 6].map(config).iter().collect::<BTreeSet<_>>().len(), 3);
    assert_eq!(config(0), config(2));
    // Made again with other links, nobody's file is written through a link.
    let first = read(&weights(0));
    assert_eq!(made(7).links, 0);
    assert_eq!(inodes(), 7);
    assert_eq!(read(&weights(0)), first);
    assert_ne!(read(&weights(3)), first);
    assert_eq!(made(100).links, 0);
    let none = AdapterPlan { distinct: 0, ..plan(1, 3) };
    let error = make_adapters(&small(), dir.path(), &none).expect_err("refused").to_string();
    assert_eq!(error, "distinct: must be at least 1");
}
