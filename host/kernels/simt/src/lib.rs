//! The CUDA kernels of `kernels`, built by the C++ compiler for an emulated machine, so that they are
//! tested where there is no GPU. Nothing but tests links it; the one symbol is `simt_launch`.
#![forbid(unsafe_code)]
