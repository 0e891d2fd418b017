//! The engine through its door: a model whose every move the test decides (`fake`), and the small
//! real models of the fixtures.

#![allow(clippy::unwrap_used)]

mod composition;
mod constraint;
mod door;
mod failures;
mod fake;
mod limits;
mod places;
mod pooling;
mod reading;
mod speculation;
mod turns;
