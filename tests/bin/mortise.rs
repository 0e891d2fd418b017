//! `mortise`, as it ships.

use std::process::ExitCode;

fn main() -> ExitCode {
    server::main()
}
