//! With the feature `cuda`: compiles each file of `kernels.txt` with nvcc and embeds the result. Without it, nothing.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

/// Architectures with machine code of their own; later ones compile the last one's PTX at start.
const ARCHITECTURES: &str = "80,90";

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    if env::var_os("CARGO_FEATURE_CUDA").is_none() {
        return;
    }
    for name in ["CUDA_HOME", "CUDA_PATH", "PATH", "MORTISE_CUDA_ARCHITECTURES"] {
        println!("cargo::rerun-if-env-changed={name}");
    }
    println!("cargo::rerun-if-changed=kernels.txt");
    println!("cargo::rerun-if-changed=src/cuda");
    let Some(nvcc) = find_nvcc() else {
        println!(
            "cargo::error=the cuda feature needs nvcc, which is not below CUDA_HOME or CUDA_PATH, not \
             in PATH and not below /usr/local/cuda: see docs/cuda.md"
        );
        return;
    };
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
    let mut images = String::from("&[\n");
    for source in fs::read_to_string("kernels.txt").expect("the list of kernel files").lines() {
        let source = Path::new(source);
        watch_folder_of(source);
        let name = source.file_stem().expect("a file").to_str().expect("an ASCII name");
        let image = out.join(format!("{name}.fatbin"));
        if let Err(problem) = compile(&nvcc, source, &image) {
            println!("cargo::error={} {}: {problem}", nvcc.display(), source.display());
            return;
        }
        let _ = writeln!(images, "    (\"{name}\", include_bytes!({image:?})),");
    }
    images.push_str("]\n");
    fs::write(out.join("images.rs"), images).expect("OUT_DIR can be written");
}

fn find_nvcc() -> Option<PathBuf> {
    let homes = ["CUDA_HOME", "CUDA_PATH"].into_iter().filter_map(env::var_os);
    let of_homes = homes.map(|home| PathBuf::from(home).join("bin"));
    let path = env::var_os("PATH").unwrap_or_default();
    let folders = of_homes.chain(env::split_paths(&path)).chain(["/usr/local/cuda/bin".into()]);
    folders.map(|folder| folder.join("nvcc")).find(|nvcc| nvcc.is_file())
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

fn compile(nvcc: &Path, source: &Path, image: &Path) -> Result<(), String> {
    let chosen =
        env::var("MORTISE_CUDA_ARCHITECTURES").unwrap_or_else(|_| ARCHITECTURES.to_owned());
    let architectures: Vec<&str> = chosen.split(',').map(str::trim).collect();
    let mut command = Command::new(nvcc);
    command.args(["-O3", "-std=c++17", "-fatbin", "-Isrc/cuda"]);
    for number in &architectures {
        command.arg(format!("-gencode=arch=compute_{number},code=sm_{number}"));
    }
    let last = architectures.last().expect("split gives one at least");
    command.arg(format!("-gencode=arch=compute_{last},code=compute_{last}"));
    let status = command.arg("-o").arg(image).arg(source).status();
    match status {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(format!("failed with {status}")),
        Err(problem) => Err(problem.to_string()),
    }
}
