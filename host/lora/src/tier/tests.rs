//! Eviction order on small cases, and the tier's promises against a map over random histories.

use std::collections::HashMap;

use proptest::prelude::*;

use super::*;

fn loaded(tier: &mut Tier<u32>, key: u32, bytes: u64, cost: u64) -> Vec<u32> {
    let Room::Made(evicted) = tier.reserve(bytes) else { panic!("no room for {key}") };
    tier.insert(key, bytes, cost);
    evicted
}

fn used(tier: &mut Tier<u32>, key: u32, times: usize) {
    for _ in 0..times {
        assert!(tier.lease(key));
        assert!(!tier.release(key));
    }
}

#[test]
fn the_least_worth_keeping_goes_first() {
    // (bytes, cost, uses) of residents 0, 1, 2; which goes for one more byte than is free.
    let check = |residents: [(u64, u64, usize); 3], expect: u32| {
        let total = residents.iter().map(|resident| resident.0).sum();
        let mut tier = Tier::new(total);
        for (key, (bytes, cost, uses)) in residents.into_iter().enumerate() {
            assert!(loaded(&mut tier, key as u32, bytes, cost).is_empty());
            used(&mut tier, key as u32, uses);
        }
        assert_eq!(tier.reserve(1), Room::Made(vec![expect]), "{residents:?}");
    };
    check([(10, 5, 2), (10, 5, 1), (10, 5, 3)], 1);
    check([(10, 5, 1), (10, 9, 1), (10, 2, 1)], 2);
    check([(10, 5, 1), (20, 5, 1), (10, 5, 1)], 1);
    // Of equals, the one that was used longest ago.
    check([(10, 5, 1), (10, 5, 1), (10, 5, 1)], 0);
    // Loaded and not used is as good as used once.
    check([(10, 5, 0), (10, 5, 1), (10, 5, 2)], 0);
    check([(10, 0, 1), (10, 0, 1), (10, 1, 1)], 0);
}

#[test]
fn what_was_popular_once_goes_in_time() {
    let mut tier = Tier::new(2);
    loaded(&mut tier, 0, 1, 1);
    used(&mut tier, 0, 50);
    let mut survived = 0;
    for key in 1.. {
        let evicted = loaded(&mut tier, key, 1, 1);
        used(&mut tier, key, 1);
        if evicted == [0] {
            break;
        }
        survived += 1;
    }
    assert!((40..60).contains(&survived), "{survived}");
}

#[test]
fn room_is_made_to_the_byte() {
    let mut tier = Tier::new(30);
    for key in 0..3 {
        loaded(&mut tier, key, 10, 1);
    }
    assert_eq!(tier.reserve(31), Room::Never);
    assert!(tier.lease(1));
    assert_eq!(tier.reserve(21), Room::Wait, "20 are idle");
    assert_eq!(tier.held(), 30, "a wait evicts nobody");
    assert_eq!(tier.reserve(20), Room::Made(vec![0, 2]));
    assert_eq!((tier.held(), tier.len()), (30, 1));
    tier.cancel(20);
    assert_eq!(tier.held(), 10);
    assert_eq!(tier.reserve(20), Room::Made(vec![]));
}

#[test]
fn a_load_that_waits_gets_its_turn() {
    let mut tier = Tier::new(30);
    for (key, uses) in [(0, 3), (1, 1), (2, 2)] {
        loaded(&mut tier, key, 10, 1);
        used(&mut tier, key, uses);
        assert!(tier.lease(key));
    }
    assert_eq!(tier.reserve(10), Room::Wait);
    tier.spend(10);
    assert!(!tier.lease(1), "the least worth keeping gives no more leases");
    assert!(tier.lease(0) && tier.lease(2));
    assert!(!tier.release(0) && !tier.release(2));
    assert!(tier.release(1), "it goes with its last lease");
    assert_eq!(tier.reserve(10), Room::Made(vec![]));
    tier.cancel(10);

    loaded(&mut tier, 1, 10, 1);
    assert!(tier.lease(1));
    tier.spend(20);
    assert!(!tier.lease(1) && !tier.lease(2) && tier.lease(0));
    tier.spare();
    assert!(tier.lease(1) && tier.lease(2), "nobody waits any more");
}

#[test]
fn what_nobody_can_ask_for_goes_with_its_last_lease() {
    let mut tier = Tier::new(20);
    loaded(&mut tier, 0, 10, 1);
    assert!(tier.lease(0) && tier.lease(0));
    assert!(!tier.keep(0, false));
    assert!(!tier.release(0));
    assert!(tier.release(0));
    assert_eq!((tier.held(), tier.contains(0)), (0, false));
    loaded(&mut tier, 0, 10, 1);
    assert!(tier.keep(0, false));
    assert_eq!(tier.held(), 0);
    // Somebody may ask for it again before it goes.
    loaded(&mut tier, 0, 10, 1);
    assert!(tier.lease(0));
    assert!(!tier.keep(0, false) && !tier.keep(0, true));
    assert!(!tier.release(0));
    assert!(tier.contains(0));
}

