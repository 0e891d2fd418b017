//! Which weights are in memory, who may be evicted, and in what order: a state machine without
//! weights, files, threads or time, so that it can be run a million times in a test.
//!
//! Bytes are reserved before a load begins and held until the weights are dropped; they never exceed
//! the budget. What a request leases is never evicted. Victims are chosen by GreedyDual-Size-Frequency:
//! `floor + uses * cost / bytes`, smallest first, where `floor` is the value of the last victim. What
//! is asked for often, or takes long to load for its size, stays; what was popular once ages as the
//! floor rises.

use std::collections::{BTreeSet, HashMap};
use std::hash::Hash;

/// Scale of `cost / bytes`, so that whole numbers keep enough of it.
const VALUE_SCALE: u128 = 1 << 16;

/// Whether a load may begin.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Room<K> {
    /// The bytes are reserved; these had to go.
    Made(Vec<K>),
    /// Too much is leased or being loaded. Nothing has changed.
    Wait,
    /// It is larger than the budget.
    Never,
}

#[derive(Debug)]
struct Slot {
    bytes: u64,
    /// Nanoseconds that a load takes.
    cost: u64,
    uses: u64,
    /// Value at the last use.
    value: u64,
    /// When it was last used, counted in uses of any slot.
    touched: u64,
    leases: usize,
    /// Whether it stays after its last lease.
    keep: bool,
    /// Whether it gives no more leases, because a load waits for its bytes.
    spent: bool,
}

impl Slot {
    fn value_at(&self, floor: u64) -> u64 {
        // Who was loaded and not used yet is as good as used once.
        let worth = u128::from(self.uses.max(1)) * u128::from(self.cost.max(1)) * VALUE_SCALE;
        let worth = worth / u128::from(self.bytes.max(1));
        floor.saturating_add(u64::try_from(worth).unwrap_or(u64::MAX))
    }
}

/// Residents under a budget.
#[derive(Debug)]
pub(crate) struct Tier<K> {
    bytes_max: u64,
    /// Bytes of slots and of loads that run.
    held: u64,
    /// Bytes of slots without a lease.
    idle_bytes: u64,
    floor: u64,
    uses: u64,
    /// Leases of all slots.
    leased: usize,
    /// Whether any slot may be spent.
    spends: bool,
    slots: HashMap<K, Slot>,
    /// Slots without a lease, the first to go in front.
    idle: BTreeSet<(u64, u64, K)>,
}

impl<K: Copy + Eq + Ord + Hash> Tier<K> {
    pub(crate) fn new(bytes_max: u64) -> Self {
        Self {
            bytes_max,
            held: 0,
            idle_bytes: 0,
            floor: 0,
            uses: 0,
            leased: 0,
            spends: false,
            slots: HashMap::new(),
            idle: BTreeSet::new(),
        }
    }

    /// Bytes of residents and of loads that run.
    pub(crate) fn held(&self) -> u64 {
        self.held
    }

    /// Leases of all residents.
    pub(crate) fn leased(&self) -> usize {
        self.leased
    }

    /// Residents.
    pub(crate) fn len(&self) -> usize {
        self.slots.len()
    }

    pub(crate) fn contains(&self, key: K) -> bool {
        self.slots.contains_key(&key)
    }

    /// Leases of a resident.
    pub(crate) fn leases(&self, key: K) -> usize {
        self.slots.get(&key).map_or(0, |slot| slot.leases)
    }

    /// Makes room for a load of `bytes`, evicting no more than it must.
    pub(crate) fn reserve(&mut self, bytes: u64) -> Room<K> {
        if bytes > self.bytes_max {
            return Room::Never;
        }
        let over = (self.held + bytes).saturating_sub(self.bytes_max);
        if over > self.idle_bytes {
            return Room::Wait;
        }
        let mut evicted = Vec::new();
        let held_max = self.bytes_max - bytes;
        while self.held > held_max {
            let (value, _, key) = *self.idle.first().expect("idle bytes are bytes of idle slots");
            self.floor = self.floor.max(value);
            self.drop_slot(key);
            evicted.push(key);
        }
        self.held += bytes;
        Room::Made(evicted)
    }

    /// Gives back what was reserved for a load that failed or was not needed.
    pub(crate) fn cancel(&mut self, bytes: u64) {
        self.held -= bytes;
    }

