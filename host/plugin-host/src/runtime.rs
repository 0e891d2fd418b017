//! The one `wasmtime::Engine`, its pool and its clock, and the stores that guests live in.
//!
//! Only what it allows exists for guests: no threads, no shared memory, no component-model async,
//! floats that give the same bits on every machine.

use std::path::Path;
use std::sync::Arc;

use wasmtime::{
    Cache, CacheConfig, Config, Enabled, Engine, InstanceAllocationStrategy,
    PoolingAllocationConfig, Store, UpdateDeadline,
};

use crate::clock::Ticker;
use crate::config::{CallLimits, HostConfig};
use crate::error::HostError;
use crate::guest::Guest;

/// Core instances of one component. A component made from Python has 17 and more.
pub(crate) const CORE_INSTANCES_MAX: usize = 64;
/// Tables of one component.
pub(crate) const TABLES_MAX: usize = 32;
/// Linear memories of one component.
pub(crate) const MEMORIES_MAX: usize = 4;
/// Resource handles of one instance. The contract has no resources; some toolchains use their own.
const HANDLES_MAX: usize = 1_000;
/// Stack of a guest, in bytes.
const GUEST_STACK_BYTES: usize = 512 << 10;
/// Stack of an agent's fibre, in bytes; imports run on it too.
const FIBRE_STACK_BYTES: usize = 2 << 20;
/// Memory of a free slot that stays with the process, in bytes, where the kernel can tell which
/// pages were written.
const KEEP_RESIDENT_BYTES: usize = 1 << 20;

/// Engine and clock, shared by every plugin. The clock stops when the last one is gone.
#[derive(Debug)]
pub(crate) struct Runtime {
    pub(crate) engine: Engine,
    pub(crate) ticker: Ticker,
}

impl Runtime {
    pub(crate) fn new(config: &HostConfig) -> Result<Arc<Self>, HostError> {
        let mut engine = engine_config(config);
        if let Some(dir) = &config.cache_dir {
            engine.cache(Some(cache(dir)?));
        }
        let refused = |error: wasmtime::Error| HostError::Engine { message: format!("{error:#}") };
        let engine = Engine::new(&engine).map_err(refused)?;
        let ticker = Ticker::start(engine.clone()).map_err(|source| HostError::Clock { source })?;
        Ok(Arc::new(Self { engine, ticker }))
    }

    /// A store whose guest is interrupted at the deadline in its data.
    pub(crate) fn store(&self, guest: Guest, limits: &CallLimits) -> Store<Guest> {
        let mut store = self.bounded_store(guest, limits);
        store.epoch_deadline_callback(|context| {
            Ok(match context.data().deadline.ticks_left() {
                Some(ticks) => UpdateDeadline::Continue(ticks),
                None => UpdateDeadline::Interrupt,
            })
        });
        store
    }

    /// A store whose guest lets others run at every tick, as often as its data says. Whoever awaits
    /// it holds it to wall time.
    pub(crate) fn yielding_store(&self, guest: Guest, limits: &CallLimits) -> Store<Guest> {
        let mut store = self.bounded_store(guest, limits);
        store.epoch_deadline_callback(|mut context| {
            let left = &mut context.data_mut().slices_left;
            Ok(match left.checked_sub(1) {
                Some(fewer) => {
                    *left = fewer;
                    UpdateDeadline::Yield(1)
                }
                None => UpdateDeadline::Interrupt,
            })
        });
        store.set_epoch_deadline(1);
        store
    }

    fn bounded_store(&self, guest: Guest, limits: &CallLimits) -> Store<Guest> {
        let mut store = Store::new(&self.engine, guest);
        store.limiter(|guest| &mut guest.limiter);
        store.set_hostcall_fuel(limits.output_bytes_max);
        store.set_max_component_handles(HANDLES_MAX);
        store
    }
}

fn engine_config(config: &HostConfig) -> Config {
    let mut engine = Config::new();
    engine
        .concurrency_support(false)
        .epoch_interruption(true)
        .max_wasm_stack(GUEST_STACK_BYTES)
        .async_stack_size(FIBRE_STACK_BYTES)
        .wasm_memory64(false)
        .wasm_relaxed_simd(true)
        .relaxed_simd_deterministic(true)
        .cranelift_nan_canonicalization(true)
        .allocation_strategy(InstanceAllocationStrategy::Pooling(pool(config)));
    engine
}

fn pool(config: &HostConfig) -> PoolingAllocationConfig {
    let limits = &config.limits;
    let kinds =
        [limits.router, limits.preprocessor, limits.postprocessor, limits.scorer, limits.agent];
    let memory = kinds.iter().map(|kind| kind.memory_bytes_max).max().unwrap_or(0);
    let table = kinds.iter().map(|kind| kind.table_elements_max).max().unwrap_or(0);
    let instances = config.instances_max;
    let mut pool = PoolingAllocationConfig::new();
    pool.total_component_instances(instances)
        .total_core_instances(config.core_instances_max)
        .total_memories(instances)
        .total_tables(instances.saturating_mul(4))
        .total_stacks(instances)
        .max_core_instances_per_component(CORE_INSTANCES_MAX as u32)
        .max_memories_per_component(MEMORIES_MAX as u32)
        .max_tables_per_component(TABLES_MAX as u32)
        .max_tables_per_module(TABLES_MAX as u32)
        .max_memories_per_module(1)
        .table_elements(table)
        .max_memory_size(memory)
        .pagemap_scan(Enabled::Auto);
    if PoolingAllocationConfig::is_pagemap_scan_available() {
        pool.linear_memory_keep_resident(KEEP_RESIDENT_BYTES);
        pool.table_keep_resident(KEEP_RESIDENT_BYTES / 16);
    }
    pool
}

fn cache(dir: &Path) -> Result<Cache, HostError> {
    let refused = |message: String| HostError::Cache { path: dir.to_owned(), message };
    std::fs::create_dir_all(dir).map_err(|error| refused(error.to_string()))?;
    let dir = dir.canonicalize().map_err(|error| refused(error.to_string()))?;
    let mut config = CacheConfig::new();
    config.with_directory(dir);
    Cache::new(config).map_err(|error| refused(format!("{error:#}")))
}
