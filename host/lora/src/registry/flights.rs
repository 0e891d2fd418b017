//! Loads without files, threads or time: who waits for what, who is told, and random histories of a
//! registry whose loads end when the test says so.

use std::collections::HashMap;
use std::future::Future as _;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use proptest::prelude::*;
use request::{AdapterGeneration, Digest};

use super::loader::run_pending;
use super::*;
use crate::adapter::Weights;

/// Loads give the generation that a directory has now and take a second of a clock of their own.
#[derive(Default)]
struct Fake {
    contents: Mutex<HashMap<String, u8>>,
    loads: Mutex<Vec<String>>,
}

struct FakeBacking(Arc<Fake>);

fn generation(content: u8) -> AdapterGeneration {
    AdapterGeneration(Digest([content; 32]))
}

impl Backing for FakeBacking {
    fn load(&self, version: &Version) -> Result<Weights, LoraError> {
        let indexed = &version.indexed;
        let name = indexed.dir.display().to_string();
        self.0.loads.lock().unwrap().push(name.clone());
        let content = self.0.contents.lock().unwrap().get(&name).copied();
        match content {
            Some(content) => Ok(Weights::fake(generation(content), indexed.bytes)),
            None if name == "panics" => panic!("as nobody thought of"),
            None => Err(LoraError::NotAFile { path: indexed.dir.clone() }),
        }
    }

    fn now(&self) -> Duration {
        Duration::from_secs(self.0.loads.lock().unwrap().len() as u64)
    }
}

struct World {
    registry: Registry,
    fake: Arc<Fake>,
}

impl World {
    fn new(resident_bytes_max: u64, loaders: usize) -> Self {
        let fake = Arc::new(Fake::default());
        let config = RegistryConfig { resident_bytes_max, loaders, ..RegistryConfig::default() };
        let shape = Arc::new(ModelShape::default());
        let registry = Registry::over(config, shape, Box::new(FakeBacking(Arc::clone(&fake))));
        Self { registry, fake }
    }

    /// Makes `alias` name a new version of `bytes` whose directory, of the same name, has `content`.
    fn name(&self, alias: &str, bytes: u64, content: Option<u8>) -> AdapterInfo {
        let mut contents = self.fake.contents.lock().unwrap();
        match content {
            Some(content) => contents.insert(alias.to_owned(), content),
            None => contents.remove(alias),
        };
        drop(contents);
        self.registry.name(&self.version(alias, bytes)).unwrap()
    }

    fn version(&self, alias: &str, bytes: u64) -> Arc<Version> {
        let id = {
            let mut state = self.registry.shared.lock();
            state.next_id += 1;
            state.next_id
        };
        Arc::new(Version {
            id,
            alias: alias.to_owned(),
            indexed: Indexed::fake(alias, bytes),
            origin: Origin::Named,
            parts: Vec::new(),
            generation: OnceLock::new(),
            seen: Mutex::default(),
            counts: Counts::default(),
        })
    }

    fn acquire(&self, alias: &str) -> Acquire {
        self.registry.acquire(alias).unwrap()
    }

    /// Ends one load; its directory.
    fn run(&self) -> Option<String> {
        let ran = run_pending(&self.registry.shared);
        ran.then(|| self.fake.loads.lock().unwrap().last().unwrap().clone())
    }

    fn run_all(&self) -> Vec<String> {
        std::iter::from_fn(|| self.run()).collect()
    }
}

fn poll(acquire: &mut Acquire) -> Option<Result<Lease, Arc<LoraError>>> {
    match Pin::new(acquire).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(outcome) => Some(outcome),
        Poll::Pending => None,
    }
}

fn now(mut acquire: Acquire) -> Result<Lease, Arc<LoraError>> {
    poll(&mut acquire).expect("the load has ended")
}

#[test]
fn one_load_serves_all_who_wait() {
    let world = World::new(10, 2);
    world.name("a", 4, Some(1));
    let waiting: Vec<Acquire> = (0..5).map(|_| world.acquire("a")).collect();
    assert!(waiting.iter().all(|acquire| !acquire.is_ready()));
    assert_eq!(world.run_all(), ["a"]);
    let leases: Vec<Lease> = waiting.into_iter().map(|acquire| now(acquire).unwrap()).collect();
    assert_eq!(world.registry.get("a").unwrap().leases, 5);
    assert!(leases.iter().all(|lease| lease.generation() == generation(1)));
    drop(leases);
    assert!(world.acquire("a").is_ready());
    assert_eq!(world.registry.resident_bytes(), 4);
}

#[test]
fn residents_are_lent_while_others_load() {
    let world = World::new(10, 1);
    world.name("a", 4, Some(1));
    world.name("b", 4, Some(2));
    let first = world.acquire("a");
    world.run_all();
    let _a = now(first).unwrap();
    let b = world.acquire("b");
    assert!(!b.is_ready());
    assert!(world.acquire("a").is_ready());
    world.run_all();
    assert!(now(b).is_ok());
}

