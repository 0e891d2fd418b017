//! Whose turn it is: classes by priority; in a class the tenant that was served least; of a tenant
//! the adapter that was served least; of an adapter the earliest arrival.
//!
//! Service is counted as S-LoRA's virtual token counter does: tokens that were computed, generated
//! ones twice. Who comes back after having had nothing to run is lifted to the least served that
//! waits, so idleness earns nothing; who is ahead stays ahead until the others have caught up. It
//! never knows what a token, a block or a step is.

use std::collections::{BTreeMap, HashMap};

use crate::output::SeqId;

/// What a computed prompt token counts.
pub(crate) const PREFILL_WEIGHT: u64 = 1;
/// What a generated token counts: it costs a row of a step of its own.
pub(crate) const DECODE_WEIGHT: u64 = 2;
/// Tenants, or adapters of a tenant, that are remembered though they have nothing to run. Their
/// service is above what they would be lifted to, so forgetting one forgives it a debt.
const IDLE_MAX: usize = 4096;

/// Names a tenant or an adapter; a digest, so that equal keys are equal names.
pub type PartyKey = [u8; 32];

/// Who a sequence runs for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Party {
    /// Its class: lower runs first, and takes places and blocks from higher ones.
    pub priority: i64,
    /// Who asks.
    pub tenant: PartyKey,
    /// The adapter that answers; all zeros for the base model.
    pub adapter: PartyKey,
}

/// Place in the order of all sequences; the smallest runs first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Turn {
    pub(crate) priority: i64,
    tenant_service: u64,
    adapter_service: u64,
    order: u64,
}

#[derive(Debug, Default)]
struct Share {
    service: u64,
    /// Sequences that run or wait.
    present: usize,
    /// Sequences that wait.
    waiting: usize,
    /// Service of whoever below this one was chosen last.
    floor: u64,
}

#[derive(Debug, Default)]
struct Flow {
    share: Share,
    line: BTreeMap<u64, SeqId>,
}

#[derive(Debug, Default)]
struct Class {
    tenants: HashMap<PartyKey, Share>,
    flows: HashMap<(PartyKey, PartyKey), Flow>,
    present: usize,
    floor: u64,
    /// Size of either map at which idle entries are looked for.
    prune_at: usize,
}

/// Sequences that wait, and the service of everybody who has any.
#[derive(Debug, Default)]
pub(crate) struct FairQueue {
    classes: BTreeMap<i64, Class>,
    waiting: usize,
}

impl FairQueue {
    /// Sequences that wait.
    pub(crate) fn len(&self) -> usize {
        self.waiting
    }

    /// A sequence is there from now on.
    pub(crate) fn arrive(&mut self, party: &Party) {
        let class = self.classes.entry(party.priority).or_default();
        class.prune();
        class.present += 1;
        class.tenants.entry(party.tenant).or_default().present += 1;
        class.flows.entry(flow_of(party)).or_default().share.present += 1;
    }

    /// A sequence is gone. It does not wait any more.
    pub(crate) fn depart(&mut self, party: &Party) {
        let class = self.class(party);
        class.present -= 1;
        if class.present == 0 {
            self.classes.remove(&party.priority);
            return;
        }
        class.tenant(party).present -= 1;
        class.flow(party).share.present -= 1;
    }

    /// A sequence waits, behind all of its adapter that arrived earlier.
    pub(crate) fn wait(&mut self, party: &Party, order: u64, id: SeqId) {
        let class = self.class(party);
        if class.tenant(party).waiting == 0 {
            let least = least(class.tenants.values()).unwrap_or(class.floor);
            let tenant = class.tenant(party);
            tenant.service = tenant.service.max(least);
        }
        if class.flow(party).share.waiting == 0 {
            let others = class.flows.iter().filter(|(flow, _)| flow.0 == party.tenant);
            let least = least(others.map(|(_, flow)| &flow.share));
            let least = least.unwrap_or(class.tenant(party).floor);
            let share = &mut class.flow(party).share;
            share.service = share.service.max(least);
        }
        self.put_back(party, order, id);
    }

    /// Puts a sequence back that was set aside for a while: nobody's service changes.
    pub(crate) fn put_back(&mut self, party: &Party, order: u64, id: SeqId) {
        let class = self.class(party);
        class.tenant(party).waiting += 1;
        let flow = class.flow(party);
        flow.share.waiting += 1;
        let other = flow.line.insert(order, id);
        debug_assert!(other.is_none(), "an order is given once");
        self.waiting += 1;
    }

