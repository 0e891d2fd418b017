//! The bounds of the queue, kept at the door: how many sequences wait, how many of them are one
//! tenant's or one adapter's, and how much of the KV cache they may come to need. It never orders
//! them: whose turn it is, is the scheduler's affair.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::hash::Hash;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use scheduler::{Party, PartyKey};

use crate::error::SubmitError;

/// Bounds of the queue.
#[derive(Clone, Copy, Debug)]
pub(crate) struct QueueLimits {
    /// Most sequences that wait.
    pub(crate) queue_max: usize,
    /// Most of one tenant.
    pub(crate) queue_tenant_max: usize,
    /// Most of one adapter of one tenant.
    pub(crate) queue_adapter_max: usize,
    /// Most tokens of prompt and answer of all that wait.
    pub(crate) queue_tokens_max: usize,
}

#[derive(Debug, Default)]
struct Waiting {
    sequences: usize,
    tokens: usize,
    tenants: HashMap<PartyKey, usize>,
    adapters: HashMap<(PartyKey, PartyKey), usize>,
}

/// Who waits, as far as the bounds need to know.
#[derive(Debug)]
pub(crate) struct Admission {
    limits: QueueLimits,
    waiting: Mutex<Waiting>,
}

/// A place in the queue, given back when it is dropped.
#[derive(Debug)]
pub(crate) struct Ticket {
    admission: Arc<Admission>,
    party: Party,
    tokens: usize,
}

impl Admission {
    pub(crate) fn new(limits: QueueLimits) -> Self {
        Self { limits, waiting: Mutex::default() }
    }

    /// Takes a place for a sequence of `tokens` tokens of prompt and answer.
    ///
    /// # Errors
    /// The first bound that is reached.
    pub(crate) fn enter(
        self: &Arc<Self>,
        party: Party,
        tokens: usize,
    ) -> Result<Ticket, SubmitError> {
        let QueueLimits { queue_max, queue_tenant_max, queue_adapter_max, queue_tokens_max } =
            self.limits;
        let mut waiting = self.lock();
        let queued = waiting.sequences;
        if queued >= queue_max {
            return Err(SubmitError::QueueFull { queued, queue_max });
        }
        let queued_tokens = waiting.tokens;
        if queued_tokens.saturating_add(tokens) > queue_tokens_max {
            return Err(SubmitError::QueueTokens { tokens, queued_tokens, queue_tokens_max });
        }
        let share = |whose, queued: Option<&usize>, limit| match queued {
            Some(queued) if *queued >= limit => {
                Err(SubmitError::QueueShare { whose, queued: *queued, limit })
            }
            _ => Ok(()),
        };
        share("tenant", waiting.tenants.get(&party.tenant), queue_tenant_max)?;
        let adapter = (party.tenant, party.adapter);
        share("adapter", waiting.adapters.get(&adapter), queue_adapter_max)?;
        waiting.sequences += 1;
        waiting.tokens += tokens;
        *waiting.tenants.entry(party.tenant).or_default() += 1;
        *waiting.adapters.entry(adapter).or_default() += 1;
        Ok(Ticket { admission: Arc::clone(self), party, tokens })
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let mut waiting = self.admission.lock();
        waiting.sequences -= 1;
        waiting.tokens -= self.tokens;
        one_less(&mut waiting.tenants, self.party.tenant);
        one_less(&mut waiting.adapters, (self.party.tenant, self.party.adapter));
    }
}

fn one_less<K: Eq + Hash>(counts: &mut HashMap<K, usize>, key: K) {
    if let Entry::Occupied(mut count) = counts.entry(key) {
        *count.get_mut() -= 1;
        if *count.get() == 0 {
            count.remove();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_bound_at_and_above_and_again_after_a_departure() {
        let limits = QueueLimits {
            queue_max: 4,
            queue_tenant_max: 3,
            queue_adapter_max: 2,
            queue_tokens_max: 40,
        };
        let admission = Arc::new(Admission::new(limits));
        let enter = |tenant: u8, adapter: u8, tokens| {
            let party = Party { priority: 0, tenant: [tenant; 32], adapter: [adapter; 32] };
            admission.enter(party, tokens)
        };
        let mut tickets = vec![enter(1, 1, 5).unwrap(), enter(1, 1, 5).unwrap()];
        let share = |whose, limit| SubmitError::QueueShare { whose, queued: limit, limit };
        assert_eq!(enter(1, 1, 5).unwrap_err(), share("adapter", 2));
        tickets.push(enter(1, 2, 5).unwrap());
        assert_eq!(enter(1, 3, 5).unwrap_err(), share("tenant", 3));
        let tokens =
            SubmitError::QueueTokens { tokens: 26, queued_tokens: 15, queue_tokens_max: 40 };
        assert_eq!(enter(2, 1, 26).unwrap_err(), tokens);
        tickets.push(enter(2, 1, 25).unwrap());
        let full = SubmitError::QueueFull { queued: 4, queue_max: 4 };
        assert_eq!(enter(3, 1, 0).unwrap_err(), full);
        tickets.clear();
        let waiting = admission.lock();
        assert_eq!((waiting.sequences, waiting.tokens), (0, 0));
        assert!(waiting.tenants.is_empty() && waiting.adapters.is_empty());
    }
}
