//! x
use crate::{BuildError, Kind};
use std::path::Path;
/// x
pub fn scaffold(_k: Kind, _n: &str, _d: &Path, _s: &Path) -> Result<(), BuildError> {
    Ok(())
}