    /// Takes a sequence out of its line; false if it does not wait.
    pub(crate) fn set_aside(&mut self, party: &Party, order: u64) -> bool {
        let Some(class) = self.classes.get_mut(&party.priority) else { return false };
        let Some(flow) = class.flows.get_mut(&flow_of(party)) else { return false };
        if flow.line.remove(&order).is_none() {
            return false;
        }
        flow.share.waiting -= 1;
        class.tenant(party).waiting -= 1;
        self.waiting -= 1;
        true
    }

    /// Takes a sequence out of its line because it runs.
    pub(crate) fn choose(&mut self, party: &Party, order: u64) {
        let waited = self.set_aside(party, order);
        debug_assert!(waited, "who is chosen waits");
        let class = self.class(party);
        let (adapter, tenant) = (class.flow(party).share.service, class.tenant(party));
        tenant.floor = tenant.floor.max(adapter);
        class.floor = class.floor.max(class.tenants[&party.tenant].service);
    }

    /// Counts service.
    pub(crate) fn serve(&mut self, party: &Party, amount: u64) {
        let class = self.class(party);
        class.tenant(party).service += amount;
        class.flow(party).share.service += amount;
    }

    /// The turn of a sequence that is there.
    pub(crate) fn turn(&self, party: &Party, order: u64) -> Turn {
        let class = &self.classes[&party.priority];
        let adapter_service = class.flows[&flow_of(party)].share.service;
        let tenant_service = class.tenants[&party.tenant].service;
        Turn { priority: party.priority, tenant_service, adapter_service, order }
    }

    /// Whose turn it is of those that wait.
    pub(crate) fn first(&self) -> Option<(Turn, SeqId)> {
        let waiting = |class: &&Class| class.flows.values().any(|flow| !flow.line.is_empty());
        let (priority, class) = self.classes.iter().find(|(_, class)| waiting(class))?;
        let heads = class.flows.iter().filter_map(|(key, flow)| {
            let (order, id) = flow.line.first_key_value()?;
            let turn = Turn {
                priority: *priority,
                tenant_service: class.tenants[&key.0].service,
                adapter_service: flow.share.service,
                order: *order,
            };
            Some((turn, *id))
        });
        heads.min()
    }

    /// Service of a tenant.
    #[cfg(test)]
    pub(crate) fn service(&self, party: &Party) -> u64 {
        let class = self.classes.get(&party.priority);
        class.and_then(|class| class.tenants.get(&party.tenant)).map_or(0, |share| share.service)
    }

    /// Entries that are remembered.
    #[cfg(test)]
    pub(crate) fn remembered(&self) -> usize {
        self.classes.values().map(|class| class.tenants.len().max(class.flows.len())).sum()
    }

    fn class(&mut self, party: &Party) -> &mut Class {
        self.classes.get_mut(&party.priority).expect("a sequence of the class is there")
    }
}

impl Class {
    fn tenant(&mut self, party: &Party) -> &mut Share {
        self.tenants.get_mut(&party.tenant).expect("a sequence of the tenant is there")
    }

    fn flow(&mut self, party: &Party) -> &mut Flow {
        self.flows.get_mut(&flow_of(party)).expect("a sequence of the adapter is there")
    }

    /// Forgets who has nothing to run and would be lifted anyway; of the others the least served,
    /// where they are too many. Looks only after the maps have doubled.
    fn prune(&mut self) {
        let size = self.tenants.len().max(self.flows.len());
        if size < self.prune_at.max(64) {
            return;
        }
        let floor = self.floor;
        self.tenants.retain(|_, share| share.present > 0 || share.service > floor);
        let mut idle: Vec<(u64, PartyKey)> = self.tenants.iter().filter_map(idle_tenant).collect();
        if let Some(excess) = idle.len().checked_sub(IDLE_MAX).filter(|excess| *excess > 0) {
            idle.sort_unstable();
            for (_, tenant) in &idle[..excess] {
                self.tenants.remove(tenant);
            }
        }
        // What a tenant's idle adapters are ahead of each other matters only beside present ones.
        let tenants = &self.tenants;
        self.flows.retain(|(tenant, _), flow| {
            let floor = tenants.get(tenant).filter(|share| share.present > 0);
            flow.share.present > 0 || floor.is_some_and(|share| flow.share.service > share.floor)
        });
        let mut idle: Vec<_> = self.flows.iter().filter_map(idle_flow).collect();
        if let Some(excess) = idle.len().checked_sub(IDLE_MAX).filter(|excess| *excess > 0) {
            idle.sort_unstable();
            for (_, flow) in &idle[..excess] {
                self.flows.remove(flow);
            }
        }
        self.prune_at = 2 * self.tenants.len().max(self.flows.len());
    }
}

