//! Writes `libcuda.a`, `libcublas.a` and so on: a trampoline per function that looks its address up in
//! the shared library at the first call and jumps there ever after. Where the library is missing, each
//! function returns the status by which its own interface says so.
//!
//! It links nothing of a CUDA installation but the static runtime, and so needs no driver.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::{env, fs};

/// A shared library to load late.
struct Library {
    /// As in `-l`.
    name: &'static str,
    /// Its functions, one per line.
    symbols: &'static str,
    /// File names, the first that loads wins.
    files: &'static [&'static str],
    /// What its functions return when there is none.
    status: i32,
}

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
        archive(library, &out);
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

fn archive(library: &Library, out: &Path) {
    let symbols: Vec<&str> = library.symbols.split_whitespace().collect();
    let loader = out.join(format!("lazy_{}.c", library.name));
    let trampolines = out.join(format!("lazy_{}_jump.S", library.name));
    fs::write(&loader, loader_source(library, &symbols)).expect("OUT_DIR can be written");
    fs::write(&trampolines, trampoline_source(library.name, &symbols)).expect("as above");
    cc::Build::new()
        .file(loader)
        .file(trampolines)
        .pic(true)
        .cargo_metadata(false)
        .compile(library.name);
}

/// The C half: names of the functions, and the look-up. Nothing is cached on failure, so a library
/// that appears later is found by the next call.
fn loader_source(library: &Library, symbols: &[&str]) -> String {
    let (name, status) = (library.name, library.status);
    let quoted = |words: &[&str]| {
        words.iter().fold(String::new(), |mut all, word| {
            let _ = write!(all, "\"{word}\", ");
            all
        })
    };
    let (files, names) = (quoted(library.files), quoted(symbols));
    format!(
        r#"#include <dlfcn.h>
#include <stddef.h>
static int lazy_absent_{name}(void) {{ return {status}; }}
static const char *const lazy_files_{name}[] = {{ {files} NULL }};
static const char *const lazy_names_{name}[] = {{ {names} }};
static void *lazy_handle_{name};
__attribute__((visibility("hidden"))) extern void *lazy_table_{name}[];
__attribute__((visibility("hidden"), used)) void *lazy_find_{name}(size_t index) {{
  void *handle = __atomic_load_n(&lazy_handle_{name}, __ATOMIC_ACQUIRE);
  for (int i = 0; !handle && lazy_files_{name}[i]; i++)
    handle = dlopen(lazy_files_{name}[i], RTLD_LAZY | RTLD_GLOBAL);
  if (!handle) return (void *)lazy_absent_{name};
  __atomic_store_n(&lazy_handle_{name}, handle, __ATOMIC_RELEASE);
  void *function = dlsym(handle, lazy_names_{name}[index]);
  if (!function) return (void *)lazy_absent_{name};
  __atomic_store_n(&lazy_table_{name}[index], function, __ATOMIC_RELEASE);
  return function;
}}
"#
    )
}

/// The assembly half: each function jumps through its entry of a table, which at first leads to the
/// look-up. The look-up keeps every register that can hold an argument.
fn trampoline_source(name: &str, symbols: &[&str]) -> String {
    let mut text = String::from(".text\n");
    for (index, symbol) in symbols.iter().enumerate() {
        let _ = write!(
            text,
            ".globl {symbol}\n.type {symbol},@function\n\
             {symbol}: jmp *lazy_table_{name}+{offset}(%rip)\n\
             .Lfind{index}: pushq ${index}\n jmp .Lcommon\n.size {symbol},.-{symbol}\n",
            offset = 8 * index
        );
    }
    let _ = write!(
        text,
        r#".Lcommon:
 pushq %rdi; pushq %rsi; pushq %rdx; pushq %rcx; pushq %r8; pushq %r9; pushq %rax
 subq $136, %rsp
 movups %xmm0, (%rsp); movups %xmm1, 16(%rsp); movups %xmm2, 32(%rsp); movups %xmm3, 48(%rsp)
 movups %xmm4, 64(%rsp); movups %xmm5, 80(%rsp); movups %xmm6, 96(%rsp); movups %xmm7, 112(%rsp)
 movq 192(%rsp), %rdi
 call lazy_find_{name}
 movq %rax, %r11
 movups (%rsp), %xmm0; movups 16(%rsp), %xmm1; movups 32(%rsp), %xmm2; movups 48(%rsp), %xmm3
 movups 64(%rsp), %xmm4; movups 80(%rsp), %xmm5; movups 96(%rsp), %xmm6; movups 112(%rsp), %xmm7
 addq $136, %rsp
 popq %rax; popq %r9; popq %r8; popq %rcx; popq %rdx; popq %rsi; popq %rdi
 addq $8, %rsp
 jmp *%r11
.data
.hidden lazy_table_{name}
.globl lazy_table_{name}
.balign 8
lazy_table_{name}:
"#
    );
    for index in 0..symbols.len() {
        let _ = writeln!(text, " .quad .Lfind{index}");
    }
    text.push_str(".section .note.GNU-stack,\"\",@progbits\n");
    text
}
