//! The rules of ARCHITECTURE.md that a machine can check: arrows between crates, owners of foreign
//! types, where unsafe code may stand, and how long a file may be.

mod arrows;
mod files;

use std::path::PathBuf;

/// Root of the repository.
fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..").canonicalize().expect("the checkout")
}