    /// A load has ended well: its reservation becomes a resident without leases. `cost` is what the
    /// load took, in nanoseconds.
    pub(crate) fn insert(&mut self, key: K, bytes: u64, cost: u64) {
        let mut slot = Slot {
            bytes,
            cost,
            uses: 0,
            value: 0,
            touched: self.uses,
            leases: 0,
            keep: true,
            spent: false,
        };
        slot.value = slot.value_at(self.floor);
        let before = self.slots.insert(key, slot);
        assert!(before.is_none(), "a resident was loaded again");
        self.set_idle(key);
    }

    /// Leases a resident; false if it is not there or gives no more leases.
    pub(crate) fn lease(&mut self, key: K) -> bool {
        let gives = self.slots.get(&key).is_some_and(|slot| !slot.spent);
        if gives {
            self.lease_loaded(key);
        }
        gives
    }

    /// Leases a resident that was loaded for those who ask, even if it gives no more leases.
    pub(crate) fn lease_loaded(&mut self, key: K) {
        let slot = &self.slots[&key];
        if slot.leases == 0 {
            self.idle.remove(&(slot.value, slot.touched, key));
            self.idle_bytes -= slot.bytes;
        }
        self.uses += 1;
        self.leased += 1;
        let (uses, floor) = (self.uses, self.floor);
        let slot = self.slots.get_mut(&key).expect("found above");
        slot.leases += 1;
        slot.uses += 1;
        slot.touched = uses;
        slot.value = slot.value_at(floor);
    }

    /// Ends a lease; true if the weights are to be dropped with it.
    pub(crate) fn release(&mut self, key: K) -> bool {
        let slot = self.slots.get_mut(&key).expect("what is leased is resident");
        slot.leases -= 1;
        self.leased -= 1;
        let (last, stays) = (slot.leases == 0, slot.keep && !slot.spent);
        if last && stays {
            self.set_idle(key);
        } else if last {
            self.remove(key);
        }
        last && !stays
    }

    /// Says whether anybody can still ask for a resident. One that nobody can goes with its last
    /// lease; true if that is now.
    pub(crate) fn keep(&mut self, key: K, keep: bool) -> bool {
        let Some(slot) = self.slots.get_mut(&key) else { return false };
        slot.keep = keep;
        let goes = !keep && slot.leases == 0;
        if goes {
            self.drop_slot(key);
        }
        goes
    }

    /// For a load of `bytes` that waits: residents that are leased and least worth keeping give no more
    /// leases, so that the load gets its turn when their leases end. Enough of them and no more;
    /// others that were chosen for an earlier load are spared.
    pub(crate) fn spend(&mut self, bytes: u64) {
        self.spare();
        let over = (self.held + bytes).saturating_sub(self.bytes_max);
        // What goes anyway counts.
        let goes = |slot: &Slot| slot.leases > 0 && !slot.keep;
        let going: u64 = self.slots.values().filter(|slot| goes(slot)).map(|s| s.bytes).sum();
        let mut freed = self.idle_bytes + going;
        if freed >= over {
            return;
        }
        let leased = self.slots.iter().filter(|(_, slot)| slot.leases > 0 && slot.keep);
        let mut leased: Vec<(u64, u64, K)> =
            leased.map(|(key, slot)| (slot.value, slot.touched, *key)).collect();
        leased.sort_unstable();
        for (_, _, key) in leased {
            if freed >= over {
                return;
            }
            let slot = self.slots.get_mut(&key).expect("listed above");
            slot.spent = true;
            self.spends = true;
            freed += slot.bytes;
        }
    }

    /// Nothing waits: all residents give leases again.
    pub(crate) fn spare(&mut self) {
        // Asked at every change, and mostly for nothing.
        if std::mem::take(&mut self.spends) {
            self.slots.values_mut().for_each(|slot| slot.spent = false);
        }
    }

    fn set_idle(&mut self, key: K) {
        let slot = &self.slots[&key];
        self.idle.insert((slot.value, slot.touched, key));
        self.idle_bytes += slot.bytes;
    }

    /// Takes out a slot that is idle.
    fn drop_slot(&mut self, key: K) {
        let slot = &self.slots[&key];
        self.idle.remove(&(slot.value, slot.touched, key));
        self.idle_bytes -= slot.bytes;
        self.remove(key);
    }

    fn remove(&mut self, key: K) {
        let slot = self.slots.remove(&key).expect("only residents are removed");
        self.held -= slot.bytes;
    }
}

#[cfg(test)]
mod tests;
