//! Promises to users, checked against the real binary with the demo's model on port 0: one process
//! per test, all tests in parallel.

mod adapters;
mod admin;
mod attribution;
mod batching;
mod bench;
mod crash;
mod embeddings;
mod fields;
mod gguf;
mod harness;
mod hostile;
mod http;
mod openai_client;
mod plugins;
mod remote_adapters;
mod responses;
mod structured;
mod swap;
mod telemetry;
mod tools;
mod top;
mod usage;
