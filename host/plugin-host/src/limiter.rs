//! How much memory an instance may take, and whether it was told no.

use wasmtime::{ResourceLimiter, Result};

use crate::config::CallLimits;
use crate::runtime::{CORE_INSTANCES_MAX, MEMORIES_MAX, TABLES_MAX};

/// What an instance was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Denied {
    pub(crate) limit: u64,
    pub(crate) unit: &'static str,
}

/// Counts the memory of one store. Refusing makes `memory.grow` answer -1; what the guest makes of
/// that is its own choice, and [`Self::denied`] tells why it gave up.
#[derive(Debug)]
pub(crate) struct Limiter {
    memory_bytes: usize,
    memory_bytes_max: usize,
    table_elements_max: usize,
    pub(crate) denied: Option<Denied>,
}

impl Limiter {
    pub(crate) fn new(limits: &CallLimits) -> Self {
        Self {
            memory_bytes: 0,
            memory_bytes_max: limits.memory_bytes_max,
            table_elements_max: limits.table_elements_max,
            denied: None,
        }
    }
}

impl ResourceLimiter for Limiter {
    fn memory_growing(&mut self, now: usize, wanted: usize, _: Option<usize>) -> Result<bool> {
        let total = self.memory_bytes.saturating_add(wanted.saturating_sub(now));
        if total > self.memory_bytes_max {
            let limit = self.memory_bytes_max as u64;
            self.denied = Some(Denied { limit, unit: "bytes of memory" });
            return Ok(false);
        }
        self.memory_bytes = total;
        Ok(true)
    }

    fn table_growing(&mut self, _: usize, wanted: usize, _: Option<usize>) -> Result<bool> {
        if wanted > self.table_elements_max {
            let limit = self.table_elements_max as u64;
            self.denied = Some(Denied { limit, unit: "table elements" });
            return Ok(false);
        }
        Ok(true)
    }

    fn instances(&self) -> usize {
        CORE_INSTANCES_MAX
    }

    fn tables(&self) -> usize {
        TABLES_MAX
    }

    fn memories(&self) -> usize {
        MEMORIES_MAX
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::KindLimits;

    fn limiter(memory: usize, table: usize) -> Limiter {
        let router = KindLimits::default().router;
        Limiter::new(&CallLimits { memory_bytes_max: memory, table_elements_max: table, ..router })
    }

    #[test]
    fn memories_count_together() {
        let mut limiter = limiter(100, 10);
        assert!(limiter.memory_growing(0, 60, None).expect("no error"));
        assert!(limiter.memory_growing(0, 40, None).expect("no error"));
        assert_eq!(limiter.denied, None);
        assert!(!limiter.memory_growing(60, 61, None).expect("no error"));
        assert_eq!(limiter.denied, Some(Denied { limit: 100, unit: "bytes of memory" }));
    }

    #[test]
    fn tables_at_and_above_the_limit() {
        let mut limiter = limiter(100, 10);
        assert!(limiter.table_growing(0, 10, None).expect("no error"));
        assert!(!limiter.table_growing(10, 11, None).expect("no error"));
        assert_eq!(limiter.denied, Some(Denied { limit: 10, unit: "table elements" }));
    }
}
