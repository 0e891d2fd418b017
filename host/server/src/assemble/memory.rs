//! Whether the KV cache fits into the machine: asking for more than there is ends the process, and
//! tells the operator nothing.

use anyhow::{Result, bail};
use models::{KvCache, ModelConfig};

use crate::config::Limits;

/// Refuses a KV cache that is larger than the machine's memory.
///
/// # Errors
/// With the limits to lower.
pub(super) fn check_kv(model: &ModelConfig, limits: &Limits) -> Result<()> {
    let meminfo = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    check(model, limits, total_bytes(&meminfo))
}

fn check(model: &ModelConfig, limits: &Limits, machine_bytes: Option<u64>) -> Result<()> {
    let (kv_blocks, block_tokens) = (limits.kv_blocks, limits.block_tokens);
    let bytes = KvCache::bytes(model, kv_blocks, block_tokens).unwrap_or(u64::MAX);
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
    use super::*;
    use crate::config::Settings;

    #[test]
    fn the_machine_is_the_limit() {
        let fixture = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/fixtures/models/llama");
        let model = ModelConfig::from_dir(fixture.as_ref()).expect("a fixture");
        let mut settings = Settings::default();
        settings.limits.set("kv_blocks", 10);
        let limits = settings.limits.resolve().expect("limits");
        let bytes = KvCache::bytes(&model, 10, 16).expect("small");
        assert!(check(&model, &limits, Some(bytes + 1)).is_ok());
        assert!(check(&model, &limits, Some(bytes)).is_ok());
        let error = check(&model, &limits, Some(bytes - 1)).expect_err("too large").to_string();
        assert!(error.contains("kv_blocks = 10 of block_tokens = 16"), "{error}");
        assert!(check(&model, &limits, None).is_ok());
    }

    #[test]
    fn meminfo() {
        let text = "MemFree: 1 kB\nMemTotal:       24689764 kB\n";
        assert_eq!(total_bytes(text), Some(24_689_764 * 1024));
        assert_eq!(total_bytes(""), None);
        assert_eq!(total_bytes("MemTotal: x kB"), None);
    }
}
