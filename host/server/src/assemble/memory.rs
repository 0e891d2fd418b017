//! Whether the KV cache fits into the machine: asking for more than there is ends the process, and
//! tells the operator nothing.

use anyhow::{Result, bail};
use models::{CausalLm, KvFormat, KvShape};

use crate::config::{Config, Limits};

/// Refuses a KV cache that is larger than the machine's memory.
///
/// # Errors
/// With the limits to lower.
pub(super) fn check_kv(model: &dyn CausalLm, config: &Config) -> Result<()> {
    if !model.device().is_cpu() {
        // The device's memory is another matter: it says no when the cache is allocated.
        return Ok(());
    }
    let meminfo = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let format = config.kv_cache_dtype.format().unwrap_or(model.kv_format());
    check(|shape| model.kv_bytes(shape), (&config.limits, format), total_bytes(&meminfo))
}

fn check(
    kv_bytes: impl Fn(KvShape) -> Option<u64>,
    (limits, format): (&Limits, KvFormat),
    machine_bytes: Option<u64>,
) -> Result<()> {
    let (kv_blocks, block_tokens) = (limits.kv_blocks, limits.block_tokens);
    let shape = KvShape { blocks: kv_blocks, block_tokens, format };
    let bytes = kv_bytes(shape).unwrap_or(u64::MAX);
    // Where the machine's memory is not known, what can be addressed bounds it.
    let most = machine_bytes.unwrap_or(i64::MAX as u64);
    if bytes > most {
        bail!(
            "kv_blocks = {kv_blocks} of block_tokens = {block_tokens} take {bytes} bytes, and the \
             machine has {most}"
        );
    }
    tracing::info!(bytes, kv_blocks, block_tokens, "KV cache");
    Ok(())
}

/// The first line of interest of `/proc/meminfo`.
fn total_bytes(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kib.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use models::{KvCache, ModelConfig};

    use super::*;
    use crate::config::Settings;

    #[test]
    fn the_machine_is_the_limit() {
        let fixture = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/fixtures/models/llama");
        let model = ModelConfig::from_dir(fixture.as_ref()).expect("a fixture");
        let mut settings = Settings::default();
        settings.limits.set("kv_blocks", 10);
        let limits = settings.limits.resolve().expect("limits");
        let shape = KvShape { blocks: 10, block_tokens: 16, format: KvFormat::F16 };
        let bytes = KvCache::bytes(&model, shape).expect("small");
        let of_model = |shape| KvCache::bytes(&model, shape);
        let check = |bytes| check(of_model, (&limits, shape.format), bytes);
        assert!(check(Some(bytes + 1)).is_ok());
        assert!(check(Some(bytes)).is_ok());
        let error = check(Some(bytes - 1)).expect_err("too large").to_string();
        assert!(error.contains("kv_blocks = 10 of block_tokens = 16"), "{error}");
        assert!(check(None).is_ok());
    }

    #[test]
    fn meminfo() {
        let text = "MemFree: 1 kB\nMemTotal:       24689764 kB\n";
        assert_eq!(total_bytes(text), Some(24_689_764 * 1024));
        assert_eq!(total_bytes(""), None);
        assert_eq!(total_bytes("MemTotal: x kB"), None);
    }
}
