//! Which cargo can make wasm on this machine, and how it must be called.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::{BuildError, TARGET, environment};

/// Debian's packages that make wasm without rustup.
const DEBIAN_PACKAGES: &str = "rustc-web cargo-web rust-web-src lld-19";
/// Longest wait for `rustup target add`, which downloads about 20 MB.
const TARGET_ADD_SECONDS_MAX: u64 = 120;

/// A way to compile for wasm.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Toolchain {
    /// The `cargo` of the user's path, whose compiler has the target.
    Installed,
    /// Debian's compiler, which has no library for the target but its source.
    Debian {
        /// The linker for wasm.
        linker: PathBuf,
    },
}

impl Toolchain {
    /// Finds a toolchain for the crates at `dir` (rustup lets a folder choose): the target if the
    /// compiler has it, else Debian's packages if they are there, else the target after
    /// `rustup target add`.
    ///
    /// # Errors
    /// There is none; the error says what to install.
    pub fn detect(dir: &Path) -> Result<Self, BuildError> {
        let none = BuildError::NoToolchain { target: TARGET, packages: DEBIAN_PACKAGES };
        Self::installed(dir)
            .or_else(Self::debian)
            .or_else(|| if target_add(dir) { Self::installed(dir) } else { None })
            .ok_or(none)
    }

    /// The user's own toolchain, if it has the target.
    #[must_use]
    pub fn installed(dir: &Path) -> Option<Self> {
        let mut rustc = Command::new("rustc");
        rustc.args(["--print=target-libdir", "--target", TARGET]).current_dir(dir);
        let libraries = PathBuf::from(answer(rustc)?);
        libraries.is_dir().then_some(Self::Installed)
    }

    /// Debian's toolchain, if all four packages are there.
    #[must_use]
    pub fn debian() -> Option<Self> {
        let mut rustc = Command::new("/usr/bin/rustc");
        rustc.arg("--print=sysroot");
        let source = Path::new(&answer(rustc)?).join("lib/rustlib/src/rust/library/Cargo.lock");
        let linker = ["wasm-ld-19", "wasm-ld"].map(|name| Path::new("/usr/bin").join(name));
        let linker = linker.into_iter().find(|linker| linker.is_file())?;
        let complete = source.is_file() && Path::new("/usr/bin/cargo").is_file();
        complete.then_some(Self::Debian { linker })
    }

    /// Cargo with subcommand `subcommand` in `dir`, without an outer cargo's environment.
    pub(crate) fn cargo(&self, subcommand: &str, dir: &Path) -> Command {
        let program = match self {
            Self::Installed => "cargo",
            Self::Debian { .. } => "/usr/bin/cargo",
        };
        let mut command = Command::new(program);
        environment::clear(&mut command);
        command.env("RUSTUP_AUTO_INSTALL", "0").current_dir(dir).arg(subcommand);
        if let Self::Debian { linker } = self {
            command.env("RUSTC", "/usr/bin/rustc");
            // The target's library is built from source, which is unstable.
            command.env("RUSTC_BOOTSTRAP", "1");
            command.env("CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_LINKER", linker);
            if subcommand == "build" {
                command.arg("-Zbuild-std=std,panic_abort");
            }
        }
        command
    }
}

/// What a command prints, if it succeeds.
fn answer(mut command: Command) -> Option<String> {
    environment::clear(&mut command);
    let output = command.env("RUSTUP_AUTO_INSTALL", "0").stdin(Stdio::null()).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    output.status.success().then(|| text.trim().to_owned())
}

/// Asks rustup for the target. Quiet: without rustup or a network there are other ways, and the
/// error at the end names this one.
fn target_add(dir: &Path) -> bool {
    let mut command = Command::new("rustup");
    environment::clear(&mut command);
    command.args(["target", "add", TARGET]).current_dir(dir).env("RUSTUP_AUTO_INSTALL", "0");
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let Ok(mut child) = command.spawn() else { return false };
    let deadline = Instant::now() + Duration::from_secs(TARGET_ADD_SECONDS_MAX);
    loop {
        match child.try_wait() {
            Ok(Some(status)) => return status.success(),
            Ok(None) if Instant::now() < deadline => {
                std::thread::sleep(Duration::from_millis(20));
            }
            _ => {
                // It may have ended by itself meanwhile; either way it is no use to us.
                let _ = child.kill();
                let _ = child.wait();
                return false;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debian_builds_the_library_and_the_installed_one_does_not() {
        let debian = Toolchain::Debian { linker: "/usr/bin/wasm-ld-19".into() };
        let command = debian.cargo("build", Path::new("/"));
        let arguments: Vec<_> = command.get_args().collect();
        assert_eq!(arguments, ["build", "-Zbuild-std=std,panic_abort"]);
        let set: Vec<_> = command.get_envs().filter(|(_, value)| value.is_some()).collect();
        assert!(set.iter().any(|(name, _)| *name == "RUSTC_BOOTSTRAP"), "{set:?}");
        let metadata = debian.cargo("metadata", Path::new("/"));
        assert_eq!(metadata.get_args().collect::<Vec<_>>(), ["metadata"]);
        let installed = Toolchain::Installed.cargo("build", Path::new("/"));
        assert_eq!(installed.get_args().collect::<Vec<_>>(), ["build"]);
        assert_eq!(installed.get_program(), "cargo");
    }

    #[test]
    fn the_error_says_what_to_install() {
        let error = BuildError::NoToolchain { target: TARGET, packages: DEBIAN_PACKAGES };
        let text = error.to_string();
        assert!(text.contains("rustup target add wasm32-unknown-unknown"), "{text}");
        assert!(text.contains("rustc-web cargo-web rust-web-src lld-19"), "{text}");
    }
}
