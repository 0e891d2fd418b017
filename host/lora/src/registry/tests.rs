//! Real directories: aliases, leases, the folder, and files that are torn or replaced.

use std::fs;

use super::*;
use crate::files::WEIGHTS_FILE;
use crate::testing::{shape, tensors, write};

/// Fills `dir` with an adapter of rank 2 whose weights begin with `value`.
fn fill(dir: &Path, value: f32) {
    write(dir, r#""r": 2"#, &tensors(2, value));
}

fn adapter(value: f32) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    fill(dir.path(), value);
    dir
}

fn with(config: RegistryConfig) -> Registry {
    Registry::new(config, shape()).unwrap()
}

fn registry() -> Registry {
    with(RegistryConfig::default())
}

fn lease(registry: &Registry, alias: &str) -> Result<Lease, Arc<LoraError>> {
    registry.acquire(alias).map_err(Arc::new)?.wait()
}

/// Bytes of one of these adapters.
fn bytes() -> u64 {
    registry().register("a", adapter(1.0).path()).unwrap().bytes
}

/// Room for `count` of them.
fn room_for(count: u64) -> Registry {
    with(RegistryConfig { resident_bytes_max: count * bytes(), ..RegistryConfig::default() })
}

#[test]
fn an_alias_moves_and_a_lease_does_not() {
    let (registry, first, second) = (registry(), adapter(1.0), adapter(2.0));
    let old = registry.load("a", first.path()).unwrap();
    assert_eq!((old.alias.as_str(), old.rank_max, &*old.path), ("a", 2, first.path()));
    assert_eq!(
        (old.targets.as_slice(), old.residence),
        (["q_proj".to_owned()].as_slice(), Residence::Memory)
    );
    let held = lease(&registry, "a").unwrap();
    let new = registry.load("a", second.path()).unwrap();
    assert_ne!(old.generation, new.generation);
    assert_eq!((Some(held.generation()), held.alias()), (old.generation, "a"));
    assert_eq!(Some(lease(&registry, "a").unwrap().generation()), new.generation);
    assert_eq!(registry.resident_bytes(), 2 * new.bytes);
    drop(held);
    assert_eq!(registry.resident_bytes(), new.bytes);
}

#[test]
fn an_unloaded_adapter_stays_with_its_leases() {
    let (registry, dir) = (registry(), adapter(1.0));
    let info = registry.load("a", dir.path()).unwrap();
    let held = lease(&registry, "a").unwrap();
    let engine = Arc::clone(held.adapter());
    let leases = [held.share(), held];
    assert_eq!(registry.get("a").unwrap().leases, 1);
    assert_eq!(registry.unload("a").unwrap().generation, info.generation);
    assert!(matches!(registry.acquire("a"), Err(LoraError::Unknown { .. })));
    assert!(matches!(registry.unload("a"), Err(LoraError::Unknown { .. })));
    drop(leases);
    assert_eq!(registry.resident_bytes(), info.bytes, "the engine still computes with it");
    assert!(engine.module(0).is_some());
    drop(engine);
    assert_eq!(registry.resident_bytes(), 0);
}

#[test]
fn one_content_is_in_memory_once() {
    let (registry, dir, copy) = (registry(), adapter(1.0), adapter(1.0));
    let one = registry.load("a", dir.path()).unwrap();
    let two = registry.load("b", copy.path()).unwrap();
    assert_eq!(one.generation, two.generation);
    assert_eq!(registry.resident_bytes(), one.bytes);
    registry.unload("a").unwrap();
    assert_eq!(registry.resident_bytes(), one.bytes);
    registry.unload("b").unwrap();
    assert_eq!(registry.resident_bytes(), 0);
}

#[test]
fn registering_reads_no_weights_and_asking_does() {
    let (registry, dir) = (registry(), adapter(1.0));
    let info = registry.register("a", dir.path()).unwrap();
    assert_eq!((info.generation, info.residence, info.unused_for), (None, Residence::Disk, None));
    assert_eq!(registry.resident_bytes(), 0);
    let held = lease(&registry, "a").unwrap();
    assert_eq!(held.adapter().bytes(), info.bytes);
    let info = registry.get("a").unwrap();
    assert_eq!((info.generation, info.leases), (Some(held.generation()), 1));
    assert_eq!((info.uses, info.loads, info.evictions), (1, 1, 0));
    assert!(info.unused_for.is_some());
}

