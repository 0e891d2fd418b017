"""Serves a model with mistral.rs (its wheel from PyPI) on the part of OpenAI's API that `mortise bench run` uses.

    python mistral_rs.py --model DIR --adapters DIR --count 32 --quant q8_0 --port 8000

The wheel has no server, so this one hands the requests to its runner, each as the message of a chat: with a
template that adds nothing, that is the same prompt.
"""

import argparse
import itertools
import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import mistralrs
from tokenizers import Tokenizer


def runner(args, adapters):
    options = {"max_seqs": args.streams, "prefix_cache_n": 0}
    if args.quant != "f16":
        options["in_situ_quant"] = {"q4_k": "Q4K"}.get(args.quant, args.quant)
    arch = mistralrs.Architecture.Llama
    dtype = mistralrs.ModelDType.F32
    if not adapters:
        which = mistralrs.Which.Plain(model_id=str(args.model), arch=arch, dtype=dtype)
    else:
        which = mistralrs.Which.Lora(
            model_id=str(args.model),
            arch=arch,
            dtype=dtype,
            adapters=[mistralrs.LoraAdapter(path.name, str(path)) for path in adapters],
            max_adapters=len(adapters),
            max_bytes=1 << 36,
        )
    return mistralrs.Runner(which, **options)


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def reply(self, kind, body):
        self.send_response(200)
        self.send_header("content-type", kind)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self):
        models = [{"id": name, "object": "model"} for name in ["base", *self.server.adapters]]
        self.reply("application/json", json.dumps({"object": "list", "data": models}).encode())

    def do_POST(self):
        asked = json.loads(self.rfile.read(int(self.headers["content-length"])))
        prompt = asked["prompt"]
        if not isinstance(prompt, str):
            prompt = self.server.tokenizer.decode(prompt, skip_special_tokens=False)
        name = asked.get("model")
        request = mistralrs.ChatCompletionRequest(
            messages=[{"role": "user", "content": prompt}],
            model="default",
            max_tokens=asked["max_tokens"],
            temperature=0.0,
            ignore_eos=True,
            stream=True,
            adapter=name if name in self.server.adapters else None,
        )
        # A runner takes one call at a time. It fails ("input tensor is not contiguous") where prompts of one
        # length would run in one batch over quantized weights, so one goes in at a time.
        with self.server.lock:
            pieces = iter(self.server.runner.send_chat_completion_request(request))
            first = next(pieces)
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.send_header("connection", "close")
        self.end_headers()
        base = {"id": "0", "object": "text_completion", "created": int(time.time()), "model": name}
        usage = None
        for piece in itertools.chain([first], pieces):
            text = piece.choices[0].delta.content or ""
            usage = piece.usage or usage
            self.event(base | {"choices": [{"index": 0, "text": text, "finish_reason": None}]})
        counts = ["prompt_tokens", "completion_tokens", "total_tokens"]
        usage = {count: getattr(usage, count) for count in counts}
        self.event(base | {"choices": [], "usage": usage})
        self.wfile.write(b"data: [DONE]\n\n")
        self.close_connection = True

    def event(self, body):
        self.wfile.write(f"data: {json.dumps(body)}\n\n".encode())


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, required=True, help="Hugging Face directory")
    parser.add_argument("--adapters", type=Path, default=None, help="folder of PEFT directories")
    parser.add_argument("--count", type=int, default=0, help="of them that are loaded")
    parser.add_argument("--quant", default="q8_0")
    parser.add_argument("--streams", type=int, default=8)
    parser.add_argument("--port", type=int, required=True)
    args = parser.parse_args()
    adapters = sorted(args.adapters.iterdir())[: args.count] if args.count else []
    server = ThreadingHTTPServer(("127.0.0.1", args.port), Handler)
    server.tokenizer = Tokenizer.from_file(str(args.model / "tokenizer.json"))
    server.adapters = {path.name for path in adapters}
    server.lock = threading.Lock()
    server.runner = runner(args, adapters)
    server.serve_forever()


if __name__ == "__main__":
    main()
