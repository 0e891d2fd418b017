//! Guests that misbehave in every way we could think of, against the public interface: each is
//! contained, reported by name, and the others do not notice.

mod guests;

mod agents;
mod calls;
mod harness;
mod imports;
mod installs;
mod streams;
mod swaps;