#[test]
fn who_leaves_does_not_end_the_load_for_others() {
    let world = World::new(10, 1);
    for alias in ["a", "b", "c"] {
        world.name(alias, 4, Some(1));
    }
    let (left, stays) = (world.acquire("a"), world.acquire("a"));
    let queued = world.acquire("b");
    drop(left);
    drop(queued);
    let last = world.acquire("c");
    assert_eq!(world.run_all(), ["a", "c"], "nobody waits for b any more");
    assert!(now(stays).is_ok() && now(last).is_ok());
    // A load that runs is finished for who comes next.
    world.name("d", 4, Some(4));
    drop(world.acquire("d"));
    world.run_all();
    assert!(world.acquire("d").is_ready());
    assert_eq!(world.registry.shared.waiting.load(std::sync::atomic::Ordering::Relaxed), 0);
}

#[test]
fn a_load_without_room_waits_for_leases_to_end() {
    let world = World::new(10, 2);
    for (alias, content) in [("a", 1), ("b", 2), ("c", 3), ("d", 4)] {
        world.name(alias, 5, Some(content));
    }
    let (a, b) = (world.acquire("a"), world.acquire("b"));
    world.run_all();
    let (a, b) = (now(a).unwrap(), now(b).unwrap());
    let (c, d) = (world.acquire("c"), world.acquire("d"));
    assert_eq!(world.run(), None, "nothing is evicted from under a request");
    // One of the two gives no more leases: requests for it line up behind.
    let behind = [world.acquire("a"), world.acquire("b")];
    assert_eq!(behind.iter().filter(|acquire| acquire.is_ready()).count(), 1);
    drop(behind);
    drop((a, b));
    assert_eq!(world.run_all(), ["c", "d"]);
    assert!(now(c).is_ok() && now(d).is_ok());
    assert_eq!(world.registry.resident_bytes(), 10);
    let evictions = ["a", "b"].map(|alias| world.registry.get(alias).unwrap().evictions);
    assert_eq!(evictions, [1, 1], "whichever way they went");
}

#[test]
fn nobody_is_overtaken_by_smaller_ones() {
    let world = World::new(10, 2);
    for (alias, bytes) in [("a", 6), ("large", 8), ("small", 2)] {
        world.name(alias, bytes, Some(bytes as u8));
    }
    let a = world.acquire("a");
    world.run_all();
    let a = now(a).unwrap();
    let (large, small) = (world.acquire("large"), world.acquire("small"));
    assert_eq!(world.run(), None);
    drop(a);
    assert_eq!(world.run_all(), ["large", "small"]);
    assert!(now(large).is_ok() && now(small).is_ok());
}

#[test]
fn a_load_that_fails_is_told_to_all_and_tried_again() {
    let world = World::new(10, 2);
    world.name("a", 4, None);
    let waiting = [world.acquire("a"), world.acquire("a")];
    world.run_all();
    for acquire in waiting {
        assert!(matches!(&*now(acquire).unwrap_err(), LoraError::NotAFile { .. }));
    }
    assert_eq!(world.registry.resident_bytes(), 0);
    world.fake.contents.lock().unwrap().insert("a".to_owned(), 1);
    let again = world.acquire("a");
    world.run_all();
    assert!(now(again).is_ok());

    world.name("panics", 4, None);
    let panics = world.acquire("panics");
    world.run_all();
    assert!(matches!(&*now(panics).unwrap_err(), LoraError::Abandoned { .. }));
    assert_eq!(world.registry.resident_bytes(), 4);
}

#[test]
fn content_that_changed_is_refused_and_a_newer_version_is_waited_for() {
    let world = World::new(4, 1);
    world.name("a", 4, Some(1));
    world.name("b", 4, Some(2));
    let evict = || {
        let b = world.acquire("b");
        world.run_all();
        now(b).unwrap();
    };
    let a = world.acquire("a");
    world.run_all();
    now(a).unwrap();
    evict();
    world.fake.contents.lock().unwrap().insert("a".to_owned(), 9);
    let a = world.acquire("a");
    world.run_all();
    assert!(matches!(&*now(a).unwrap_err(), LoraError::Changed { .. }));
    assert_eq!(world.registry.get("a").unwrap().generation, Some(generation(1)));
    // Asked for before the alias moved, loaded after: the newer version answers.
    let a = world.acquire("a");
    world.name("a", 4, Some(9));
    world.run_all();
    assert_eq!(now(a).unwrap().generation(), generation(9));
}

#[test]
fn an_unloaded_alias_still_serves_those_who_asked_before() {
    let world = World::new(10, 1);
    world.name("a", 4, Some(1));
    let a = world.acquire("a");
    world.registry.unload("a").unwrap();
    world.run_all();
    let a = now(a).unwrap();
    assert_eq!(world.registry.resident_bytes(), 4);
    drop(a);
    assert_eq!(world.registry.resident_bytes(), 0);
}

