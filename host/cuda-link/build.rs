//! Writes `libcuda.a`, `libcublas.a` and so on: a trampoline per function that looks its address up in
//! the shared library at the first call and jumps there ever after. Where the library is missing, each
//! function returns the status by which its own interface says so.
//!
//! It links nothing of a CUDA installation but the static runtime, and so needs no driver.

#[path = "src/archive.rs"]
mod archive;

use std::path::PathBuf;
use std::{env, fs};

use archive::Library;

/// `symbols/` holds the functions that the `cudarc` of `Cargo.lock` declares.
const LIBRARIES: &[Library] = &[
    Library {
        name: "cuda",
        symbols: include_str!("symbols/cuda.txt"),
        files: &["libcuda.so.1"],
        status: 100, // CUDA_ERROR_NO_DEVICE
    },
    Library {
        name: "cublas",
        symbols: include_str!("symbols/cublas.txt"),
        files: &["libcublas.so.13", "libcublas.so.12"],
        status: 1, // CUBLAS_STATUS_NOT_INITIALIZED
    },
    Library {
        name: "cublasLt",
        symbols: include_str!("symbols/cublasLt.txt"),
        files: &["libcublasLt.so.13", "libcublasLt.so.12"],
        status: 1, // CUBLAS_STATUS_NOT_INITIALIZED
    },
    Library {
        name: "curand",
        symbols: include_str!("symbols/curand.txt"),
        files: &["libcurand.so.10"],
        status: 203, // CURAND_STATUS_INITIALIZATION_FAILED
    },
    Library {
        name: "nvrtc",
        symbols: include_str!("symbols/nvrtc.txt"),
        files: &["libnvrtc.so.13", "libnvrtc.so.12"],
        status: 11, // NVRTC_ERROR_INTERNAL_ERROR
    },
    Library {
        name: "nccl",
        symbols: include_str!("symbols/nccl.txt"),
        files: &["libnccl.so.2"],
        status: 2, // ncclSystemError
    },
];

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=src/archive.rs");
    if env::var_os("CARGO_FEATURE_LINK").is_none() {
        return;
    }
    println!("cargo::rerun-if-changed=symbols");
    println!("cargo::rerun-if-env-changed=CUDA_HOME");
    println!("cargo::rerun-if-env-changed=CUDA_PATH");
    let (arch, os) = (target("ARCH"), target("OS"));
    if (arch.as_str(), os.as_str()) != ("x86_64", "linux") {
        // The trampolines are x86-64 assembly for ELF.
        println!("cargo::error=the cuda feature builds for x86_64 Linux alone, not {arch} {os}");
        return;
    }
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
    for library in LIBRARIES {
        library.archive(&mut cc::Build::new(), &out);
    }
    // The tensor library's kernels ask for `-lcudart`: the static runtime, under that name.
    match static_runtime() {
        Some(from) => {
            fs::copy(&from, out.join("libcudart.a")).expect("OUT_DIR can be written");
        }
        None => println!(
            "cargo::error=no libcudart_static.a below CUDA_HOME, CUDA_PATH or /usr/local/cuda: the \
             cuda feature needs a CUDA toolkit, see docs/cuda.md"
        ),
    }
    println!("cargo::rustc-link-search=native={}", out.display());
}

fn target(part: &str) -> String {
    env::var(format!("CARGO_CFG_TARGET_{part}")).expect("cargo describes the target")
}

fn static_runtime() -> Option<PathBuf> {
    let home = env::var_os("CUDA_HOME").or_else(|| env::var_os("CUDA_PATH"));
    let home = home.map_or_else(|| PathBuf::from("/usr/local/cuda"), PathBuf::from);
    let folders = ["lib64", "lib", "targets/x86_64-linux/lib"];
    folders.iter().map(|f| home.join(f).join("libcudart_static.a")).find(|path| path.exists())
}
