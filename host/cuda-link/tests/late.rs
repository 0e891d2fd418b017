//! A program that is linked with the archives starts where the libraries are missing, gets their status for
//! every call, and reaches them, arguments whole, where they are there. It needs a C compiler and no CUDA.
#![cfg(all(target_arch = "x86_64", target_os = "linux"))]
#![allow(clippy::unwrap_used)]

#[path = "../src/archive.rs"]
mod archive;

use std::path::Path;
use std::process::Command;

use archive::Library;

/// More arguments of either kind than there are registers.
const PROGRAM: &str = r#"
#include <stdio.h>
#include <string.h>
int mortise_gone(int, double);
int mortise_unknown(void);
double ldexp(double, int);
int main(void) {
  char text[256];
  for (int call = 0; call < 2; call++) {
    if (mortise_gone(1, 2.0) != 77) return 1;
    if (mortise_unknown() != 5) return 2;
    if (ldexp(1.5, 3) != 12.0) return 3;
    snprintf(text, sizeof text, "%d %d %d %d %d %d %g %g %g %g %g %g %g %g %g", 1, 2, 3, 4, 5, 6, 0.5, 1.5, 2.5,
             3.5, 4.5, 5.5, 6.5, 7.5, 8.5);
    if (strcmp(text, "1 2 3 4 5 6 0.5 1.5 2.5 3.5 4.5 5.5 6.5 7.5 8.5")) return 4;
  }
  puts("done");
  return 0;
}
"#;

const LIBRARIES: [Library; 3] = [
    Library { name: "gone", symbols: "mortise_gone", files: &["libmortise-gone.so.1"], status: 77 },
    Library {
        name: "there",
        symbols: "snprintf mortise_unknown",
        files: &["libmortise-gone.so.1", "libc.so.6"],
        status: 5,
    },
    Library { name: "maths", symbols: "ldexp", files: &["libm.so.6"], status: 5 },
];

fn compiler(out: &Path) -> cc::Build {
    let mut compiler = cc::Build::new();
    let target = "x86_64-unknown-linux-gnu";
    compiler.target(target).host(target).opt_level(0).out_dir(out).flag("-fno-builtin");
    compiler
}

#[test]
fn what_is_missing_says_so_and_what_is_there_is_called() {
    let dir = tempfile::tempdir().unwrap();
    for library in &LIBRARIES {
        library.archive(&mut compiler(dir.path()), dir.path());
    }
    std::fs::write(dir.path().join("main.c"), PROGRAM).unwrap();
    let linked = compiler(dir.path())
        .get_compiler()
        .to_command()
        .current_dir(dir.path())
        .args(["main.c", "libgone.a", "libthere.a", "libmaths.a", "-ldl", "-o", "program"])
        .status();
    assert!(linked.unwrap().success());
    let ran = Command::new(dir.path().join("program")).output().unwrap();
    assert_eq!(ran.status.code(), Some(0), "{ran:?}");
    assert_eq!(ran.stdout, b"done\n");
}

#[test]
fn no_function_is_listed_twice() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("symbols");
    let mut seen = std::collections::HashSet::new();
    for file in std::fs::read_dir(folder).unwrap() {
        let text = std::fs::read_to_string(file.unwrap().path()).unwrap();
        for symbol in text.split_whitespace() {
            assert!(seen.insert(symbol.to_owned()), "{symbol} would be linked twice");
        }
    }
    assert!(seen.len() > 500, "{}", seen.len());
}
