"""Measures Mortise and llama.cpp, or mistral.rs, by turns, on the same made model and adapters.

    python pair.py --mortise target/release/mortise --llama DIR/bin --work WORK \\
        --shape tiny-100m --quant q8_0 --cores 0,1 --client-cores 2,3 \\
        -- --concurrency 8,32 --popularity none,distinct --adapters 32 --repeat 5

Without --llama the peer is mistral.rs, see mistral_rs.py: the wheel must be installed for the Python that
runs this. Makes in WORK what is not there yet: the model, its GGUF, the adapters of both. Starts both servers on
free ports with as many threads as --cores names, runs `mortise bench run` with the flags behind `--`,
and ends both. A server at rest computes nothing, so both may have the same cores.
"""

import argparse
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

HERE = Path(__file__).resolve().parent
# Names that llama-quantize has for them. With --pure, Q4_K_S is Q4_K everywhere.
QUANTS = {"f16": None, "q8_0": "Q8_0", "q4_0": "Q4_0", "q4_k": "Q4_K_S"}
START_S_MAX = 300


def call(*words):
    print("+", *words, file=sys.stderr, flush=True)
    subprocess.run([str(word) for word in words], check=True)


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def make(args, adapters):
    """The files of both servers; returns where they are."""
    root = args.work / args.shape
    model, f16 = root / "hf", root / "f16.gguf"
    if not (model / "model.safetensors").exists():
        call(args.mortise, "bench", "make", "model", args.shape, model)
    if args.llama and not f16.exists():
        call(sys.executable, HERE / "to_gguf.py", "model", model, f16)
    gguf = root / f"{args.quant}.gguf"
    if args.llama and not gguf.exists():
        call(args.llama / "llama-quantize", "--pure", f16, gguf, QUANTS[args.quant])
    peft, converted = root / "adapters", root / "gguf-adapters"
    if adapters > len(list(peft.glob("*/adapter_model.safetensors"))):
        rank = ["--count", adapters, "--rank", args.rank]
        call(args.mortise, "bench", "make", "adapters", args.shape, peft, *rank)
    if args.llama and adapters > len(list(converted.glob("*.gguf"))):
        call(sys.executable, HERE / "to_gguf.py", "adapters", model, peft, converted)
    return model, gguf, peft, sorted(converted.glob("*.gguf"))[:adapters]


def start(words, cores, log):
    with open(log, "w") as out:
        pinned = ["taskset", "-c", cores, *[str(word) for word in words]]
        print("+", *pinned, file=sys.stderr, flush=True)
        return subprocess.Popen(pinned, stdout=out, stderr=subprocess.STDOUT)


def wait_for(process, url, log):
    end = time.monotonic() + START_S_MAX
    while time.monotonic() < end:
        if process.poll() is not None:
            sys.exit(f"a server ended with {process.returncode}:\n{Path(log).read_text()[-2000:]}")
        try:
            with urllib.request.urlopen(f"{url}/health", timeout=5):
                return
        except OSError:
            time.sleep(0.2)
    sys.exit(f"{url} is not up after {START_S_MAX} s, see {log}")


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--mortise", type=Path, required=True, help="the binary")
    parser.add_argument("--llama", type=Path, default=None, help="bin folder that build.py made")
    parser.add_argument("--work", type=Path, required=True, help="models, adapters and logs")
    parser.add_argument("--shape", default="tiny-100m")
    parser.add_argument("--quant", choices=QUANTS, default="q8_0")
    parser.add_argument("--rank", type=int, default=16, help="of adapters that are made")
    parser.add_argument("--cores", default="0,1", help="of both servers, each named; taskset's list")
    parser.add_argument("--client-cores", default=None, help="of the load generator")
    parser.add_argument("--context", type=int, default=1024, help="positions of one sequence")
    parser.add_argument("--mortise-args", default="", help="more flags of mortise serve")
    parser.add_argument("--llama-args", default="", help="more flags of llama-server")
    # What stands behind `--` is for `mortise bench run`.
    ours = sys.argv[1:]
    split = ours.index("--") if "--" in ours else len(ours)
    args = parser.parse_args(ours[:split])
    return args, ours[split + 1 :]


def flag(words, name, default):
    return words[words.index(name) + 1] if name in words else default


def main():
    args, load = arguments()
    adapters = int(flag(load, "--adapters", "0"))
    streams = max(int(n) for n in flag(load, "--concurrency", "8").split(","))
    model, gguf, peft, loras = make(args, adapters)
    threads = len(args.cores.split(","))
    ports = [free_port() for _ in range(3)]
    urls = [f"http://127.0.0.1:{port}" for port in ports]
    logs = [args.work / "mortise.log", args.work / "peer.log"]

    mortise = [args.mortise, "serve", "--model", model, "--data-dir", args.work / "data"]
    mortise += ["--listen", f"127.0.0.1:{ports[0]}", "--admin-listen", f"127.0.0.1:{ports[1]}"]
    mortise += ["--threads", threads, *args.mortise_args.split()]
    if adapters:
        mortise += ["--adapter-dir", peft]
    if args.quant != "f16":
        mortise += ["--quantize", args.quant]
    if args.llama:
        label, names = "llama.cpp", "llama-server"
        peer = [args.llama / "llama-server", "--model", gguf, "--port", ports[2]]
        peer += ["--threads", threads, "--threads-batch", threads, "--parallel", streams]
        peer += ["--ctx-size", streams * args.context, "--cache-ram", 0, *args.llama_args.split()]
        if loras:
            peer += ["--lora", ",".join(map(str, loras)), "--lora-init-without-apply"]
    else:
        label, names = "mistral.rs", "openai"
        peer = ["env", f"RAYON_NUM_THREADS={threads}", sys.executable, HERE / "mistral_rs.py"]
        peer += ["--model", model, "--quant", args.quant, "--port", ports[2]]
        peer += ["--streams", streams, "--adapters", peft, "--count", adapters]

    servers = []
    try:
        for words, url, log in [(mortise, urls[0], logs[0]), (peer, urls[2], logs[1])]:
            servers.append(start(words, args.cores, log))
            wait_for(servers[-1], url, log)
        client = ["taskset", "-c", args.client_cores] if args.client_cores else []
        run = [args.mortise, "bench", "run", "--url", urls[0], "--peer", urls[2]]
        run += ["--peer-label", label, "--peer-adapters", names, *load]
        call(*client, *run)
    finally:
        for server in servers:
            server.terminate()
        for server in servers:
            server.wait()


if __name__ == "__main__":
    main()
