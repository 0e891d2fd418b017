//! Which instructions this CPU has, asked at run time.
//!
//! All levels give the same bits, so the choice is one of speed alone.

use std::sync::OnceLock;

/// Instruction sets that ops are written for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Plain Rust, the specification of every op.
    Scalar,
    /// AVX2 with FMA.
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
    let mut levels = vec![Level::Scalar];
    #[cfg(target_arch = "x86_64")]
    {
        let avx2 = is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma");
        if avx2 {
            levels.push(Level::Avx2);
        }
        if avx2 && is_x86_feature_detected!("avx512f") {
            levels.push(Level::Avx512);
        }
    }
    levels
}