#[test]
fn an_attached_load_stays_and_an_abandoned_one_goes() {
    let world = World::new(10, 1);
    let begin = |alias: &str, content: u8| {
        world.fake.contents.lock().unwrap().insert(alias.to_owned(), content);
        let version = world.version(alias, 4);
        let registry = &world.registry;
        let acquire = registry.shared.change(|s, _| registry.shared.acquire(s, &version)).unwrap();
        world.run_all();
        acquire
    };
    let lease = now(begin("a", 1)).unwrap();
    assert!(!world.registry.contains("a"));
    world.registry.attach(&lease).unwrap();
    drop(lease);
    assert!(world.acquire("a").is_ready());
    drop(now(begin("b", 2)).unwrap());
    assert_eq!(world.registry.resident_bytes(), 4);
    drop(begin("b", 2));
    assert_eq!(world.registry.resident_bytes(), 4);
}

#[test]
fn those_who_wait_are_bounded_and_told_of_the_end() {
    let fake = Arc::new(Fake::default());
    let config = RegistryConfig { waiters_max: 2, ..RegistryConfig::default() };
    let backing = Box::new(FakeBacking(Arc::clone(&fake)));
    let registry = Registry::over(config, Arc::new(ModelShape::default()), backing);
    let world = World { registry, fake };
    world.name("a", 4, Some(1));
    let (one, two) = (world.acquire("a"), world.acquire("a"));
    assert!(matches!(world.registry.acquire("a"), Err(LoraError::Busy { waiting: 2 })));
    drop(one);
    let three = world.acquire("a");
    drop(world);
    for acquire in [two, three] {
        assert!(matches!(&*now(acquire).unwrap_err(), LoraError::Abandoned { .. }));
    }
}

#[derive(Clone, Debug)]
enum Act {
    Acquire(u8),
    Collect,
    Leave,
    End(usize),
    Run,
    Move(u8),
    Unload(u8),
}

fn act() -> impl Strategy<Value = Act> {
    let key = 0_u8..8;
    prop_oneof![
        8 => key.clone().prop_map(Act::Acquire),
        6 => Just(Act::Collect),
        2 => Just(Act::Leave),
        6 => (0_usize..8).prop_map(Act::End),
        5 => Just(Act::Run),
        1 => key.clone().prop_map(Act::Move),
        1 => key.prop_map(Act::Unload),
    ]
}

/// Content `round * 8 + key`, so that no two versions share one.
fn content(key: u8, round: u8) -> u8 {
    round.wrapping_mul(8).wrapping_add(key)
}

proptest! {
    #[test]
    fn any_history_of_requests_is_served_within_the_budget(
        acts in prop::collection::vec(act(), 0..200),
        loaders in 1_usize..3,
    ) {
        const BYTES_MAX: u64 = 12;
        let world = World::new(BYTES_MAX, loaders);
        let alias = |key: u8| format!("k{key}");
        let bytes = |key: u8| u64::from(key % 4) + 2;
        let mut rounds = [0_u8; 8];
        (0..8).for_each(|key| drop(world.name(&alias(key), bytes(key), Some(content(key, 0)))));
        let (mut waiting, mut leases) = (Vec::<Acquire>::new(), Vec::<Lease>::new());
        for act in acts {
            match act {
                Act::Acquire(key) => waiting.extend(world.registry.acquire(&alias(key))),
                Act::Collect => {
                    for mut acquire in std::mem::take(&mut waiting) {
                        match poll(&mut acquire) {
                            Some(lease) => leases.push(lease.expect("no content ever changes")),
                            None => waiting.push(acquire),
                        }
                    }
                }
                Act::Leave => drop(waiting.pop()),
                Act::End(index) if index < leases.len() => drop(leases.swap_remove(index)),
                Act::End(_) => {}
                Act::Run => drop(world.run()),
                Act::Move(key) => {
                    // Versions that were replaced before their load would read the new content.
                    world.run_all();
                    let round = &mut rounds[usize::from(key)];
                    *round = round.wrapping_add(1);
                    if waiting.iter().all(|acquire| acquire.alias() != alias(key)) {
                        world.name(&alias(key), bytes(key), Some(content(key, *round)));
                    }
                }
                Act::Unload(key) => drop(world.registry.unload(&alias(key))),
            }
            let held = world.registry.resident_bytes();
            prop_assert!(held <= BYTES_MAX);
            let distinct: HashMap<_, u64> =
                leases.iter().map(|lease| (lease.generation(), lease.adapter().bytes())).collect();
            prop_assert!(distinct.values().sum::<u64>() <= held, "a lease without its bytes");
        }
        // Every place in the queue ends in a lease once leases end.
        while !waiting.is_empty() {
            leases.clear();
            world.run_all();
            let before = waiting.len();
            for mut acquire in std::mem::take(&mut waiting) {
                match poll(&mut acquire) {
                    Some(lease) => leases.push(lease.expect("no content ever changes")),
                    None => waiting.push(acquire),
                }
            }
            prop_assert!(waiting.len() < before, "nobody got a turn");
        }
        leases.clear();
        world.run_all();
        (0..8).for_each(|key| drop(world.registry.unload(&alias(key))));
        prop_assert_eq!(world.registry.resident_bytes(), 0);
    }
}
