//! Build script alone: puts archives named as NVIDIA's libraries on the link path that load the real
//! ones at the first call. A binary built with CUDA so starts on a machine that has no driver.
//!
//! It never calls a library itself, and decides nothing about devices.
#![forbid(unsafe_code)]