#[derive(Clone, Debug)]
enum Act {
    Lease(u32),
    Release(u32),
    EndLoad { ok: bool },
    Keep(u32, bool),
    Spend(u32),
    Spare,
}

fn act() -> impl Strategy<Value = Act> {
    let key = 0_u32..12;
    prop_oneof![
        6 => key.clone().prop_map(Act::Lease),
        5 => key.clone().prop_map(Act::Release),
        4 => prop::bool::weighted(0.9).prop_map(|ok| Act::EndLoad { ok }),
        1 => (key.clone(), any::<bool>()).prop_map(|(key, keep)| Act::Keep(key, keep)),
        1 => key.prop_map(Act::Spend),
        1 => Just(Act::Spare),
    ]
}

/// What the tier must agree with.
#[derive(Default)]
struct Model {
    /// Leases of each resident.
    residents: HashMap<u32, usize>,
    loading: Vec<u32>,
}

fn bytes_of(key: u32) -> u64 {
    u64::from(key % 5) * 3 + 1
}

impl Model {
    fn step(&mut self, tier: &mut Tier<u32>, act: Act) {
        match act {
            Act::Lease(key) if self.residents.contains_key(&key) => {
                if tier.lease(key) {
                    *self.residents.get_mut(&key).unwrap() += 1;
                }
            }
            Act::Lease(key) => {
                assert!(!tier.lease(key));
                if !self.loading.contains(&key) {
                    self.reserve(tier, key);
                }
            }
            Act::Release(key) => {
                if let Some(leases) = self.residents.get_mut(&key).filter(|leases| **leases > 0) {
                    *leases -= 1;
                    let last = *leases == 0;
                    if tier.release(key) {
                        assert!(last, "weights went before their last lease");
                        self.residents.remove(&key);
                    }
                }
            }
            Act::EndLoad { ok } => {
                let Some(key) = self.loading.pop() else { return };
                match ok {
                    true => {
                        tier.insert(key, bytes_of(key), u64::from(key) + 1);
                        self.residents.insert(key, 0);
                    }
                    false => tier.cancel(bytes_of(key)),
                }
            }
            Act::Keep(key, keep) => {
                if tier.keep(key, keep) {
                    assert_eq!(self.residents.remove(&key), Some(0));
                }
            }
            Act::Spend(key) => tier.spend(bytes_of(key)),
            Act::Spare => tier.spare(),
        }
    }

    fn reserve(&mut self, tier: &mut Tier<u32>, key: u32) {
        let before = tier.held();
        match tier.reserve(bytes_of(key)) {
            Room::Made(evicted) => {
                let freed: u64 = evicted.iter().map(|key| bytes_of(*key)).sum();
                assert_eq!(tier.held(), before - freed + bytes_of(key));
                // Without its last victim there would not have been room.
                if let Some(last) = evicted.last() {
                    assert!(tier.held() + bytes_of(*last) > BYTES_MAX);
                }
                for victim in evicted {
                    assert_eq!(self.residents.remove(&victim), Some(0), "evicted while leased");
                }
                self.loading.push(key);
            }
            Room::Wait => {
                assert_eq!(tier.held(), before);
                let leased = self.residents.iter().filter(|(_, leases)| **leases > 0);
                let leased: u64 = leased.map(|(key, _)| bytes_of(*key)).sum();
                let loading: u64 = self.loading.iter().map(|key| bytes_of(*key)).sum();
                assert!(leased + loading + bytes_of(key) > BYTES_MAX, "there was room to make");
            }
            Room::Never => assert!(bytes_of(key) > BYTES_MAX),
        }
    }

    fn check(&self, tier: &Tier<u32>) {
        let bytes = |keys: Vec<&u32>| keys.into_iter().map(|key| bytes_of(*key)).sum::<u64>();
        let held = bytes(self.residents.keys().collect()) + bytes(self.loading.iter().collect());
        assert_eq!(tier.held(), held);
        assert!(tier.held() <= BYTES_MAX);
        assert_eq!(tier.len(), self.residents.len());
        for (key, leases) in &self.residents {
            assert_eq!(tier.leases(*key), *leases);
        }
    }
}

const BYTES_MAX: u64 = 30;

proptest! {
    #[test]
    fn any_history_keeps_the_promises(acts in prop::collection::vec(act(), 0..400)) {
        let (mut tier, mut model) = (Tier::new(BYTES_MAX), Model::default());
        for act in acts {
            model.step(&mut tier, act);
            model.check(&tier);
        }
        // Everything that was held can be given back.
        while let Some(key) = model.loading.pop() {
            tier.cancel(bytes_of(key));
        }
        for (key, leases) in &model.residents {
            for _ in 0..*leases {
                tier.release(*key);
            }
        }
        prop_assert!(matches!(tier.reserve(BYTES_MAX), Room::Made(_)));
        prop_assert_eq!((tier.held(), tier.len()), (BYTES_MAX, 0));
    }
}
