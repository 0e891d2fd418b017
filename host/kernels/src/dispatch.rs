//! Which instructions this CPU has, asked at run time.
//!
//! All levels give the same bits, so the choice is one of speed alone.

use std::sync::OnceLock;

/// Instruction sets that ops are written for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Plain Rust, the specification of every op.
    Scalar,
    /// AVX2 with FMA and F16C.
    Avx2,
    /// AVX-512F.
    Avx512,
}

/// The best level of this CPU.
#[must_use]
pub fn level() -> Level {
    static LEVEL: OnceLock<Level> = OnceLock::new();
    *LEVEL.get_or_init(|| *available().last().expect("scalar is always available"))
}

/// Every level this CPU can run, slowest first.
#[must_use]
pub fn available() -> Vec<Level> {
    let every = [(Level::Scalar, true), (Level::Avx2, has_avx2()), (Level::Avx512, has_avx512())];
    every.into_iter().filter(|(_, has)| *has).map(|(level, _)| level).collect()
}

#[cfg(target_arch = "x86_64")]
fn has_avx2() -> bool {
    is_x86_feature_detected!("avx2")
        && is_x86_feature_detected!("fma")
        && is_x86_feature_detected!("f16c")
}

#[cfg(target_arch = "x86_64")]
fn has_avx512() -> bool {
    has_avx2() && is_x86_feature_detected!("avx512f")
}

/// Whether the CPU multiplies bytes, sixteen outputs by four inputs at a time.
#[cfg(target_arch = "x86_64")]
pub(crate) fn has_vnni() -> bool {
    is_x86_feature_detected!("avx512vnni")
}

#[cfg(not(target_arch = "x86_64"))]
fn has_avx2() -> bool {
    false
}

#[cfg(not(target_arch = "x86_64"))]
fn has_avx512() -> bool {
    false
}