fn idle_tenant((key, share): (&PartyKey, &Share)) -> Option<(u64, PartyKey)> {
    (share.present == 0).then_some((share.service, *key))
}

fn idle_flow((key, flow): (&(PartyKey, PartyKey), &Flow)) -> Option<(u64, (PartyKey, PartyKey))> {
    (flow.share.present == 0).then_some((flow.share.service, *key))
}

/// The service of the least served of those with somebody waiting.
fn least<'a>(shares: impl Iterator<Item = &'a Share>) -> Option<u64> {
    shares.filter(|share| share.waiting > 0).map(|share| share.service).min()
}

fn flow_of(party: &Party) -> (PartyKey, PartyKey) {
    (party.tenant, party.adapter)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn party(priority: i64, tenant: u8, adapter: u8) -> Party {
        Party { priority, tenant: [tenant; 32], adapter: [adapter; 32] }
    }

    fn join(queue: &mut FairQueue, party: Party, order: u64) {
        queue.arrive(&party);
        queue.wait(&party, order, order);
    }

    /// Lets the first run, for so much service.
    fn run(queue: &mut FairQueue, parties: &[Party], amount: u64) -> u64 {
        let (_, id) = queue.first().expect("somebody waits");
        let party = parties[usize::try_from(id).expect("small") % parties.len()];
        queue.choose(&party, id);
        queue.serve(&party, amount);
        id
    }

    #[test]
    fn classes_then_tenants_then_adapters_then_arrival() {
        let mut queue = FairQueue::default();
        let parties =
            [party(1, 0, 0), party(0, 1, 0), party(0, 1, 0), party(0, 2, 0), party(0, 1, 9)];
        for (order, party) in parties.iter().enumerate() {
            join(&mut queue, *party, order as u64);
        }
        // Tenant 1 first; then tenant 2, which has had less; then tenant 1's other adapter.
        let order: Vec<u64> = (0..5).map(|_| run(&mut queue, &parties, 10)).collect();
        assert_eq!(order, [1, 3, 4, 2, 0]);
        assert_eq!((queue.len(), queue.first()), (0, None));
    }

    #[test]
    fn who_was_idle_gets_no_credit_and_who_was_ahead_keeps_the_debt() {
        let (hot, cold) = (party(0, 1, 0), party(0, 2, 0));
        let mut queue = FairQueue::default();
        join(&mut queue, hot, 0);
        queue.choose(&hot, 0);
        queue.serve(&hot, 1000);
        join(&mut queue, hot, 1);
        join(&mut queue, cold, 2);
        assert_eq!(queue.service(&cold), 1000, "lifted to the least that waits");
        queue.choose(&cold, 2);
        queue.serve(&cold, 500);
        queue.depart(&cold);
        join(&mut queue, cold, 3);
        assert_eq!(queue.service(&cold), 1500, "leaving and coming back pays no debt");
        assert_eq!(queue.first().expect("two wait").1, 1);
    }

    #[test]
    fn nobody_is_remembered_without_need_and_few_with() {
        let mut queue = FairQueue::default();
        let stays = party(0, 0, 0);
        join(&mut queue, stays, 0);
        for visitor in 1..20_000_u64 {
            let mut guest = stays;
            guest.tenant[..8].copy_from_slice(&visitor.to_le_bytes());
            join(&mut queue, guest, visitor);
            queue.choose(&guest, visitor);
            // All get ahead of who stays, so none may be forgotten for nothing.
            queue.serve(&guest, visitor);
            queue.depart(&guest);
        }
        assert!(queue.remembered() <= 2 * (IDLE_MAX + 1) + 64, "{}", queue.remembered());
        queue.set_aside(&stays, 0);
        queue.depart(&stays);
        assert_eq!(queue.remembered(), 0, "a class that nobody is in is forgotten");
    }
}
