//! The five kinds: a trait each, and how its exported interface calls it.

pub mod agent;
pub mod postprocessor;
pub mod preprocessor;
pub mod router;
pub mod scorer;
