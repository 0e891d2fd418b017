//! Aliases, leases and the budget.

use super::*;
use crate::testing::{shape, tensors, write};

/// A directory with an adapter of rank 2 whose weights begin with `value`.
fn adapter(value: f32) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), r#""r": 2"#, &tensors(2, value));
    dir
}

fn registry() -> Registry {
    Registry::new(RegistryConfig::default())
}

#[test]
fn an_alias_moves_and_a_lease_does_not() {
    let (registry, first, second) = (registry(), adapter(1.0), adapter(2.0));
    let old = registry.load("a", first.path(), &shape()).unwrap();
    assert_eq!((old.alias.as_str(), old.rank_max, &*old.path), ("a", 2, first.path()));
    let lease = registry.resolve("a").unwrap();
    let new = registry.load("a", second.path(), &shape()).unwrap();
    assert_ne!(old.generation, new.generation);
    assert_eq!((lease.generation(), lease.alias()), (old.generation, "a"));
    assert_eq!(registry.resolve("a").unwrap().generation(), new.generation);
    assert_eq!(registry.list(), std::slice::from_ref(&new));
    assert_eq!(registry.resident_bytes(), 2 * new.bytes);
    drop(lease);
    assert_eq!(registry.resident_bytes(), new.bytes);
}

#[test]
fn an_unloaded_adapter_stays_with_its_leases() {
    let (registry, dir) = (registry(), adapter(1.0));
    let info = registry.load("a", dir.path(), &shape()).unwrap();
    let lease = registry.resolve("a").unwrap();
    let leases = [lease.share(), lease];
    assert_eq!(registry.unload("a").unwrap(), info);
    assert!(registry.resolve("a").is_none());
    assert!(matches!(registry.unload("a"), Err(LoraError::Unknown { .. })));
    let [one, other] = leases;
    drop(one);
    assert_eq!(registry.resident_bytes(), info.bytes);
    assert_eq!(other.adapter().generation(), info.generation);
    drop(other);
    assert_eq!(registry.resident_bytes(), 0);
}

#[test]
fn one_content_is_in_memory_once() {
    let (registry, dir, copy) = (registry(), adapter(1.0), adapter(1.0));
    let one = registry.load("a", dir.path(), &shape()).unwrap();
    let two = registry.load("b", copy.path(), &shape()).unwrap();
    assert_eq!(one.generation, two.generation);
    assert_eq!(registry.resident_bytes(), one.bytes);
    registry.unload("a").unwrap();
    assert_eq!(registry.resident_bytes(), one.bytes);
    registry.unload("b").unwrap();
    assert_eq!(registry.resident_bytes(), 0);
}

#[test]
fn the_budget_counts_what_is_leased() {
    let (first, second) = (adapter(1.0), adapter(2.0));
    let bytes = registry().load("a", first.path(), &shape()).unwrap().bytes;
    let with = |resident_bytes_max| {
        Registry::new(RegistryConfig { resident_bytes_max, ..RegistryConfig::default() })
    };
    assert!(matches!(
        with(bytes - 1).load("a", first.path(), &shape()),
        Err(LoraError::BudgetExceeded { resident: 0, .. })
    ));
    let registry = with(2 * bytes - 1);
    registry.load("a", first.path(), &shape()).unwrap();
    let lease = registry.resolve("a").unwrap();
    registry.unload("a").unwrap();
    let refused = registry.load("b", second.path(), &shape());
    assert!(
        matches!(refused, Err(LoraError::BudgetExceeded { resident, .. }) if resident == bytes)
    );
    assert_eq!(registry.resident_bytes(), bytes);
    drop(lease);
    assert!(registry.load("b", second.path(), &shape()).is_ok());
    let registry = with(2 * bytes);
    assert!(registry.load("a", first.path(), &shape()).is_ok());
    assert!(registry.load("b", second.path(), &shape()).is_ok());
}

#[test]
fn a_failed_load_changes_nothing() {
    let (registry, dir) = (registry(), adapter(1.0));
    let info = registry.load("a", dir.path(), &shape()).unwrap();
    let broken = tempfile::tempdir().unwrap();
    write(broken.path(), r#""r": 3"#, &tensors(2, 1.0));
    assert!(registry.load("a", broken.path(), &shape()).is_err());
    assert!(registry.load("a", &broken.path().join("nowhere"), &shape()).is_err());
    assert_eq!(registry.list(), std::slice::from_ref(&info));
    assert_eq!(registry.resident_bytes(), info.bytes);
}

#[test]
fn aliases_have_bounds() {
    let dir = adapter(1.0);
    let config = RegistryConfig { adapters_max: 2, ..RegistryConfig::default() };
    let registry = Registry::new(config);
    let load = |alias: &str| registry.load(alias, dir.path(), &shape());
    for alias in [String::new(), "a\nb".to_owned(), "x".repeat(ALIAS_BYTES_MAX + 1)] {
        assert!(matches!(load(&alias), Err(LoraError::Alias { .. })));
    }
    let longest = "x".repeat(ALIAS_BYTES_MAX);
    assert!(load(&longest).is_ok());
    assert!(load("a").is_ok());
    assert!(matches!(load("b"), Err(LoraError::TooMany { adapters_max: 2 })));
    assert!(load("a").is_ok(), "a reload takes no room");
    registry.unload(&longest).unwrap();
    assert!(load("b").is_ok());
}

#[test]
fn many_threads_may_load_resolve_and_unload() {
    let (registry, dirs) = (registry(), [adapter(1.0), adapter(2.0)]);
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let (registry, dirs) = (&registry, &dirs);
            scope.spawn(move || {
                for round in 0..25 {
                    let dir = dirs[(thread + round) % 2].path();
                    let info = registry.load("shared", dir, &shape()).unwrap();
                    assert!(info.bytes > 0);
                    let lease = registry.resolve("shared");
                    if round % 5 == 0 {
                        // Another thread may have been faster.
                        let _ = registry.unload("shared");
                    }
                    assert!(lease.is_none_or(|lease| lease.adapter().module(0).is_some()));
                }
            });
        }
    });
    let held = registry.list().iter().map(|info| info.bytes).sum::<u64>();
    assert_eq!(registry.resident_bytes(), held);
}