#[test]
fn an_eviction_does_not_show() {
    let (registry, dirs) = (room_for(1), [adapter(1.0), adapter(2.0)]);
    let alone = dirs
        .each_ref()
        .map(|dir| crate::Adapter::from_dir(dir.path(), &shape()).unwrap().generation());
    registry.register("0", dirs[0].path()).unwrap();
    registry.register("1", dirs[1].path()).unwrap();
    for round in 0..6 {
        let held = lease(&registry, ["0", "1"][round % 2]).unwrap();
        assert_eq!(held.generation(), alone[round % 2]);
        assert!(registry.resident_bytes() <= held.adapter().bytes());
    }
    let info = registry.get("0").unwrap();
    assert_eq!((info.loads, info.evictions, info.residence), (3, 3, Residence::Disk));
}

#[test]
fn files_replaced_or_torn_after_the_first_load_are_refused_until_loaded_again() {
    let (registry, dirs) = (room_for(1), [adapter(1.0), adapter(2.0)]);
    registry.register("0", dirs[0].path()).unwrap();
    registry.register("1", dirs[1].path()).unwrap();
    let first = lease(&registry, "0").unwrap().generation();
    let evict = || drop(lease(&registry, "1").unwrap());
    evict();
    let weights = dirs[0].path().join(WEIGHTS_FILE);
    let whole = fs::read(&weights).unwrap();

    fill(dirs[0].path(), 7.0);
    let refused = lease(&registry, "0").unwrap_err();
    assert!(matches!(&*refused, LoraError::Changed { path } if path == dirs[0].path()));
    fs::write(&weights, &whole[..whole.len() - 1]).unwrap();
    let refused = lease(&registry, "0").unwrap_err().to_string();
    assert!(refused.contains("cut short"), "{refused}");
    write(dirs[0].path(), r#""r": 3"#, &tensors(3, 1.0));
    let refused = lease(&registry, "0").unwrap_err();
    assert!(matches!(&*refused, LoraError::Changed { .. }), "another size: {refused}");
    assert_eq!(lease(&registry, "1").unwrap().alias(), "1", "others are not disturbed");

    fill(dirs[0].path(), 1.0);
    assert_eq!(lease(&registry, "0").unwrap().generation(), first, "the same content is back");
    evict();
    fill(dirs[0].path(), 7.0);
    let new = registry.load("0", dirs[0].path()).unwrap().generation;
    assert_ne!(new, Some(first));
    assert_eq!(Some(lease(&registry, "0").unwrap().generation()), new);
}

#[test]
fn the_budget_is_met_by_waiting() {
    let (registry, dirs) = (room_for(1), [adapter(1.0), adapter(2.0)]);
    registry.register("0", dirs[0].path()).unwrap();
    registry.register("1", dirs[1].path()).unwrap();
    let held = lease(&registry, "0").unwrap();
    let waiting = registry.acquire("1").unwrap();
    assert!(!waiting.is_ready());
    assert_eq!(registry.get("1").unwrap().residence, Residence::Loading);
    drop(held);
    assert_eq!(waiting.wait().unwrap().alias(), "1");
    let small =
        with(RegistryConfig { resident_bytes_max: bytes() - 1, ..RegistryConfig::default() });
    let refused = small.register("a", dirs[0].path()).unwrap_err();
    assert!(matches!(refused, LoraError::BudgetExceeded { .. }), "{refused}");
}

#[test]
fn a_failed_load_changes_nothing() {
    let (registry, dir) = (registry(), adapter(1.0));
    let info = registry.load("a", dir.path()).unwrap();
    let broken = tempfile::tempdir().unwrap();
    write(broken.path(), r#""r": 3"#, &tensors(2, 1.0));
    assert!(registry.load("a", broken.path()).is_err());
    assert!(registry.load("a", &broken.path().join("nowhere")).is_err());
    assert!(registry.register("a", broken.path()).is_err());
    assert_eq!(registry.get("a").unwrap().version, info.version);
    assert_eq!(registry.resident_bytes(), info.bytes);
}

#[test]
fn aliases_have_bounds() {
    let dir = adapter(1.0);
    let registry = with(RegistryConfig { adapters_max: 2, ..RegistryConfig::default() });
    let load = |alias: &str| registry.register(alias, dir.path());
    for alias in [String::new(), "a\nb".to_owned(), "x".repeat(ALIAS_BYTES_MAX + 1)] {
        assert!(matches!(load(&alias), Err(LoraError::Alias { .. })));
    }
    let longest = "x".repeat(ALIAS_BYTES_MAX);
    assert!(load(&longest).is_ok());
    assert!(load("a").is_ok());
    assert!(matches!(load("b"), Err(LoraError::TooMany { adapters_max: 2 })));
    assert!(load("a").is_ok(), "the same name again takes no room");
    registry.unload(&longest).unwrap();
    assert!(load("b").is_ok());
    assert_eq!(registry.aliases(), ["a", "b"]);
}

#[test]
fn a_folder_is_followed() {
    let (registry, dir, elsewhere) = (registry(), tempfile::tempdir().unwrap(), adapter(9.0));
    let path = |name: &str| dir.path().join(name);
    registry.register("named", elsewhere.path()).unwrap();
    for (name, value) in [("one", 1.0), ("two", 2.0), ("bad name", 3.0), ("named", 4.0)] {
        fill(&path(name), value);
    }
    fs::create_dir(path("empty")).unwrap();
    fill(&path("torn"), 5.0);
    fs::write(path("torn").join(WEIGHTS_FILE), "").unwrap();
    let accepts: fn(&str) -> bool = |name| !name.contains(' ');
    let scan = registry.watch(Folder { dir: dir.path().to_owned(), accepts }).unwrap();
    assert_eq!((scan.added, scan.changed, scan.removed), (2, 0, 0));
    let refused: Vec<_> = scan.refused.iter().map(|(path, _)| path.file_name().unwrap()).collect();
    assert_eq!(refused, ["bad name", "torn"]);
    assert_eq!(registry.aliases(), ["named", "one", "two"]);
    assert_eq!(registry.get("named").unwrap().path, elsewhere.path(), "the name was taken");
    assert_eq!(registry.resident_bytes(), 0);

    // New ones are found when they are asked for; nothing outside the folder is.
    fill(&path("three"), 3.0);
    assert!(registry.discover("three").unwrap());
    for alias in ["four", "", ".", "..", "../x", "empty", "bad name", "a/b", "/etc"] {
        assert!(!registry.discover(alias).unwrap(), "{alias}");
    }
    assert!(registry.discover("torn").is_err());
    let before = lease(&registry, "one").unwrap().generation();
    // What is unloaded is not found again before a scan.
    registry.unload("two").unwrap();
    assert!(!registry.discover("two").unwrap());
    fill(&path("one"), 7.0);
    fs::remove_dir_all(path("three")).unwrap();
    let scan = registry.scan().unwrap();
    assert_eq!((scan.added, scan.changed, scan.removed), (1, 1, 1));
    assert_eq!(registry.aliases(), ["named", "one", "two"]);
    assert_ne!(lease(&registry, "one").unwrap().generation(), before);
    let scan = registry.scan().unwrap();
    assert_eq!((scan.added, scan.changed, scan.removed), (0, 0, 0));
}

/// What the first module adds to zeros for an input of ones.
fn product(adapter: &crate::Adapter) -> Vec<f32> {
    use candle_core::{DType, Device, Tensor};
    let pair = adapter.module(0).unwrap();
    let segments = [kernels::LoraSegment { row_start: 0, rows: 1, pair }];
    let x = Tensor::ones((1, pair.in_features()), DType::F32, &Device::Cpu).unwrap();
    let y = Tensor::zeros((1, pair.out_features()), DType::F32, &Device::Cpu).unwrap();
    let hidden = kernels::lora_shrink(&x, &segments).unwrap();
    let y = kernels::lora_expand(y, &hidden, &segments).unwrap();
    y.flatten_all().unwrap().to_vec1().unwrap()
}

#[test]
fn a_blend_adds_up_its_parts() {
    let (registry, dir) = (registry(), tempfile::tempdir().unwrap());
    let path = |name: &str| dir.path().join(name);
    write(&path("a"), r#""r": 2, "lora_alpha": 3"#, &tensors(2, -1.0));
    write(&path("b"), r#""r": 3, "lora_alpha": 6"#, &tensors(3, 0.5));
    registry.register("a", &path("a")).unwrap();
    registry.watch(Folder { dir: dir.path().to_owned(), accepts: |name| name != "a" }).unwrap();
    let alone = ["a", "b"].map(|alias| product(lease(&registry, alias).unwrap().adapter()));
    let check = |name: &str, weights: [f32; 2], rank: usize| {
        assert!(registry.discover(name).unwrap(), "{name}");
        let held = lease(&registry, name).unwrap();
        assert_eq!(held.adapter().rank_max(), rank);
        assert_eq!(held.alias(), name);
        for (index, found) in product(held.adapter()).into_iter().enumerate() {
            let parts = [0, 1].map(|part| weights[part] * alone[part][index]);
            let (expect, size) = (parts[0] + parts[1], parts[0].abs() + parts[1].abs());
            assert!((found - expect).abs() <= 1e-5 * size, "{name}: {found} {expect}");
        }
        let parts: Vec<_> = held.parts().iter().map(|part| (part.alias, part.weight)).collect();
        let expect: f32 = weights.iter().sum();
        assert!((parts.iter().map(|part| part.1).sum::<f32>() - expect).abs() < 1e-6, "{parts:?}");
        held.generation()
    };
    let blend = check("a:0.75+b:0.25", [0.75, 0.25], 5);
    assert_ne!(check("b:0.25+a:0.75", [0.75, 0.25], 5), blend);
    check("a+b", [1.0, 1.0], 5);
    check("a:-2", [-2.0, 0.0], 2);
    check("b:0.5+b:0.5", [0.0, 1.0], 6);
    for name in ["a", "a+c", "a:1+", "c:1", "x"] {
        assert!(!registry.discover(name).unwrap(), "{name}");
    }
    assert!(matches!(registry.discover("a:1000"), Err(LoraError::Blend { .. })));
    assert_eq!(registry.aliases(), ["a", "b"], "a blend is no alias");

    // A part that moves on takes the blend with it; one whose files changed is refused.
    assert!(registry.contains("a:0.75+b:0.25"));
    fill(&path("a"), 4.0);
    registry.register("a", &path("a")).unwrap();
    assert!(!registry.contains("a:0.75+b:0.25"));
    assert!(registry.discover("a:0.75+b:0.25").unwrap());
    assert_ne!(lease(&registry, "a:0.75+b:0.25").unwrap().generation(), blend);
    fill(&path("a"), 5.0);
    assert!(registry.discover("a:3").unwrap());
    let refused = lease(&registry, "a:3").unwrap_err();
    assert!(matches!(&*refused, LoraError::Changed { .. }), "{refused}");
}

#[test]
fn many_threads_may_load_acquire_and_unload() {
    let (registry, dirs) = (room_for(2), [adapter(1.0), adapter(2.0), adapter(3.0)]);
    let alone = dirs
        .each_ref()
        .map(|dir| crate::Adapter::from_dir(dir.path(), &shape()).unwrap().generation());
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let (registry, dirs, alone) = (&registry, &dirs, &alone);
            scope.spawn(move || {
                for round in 0..50 {
                    let which = (thread + round) % 3;
                    let alias = ["x", "y", "z"][which];
                    registry.register(alias, dirs[which].path()).unwrap();
                    let held = lease(registry, alias);
                    if round % 5 == 0 {
                        // Another thread may have been faster.
                        let _ = registry.unload(alias);
                    }
                    // Or have unloaded it in between.
                    if let Ok(held) = held {
                        assert_eq!(held.generation(), alone[which]);
                        assert!(held.adapter().module(0).is_some());
                    }
                }
            });
        }
    });
    for alias in ["x", "y", "z"] {
        // Some of them are gone already.
        let _ = registry.unload(alias);
    }
    assert_eq!(registry.resident_bytes(), 0);
}
