"""litellm, unmodified, against a running server.

    pip install -r frameworks.txt
    MORTISE_URL=http://127.0.0.1:8080 MORTISE_PROMPT=... python -m unittest litellm_client

MORTISE_ADAPTER names the adapter that answers; MORTISE_PROMPT is a prompt of its domain.
"""

import asyncio
import json
import os
import unittest

import litellm

URL = os.environ["MORTISE_URL"]
ADAPTER = os.environ["MORTISE_ADAPTER"]
PROMPT = os.environ["MORTISE_PROMPT"]
MESSAGES = [{"role": "user", "content": PROMPT}]
COMMON = dict(api_base=f"{URL}/v1", api_key="unused", timeout=120, num_retries=0)


def ask(provider="openai", **options):
    options = {"messages": MESSAGES, "temperature": 0, "max_tokens": 32, **options}
    return litellm.completion(model=f"{provider}/{ADAPTER}", **COMMON, **options)


class LiteLlm(unittest.TestCase):
    def test_as_openai_and_as_vllm(self):
        text = ask().choices[0].message.content
        self.assertTrue(text.strip())
        self.assertEqual(ask("hosted_vllm").choices[0].message.content, text)
        pieces = ask(stream=True, stream_options={"include_usage": True})
        self.assertEqual("".join(piece.choices[0].delta.content or "" for piece in pieces), text)

    def test_parameters(self):
        answer = ask(n=2, seed=3, top_p=0.9, stop=["\u2603"], user="u", logprobs=True, top_logprobs=1)
        self.assertEqual(len(answer.choices), 2)
        bounded = ask(response_format={"type": "json_object"}, max_tokens=200, temperature=0.7, seed=1)
        choice = bounded.choices[0]
        if choice.finish_reason == "stop":
            self.assertIsInstance(json.loads(choice.message.content), dict)

    def test_asynchronous(self):
        async def run():
            model = f"openai/{ADAPTER}"
            one = lambda: litellm.acompletion(model=model, messages=MESSAGES, max_tokens=8, **COMMON)
            return await asyncio.gather(*[one() for _ in range(4)])

        self.assertEqual(len(asyncio.run(run())), 4)

    def test_text_completion(self):
        answer = litellm.text_completion(
            model=f"text-completion-openai/{ADAPTER}", prompt="The wallet", max_tokens=4, **COMMON
        )
        self.assertTrue(answer.choices[0].text)

    def test_embedding(self):
        answer = litellm.embedding(model=f"openai/{ADAPTER}", input=["a", "b"], **COMMON)
        self.assertEqual(len(answer.data), 2)

    def test_responses(self):
        answer = litellm.responses(
            model=f"openai/{ADAPTER}", input=PROMPT, max_output_tokens=16, temperature=0, **COMMON
        )
        self.assertTrue(answer.output[0].content[0].text)

    def test_errors_keep_their_kind(self):
        with self.assertRaises(litellm.NotFoundError):
            litellm.completion(model="openai/nobody", messages=MESSAGES, **COMMON)
        with self.assertRaises(litellm.BadRequestError):
            ask(temperature=9)


if __name__ == "__main__":
    unittest.main()
