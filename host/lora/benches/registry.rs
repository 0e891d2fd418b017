//! What thousands of adapters on disk cost: how long a registry takes to know 10,000 of them, and how
//! long a request waits for one that is not in memory, against reading its bytes.
//!
//! `cargo bench -p lora -- [DIR]` writes below `DIR`, else to a temporary directory, about 1.5 GB; it
//! asserts nothing. Adapters are of rank 16 on all seven linear modules of a model of 1B parameters
//! (start-up: 16 files' worth of weights, the rest are links to them with a configuration of their
//! own).

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use lora::{Folder, ModelShape, ModuleShape, Registry, RegistryConfig};

/// Adapters of the start-up.
const REGISTERED: usize = 10_000;
/// Files of weights behind them.
const CONTENTS: usize = 16;
/// Cold loads that are timed.
const COLD_LOADS: usize = 200;
const RANK: usize = 16;

/// Name, inputs and outputs of the linear modules of a layer.
const MODULES: [(&str, usize, usize); 7] = [
    ("self_attn.q_proj", 2048, 2048),
    ("self_attn.k_proj", 2048, 512),
    ("self_attn.v_proj", 2048, 512),
    ("self_attn.o_proj", 2048, 2048),
    ("mlp.gate_proj", 2048, 8192),
    ("mlp.up_proj", 2048, 8192),
    ("mlp.down_proj", 8192, 2048),
];
const LAYERS: usize = 16;

fn shape() -> ModelShape {
    let of_layer = |layer: usize| {
        MODULES.map(|(name, in_features, out_features)| ModuleShape {
            path: format!("model.layers.{layer}.{name}"),
            in_features,
            out_features,
            adaptable: true,
            cuts: Vec::new(),
        })
    };
    ModelShape { modules: (0..LAYERS).flat_map(of_layer).collect() }
}

/// Writes bf16 weights that no other content has.
fn write_weights(path: &Path, content: usize) {
    let (mut header, mut at) = (serde_json::Map::new(), 0);
    for module in &shape().modules {
        let sizes = [('A', [RANK, module.in_features]), ('B', [module.out_features, RANK])];
        for (letter, size) in sizes {
            let bytes = size[0] * size[1] * 2;
            let name = format!("base_model.model.{}.lora_{letter}.weight", module.path);
            let offsets = [at, at + bytes];
            let info = serde_json::json!({"dtype": "BF16", "shape": size, "data_offsets": offsets});
            header.insert(name, info);
            at += bytes;
        }
    }
    let header = serde_json::to_vec(&header).expect("JSON");
    let mut file = BufWriter::new(File::create(path).expect("created"));
    file.write_all(&(header.len() as u64).to_le_bytes()).expect("written");
    file.write_all(&header).expect("written");
    let mut state = content as u64 + 1;
    for _ in 0..at / 8 {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(99);
        // Small numbers of both signs.
        let word = (state >> 1) & 0xbc7f_bc7f_bc7f_bc7f;
        file.write_all(&word.to_le_bytes()).expect("written");
    }
    file.flush().expect("written");
}

fn config(alpha: usize) -> String {
    let names: Vec<&str> = MODULES.iter().filter_map(|m| m.0.rsplit('.').next()).collect();
    serde_json::json!({
        "peft_type": "LORA", "r": RANK, "lora_alpha": alpha, "target_modules": names,
        "bias": "none", "task_type": "CAUSAL_LM", "lora_dropout": 0.0,
    })
    .to_string()
}

fn write_folder(dir: &Path) -> PathBuf {
    let (contents, folder) = (dir.join("contents"), dir.join("adapters"));
    std::fs::create_dir_all(&contents).expect("created");
    for content in 0..CONTENTS {
        write_weights(&contents.join(content.to_string()), content);
    }
    for adapter in 0..REGISTERED {
        let target = folder.join(format!("adapter-{adapter:05}"));
        std::fs::create_dir_all(&target).expect("created");
        std::fs::write(target.join("adapter_config.json"), config(adapter + 1)).expect("written");
        let weights = contents.join((adapter % CONTENTS).to_string());
        std::fs::hard_link(weights, target.join("adapter_model.safetensors")).expect("linked");
    }
    folder
}

fn quantile(times: &mut [Duration], share: f64) -> f64 {
    times.sort_unstable();
    let at = ((times.len() - 1) as f64 * share).round() as usize;
    times[at].as_secs_f64() * 1e3
}

fn started(folder: &Path) -> (Registry, Duration) {
    // Room for eight: every load below is a cold one, with an eviction.
    let config = RegistryConfig { resident_bytes_max: 8 * 23_000_000, ..RegistryConfig::default() };
    let registry = Registry::new(config, shape()).expect("threads");
    let begun = Instant::now();
    let scan = registry.watch(Folder { dir: folder.to_owned(), accepts: |_| true });
    let scan = scan.expect("listed");
    assert_eq!((scan.added, scan.refused.len()), (REGISTERED, 0));
    (registry, begun.elapsed())
}

fn main() {
    let kept = std::env::args().nth(1).filter(|argument| !argument.starts_with("--"));
    let dir = tempfile::tempdir_in(kept.unwrap_or_else(|| ".".to_owned())).expect("a folder");
    let folder = write_folder(dir.path());
    let mut starts: Vec<Duration> = (0..5).map(|_| started(&folder).1).collect();
    println!(
        "{REGISTERED} adapters registered: {:.0} ms (median of 5)",
        quantile(&mut starts, 0.5)
    );
    let (registry, _) = started(&folder);
    let bytes = registry.list()[0].bytes;

    let (mut loads, mut reads, mut hits) = (Vec::new(), Vec::new(), Vec::new());
    for index in 0..COLD_LOADS {
        let alias = format!("adapter-{:05}", index * 37 % REGISTERED);
        let path = folder.join(&alias).join("adapter_model.safetensors");
        let begun = Instant::now();
        let read = std::fs::read(path).expect("read");
        reads.push(begun.elapsed());
        drop(std::hint::black_box(read));
        let begun = Instant::now();
        let lease = registry.acquire(&alias).expect("registered").wait().expect("loaded");
        loads.push(begun.elapsed());
        let begun = Instant::now();
        drop(registry.acquire(&alias).expect("registered").wait().expect("resident"));
        hits.push(begun.elapsed());
        drop(lease);
    }
    println!("one of {bytes} bytes, files in the page cache, ms: p50, p99");
    for (what, times) in [
        ("reading its bytes", &mut reads),
        ("acquired from disk", &mut loads),
        ("acquired from memory", &mut hits),
    ] {
        println!("{what:22} {:9.4} {:9.4}", quantile(times, 0.5), quantile(times, 0.99));
    }
}
