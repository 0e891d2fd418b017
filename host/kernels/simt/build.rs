//! Compiles the files named in `kernels.txt` as C++, with the emulator. It needs no CUDA.

use std::path::{Path, PathBuf};
use std::{env, fs};

fn main() {
    let manifest = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").expect("cargo sets it"));
    let kernels = manifest.parent().expect("the crate lies in `kernels`");
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
    for watched in ["build.rs", "emulator.h", "emulator.cpp", "../kernels.txt", "../src/cuda"] {
        println!("cargo::rerun-if-changed={watched}");
    }
    let mut build = cc::Build::new();
    build
        .cpp(true)
        .std("c++17")
        .opt_level(2)
        // Kernels say fmaf where one rounding is meant, and view bytes as words.
        .flag("-ffp-contract=off")
        .flag("-fno-strict-aliasing")
        .include(&manifest)
        .include(kernels.join("src/cuda"))
        .file("emulator.cpp")
        .link_lib_modifier("+whole-archive");
    let list = fs::read_to_string(kernels.join("kernels.txt")).expect("the list of kernel files");
    for line in list.lines() {
        let source = kernels.join(line);
        watch_folder_of(&source);
        build.file(as_cpp(&source, &out));
    }
    build.compile("simt");
}

/// Watches a kernel file and the headers beside it.
fn watch_folder_of(source: &Path) {
    println!("cargo::rerun-if-changed={}", source.display());
    let entries = fs::read_dir(source.parent().expect("a file")).expect("the file's folder");
    for path in entries.map(|entry| entry.expect("readable").path()) {
        if path.extension().is_some_and(|ending| ending == "cuh") {
            println!("cargo::rerun-if-changed={}", path.display());
        }
    }
}

/// A C++ file that includes the kernel, since compilers judge by the ending.
fn as_cpp(source: &Path, out: &Path) -> PathBuf {
    let name = source.file_stem().expect("a file").to_str().expect("a name in ASCII");
    let target = out.join(format!("{name}.cpp"));
    fs::write(&target, format!("#include \"{}\"\n", source.display())).expect("OUT_DIR is ours");
    target
}
