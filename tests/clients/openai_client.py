"""The openai package, unmodified, against a running server.

    MORTISE_URL=http://127.0.0.1:8080 MORTISE_PROMPT=... python -m unittest openai_client

MORTISE_PROMPT is a prompt of the domain of the adapter MORTISE_ADAPTER. MORTISE_KEYED_URL, with the key
`test-key`, is a second server that asks for keys.
"""

import asyncio
import json
import math
import os
import unittest

import openai

URL = os.environ["MORTISE_URL"]
KEYED_URL = os.environ["MORTISE_KEYED_URL"]
ADAPTER = os.environ["MORTISE_ADAPTER"]
PROMPT = os.environ["MORTISE_PROMPT"]
MESSAGES = [{"role": "user", "content": PROMPT}]


def connect(url=URL, key="unused"):
    return openai.OpenAI(base_url=f"{url}/v1", api_key=key, max_retries=0, timeout=120)


class Models(unittest.TestCase):
    def test_base_adapters_and_agents_are_listed(self):
        client = connect()
        models = client.models.list().data
        names = [model.id for model in models]
        self.assertIn(ADAPTER, names)
        self.assertIn("agent:solver", names)
        adapter = client.models.retrieve(ADAPTER)
        self.assertEqual(adapter.object, "model")
        self.assertEqual(adapter.parent, names[0])
        with self.assertRaises(openai.NotFoundError):
            client.models.retrieve("nobody")


class Chat(unittest.TestCase):
    def setUp(self):
        self.client = connect()

    def ask(self, **options):
        options = {"model": ADAPTER, "messages": MESSAGES, "temperature": 0, "max_tokens": 48, **options}
        return self.client.chat.completions.create(**options)

    def test_answer_and_usage(self):
        answer = self.ask()
        choice = answer.choices[0]
        self.assertTrue(answer.id.startswith("chatcmpl-"))
        self.assertEqual(answer.object, "chat.completion")
        self.assertEqual(answer.model, ADAPTER)
        self.assertEqual(choice.message.role, "assistant")
        self.assertTrue(choice.message.content.strip())
        self.assertIn(choice.finish_reason, ("stop", "length"))
        usage = answer.usage
        self.assertGreater(usage.prompt_tokens, 0)
        self.assertLessEqual(usage.completion_tokens, 48)
        self.assertEqual(usage.total_tokens, usage.prompt_tokens + usage.completion_tokens)
        # The same prompt again is found in the prefix cache, up to its last block.
        again = self.ask()
        self.assertEqual(again.choices[0].message.content, choice.message.content)
        self.assertGreater(again.usage.prompt_tokens_details.cached_tokens, 0)

    def test_max_tokens(self):
        answer = self.ask(max_tokens=3)
        self.assertEqual(answer.choices[0].finish_reason, "length")
        self.assertEqual(answer.usage.completion_tokens, 3)
        options = {"max_tokens": openai.omit, "max_completion_tokens": 3}
        self.assertEqual(self.ask(**options).choices[0].message.content, answer.choices[0].message.content)

    def test_stream_equals_the_whole_and_ends_in_usage(self):
        whole = self.ask()
        chunks = list(self.ask(stream=True, stream_options={"include_usage": True}))
        text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
        self.assertEqual(text, whole.choices[0].message.content)
        self.assertEqual(chunks[0].choices[0].delta.role, "assistant")
        self.assertEqual(len({chunk.id for chunk in chunks}), 1)
        self.assertEqual(chunks[-1].choices, [])
        self.assertEqual(chunks[-1].usage.completion_tokens, whole.usage.completion_tokens)
        self.assertEqual(chunks[-2].choices[0].finish_reason, whole.choices[0].finish_reason)
        self.assertGreater(len(chunks), 5, "the answer came in one piece")
        self.assertTrue(all(chunk.choices for chunk in self.ask(stream=True)))

    def test_stop_strings_end_the_answer_and_are_not_in_it(self):
        whole = self.ask().choices[0].message.content
        stop = whole[len(whole) // 3 :][:4]
        answer = self.ask(stop=stop)
        self.assertEqual(answer.choices[0].message.content, whole[: whole.index(stop)])
        self.assertEqual(answer.choices[0].finish_reason, "stop")
        self.assertGreater(answer.usage.prompt_tokens_details.cached_tokens, 0)
        several = self.ask(stop=["\u2603", stop], stream=True)
        text = "".join(chunk.choices[0].delta.content or "" for chunk in several)
        self.assertEqual(text, whole[: whole.index(stop)])

    def test_seeds(self):
        def text(seed):
            return self.ask(temperature=1.5, seed=seed).choices[0].message.content

        self.assertEqual(text(7), text(7))
        self.assertGreater(len({text(seed) for seed in range(6)}), 1)

    def test_choices_differ_and_are_numbered(self):
        answer = self.ask(n=3, temperature=1.5, seed=1)
        self.assertEqual([choice.index for choice in answer.choices], [0, 1, 2])
        self.assertGreater(len({choice.message.content for choice in answer.choices}), 1)
        texts = {0: "", 1: "", 2: ""}
        for chunk in self.ask(n=3, temperature=1.5, seed=1, stream=True):
            for choice in chunk.choices:
                texts[choice.index] += choice.delta.content or ""
        self.assertEqual([texts[index] for index in range(3)], [choice.message.content for choice in answer.choices])

    def test_logprobs(self):
        answer = self.ask(logprobs=True, top_logprobs=3, max_tokens=8)
        tokens = answer.choices[0].logprobs.content
        self.assertEqual(len(tokens), answer.usage.completion_tokens)
        for token in tokens:
            self.assertEqual(len(token.top_logprobs), 3)
            best = [other.logprob for other in token.top_logprobs]
            self.assertEqual(best, sorted(best, reverse=True))
            self.assertAlmostEqual(token.logprob, best[0], places=4)  # greedy
            self.assertLessEqual(sum(map(math.exp, best)), 1.0001)
        said = b"".join(bytes(token.bytes) for token in tokens).decode(errors="replace")
        self.assertTrue(said.startswith(answer.choices[0].message.content))
        self.assertIsNone(self.ask(max_tokens=2).choices[0].logprobs)

    def test_logit_bias_forbids(self):
        answer = self.ask(max_tokens=1, logprobs=True)
        first = bytes(answer.choices[0].logprobs.content[0].bytes).decode()
        ids = self.client.with_options(base_url=URL).post(
            "/tokenize", body={"prompt": first, "add_special_tokens": False}, cast_to=object
        )["tokens"]
        self.assertEqual(len(ids), 1)
        other = self.ask(max_tokens=1, logprobs=True, logit_bias={str(ids[0]): -100})
        self.assertNotEqual(bytes(other.choices[0].logprobs.content[0].bytes).decode(), first)

    def test_credits(self):
        answer = self.ask(extra_body={"mortise": {"attribution": True}})
        shares = answer.mortise["attribution"]["shares"]
        self.assertEqual(sum(share["parts_per_billion"] for share in shares), 1_000_000_000)
        self.assertEqual(answer.mortise["receipt"], answer.id)

    def test_the_asynchronous_client(self):
        async def run():
            async with openai.AsyncOpenAI(base_url=f"{URL}/v1", api_key="unused", timeout=120) as client:
                asked = [
                    client.chat.completions.create(model=ADAPTER, messages=MESSAGES, temperature=0, max_tokens=16)
                    for _ in range(8)
                ]
                return await asyncio.gather(*asked)

        texts = {answer.choices[0].message.content for answer in asyncio.run(run())}
        self.assertEqual(len(texts), 1)


class Tools(unittest.TestCase):
    PARAMETERS = {
        "type": "object",
        "properties": {"level": {"enum": ["low", "high"]}, "score": {"type": "integer", "minimum": 0, "maximum": 99}},
        "required": ["level", "score"],
        "additionalProperties": False,
    }
    TOOLS = [
        {"type": "function", "function": {"name": "rate", "description": "Rates.", "parameters": PARAMETERS}},
        {"type": "function", "function": {"name": "pass_on", "parameters": {"type": "object", "properties": {}}}},
    ]

    def ask(self, **options):
        options = {"model": ADAPTER, "messages": MESSAGES, "temperature": 0, "max_tokens": 160, **options}
        return connect().chat.completions.create(tools=self.TOOLS, **options)

    def fits(self, call):
        self.assertEqual(call.type, "function")
        self.assertTrue(call.id)
        arguments = json.loads(call.function.arguments)
        if call.function.name == "rate":
            self.assertIn(arguments["level"], ("low", "high"))
            self.assertTrue(0 <= arguments["score"] <= 99)

    def test_a_named_function_is_called(self):
        choice = {"type": "function", "function": {"name": "rate"}}
        answer = self.ask(tool_choice=choice).choices[0]
        self.assertEqual((answer.finish_reason, answer.message.content), ("stop", None))
        (call,) = answer.message.tool_calls
        self.assertEqual(call.function.name, "rate")
        self.fits(call)
        with connect().chat.completions.stream(
            model=ADAPTER, messages=MESSAGES, temperature=0, max_tokens=160, tools=self.TOOLS, tool_choice=choice
        ) as stream:
            streamed = stream.get_final_completion().choices[0].message.tool_calls[0]
        self.assertEqual(streamed.function.arguments, call.function.arguments)

    def test_some_function_is_called(self):
        answer = self.ask(tool_choice="required", parallel_tool_calls=False).choices[0]
        self.assertEqual(answer.finish_reason, "tool_calls")
        (call,) = answer.message.tool_calls
        self.fits(call)
        # The conversation goes on with the result.
        turns = [*MESSAGES, answer.message, {"role": "tool", "tool_call_id": call.id, "content": "done"}]
        self.assertTrue(self.ask(messages=turns, tool_choice="none").choices[0].message.content)

    def test_responses(self):
        tools = [{"type": "function", **tool["function"]} for tool in self.TOOLS]
        options = dict(model=ADAPTER, temperature=0, max_output_tokens=160, tools=tools)
        ask = connect().responses.create
        answer = ask(input=PROMPT, tool_choice={"type": "function", "name": "rate"}, **options)
        (call,) = answer.output
        self.assertEqual((call.type, call.name, call.status), ("function_call", "rate", "completed"))
        self.assertIn("score", json.loads(call.arguments))
        result = {"type": "function_call_output", "call_id": call.call_id, "output": "done"}
        turns = [{"role": "user", "content": PROMPT}, *answer.output, result]
        self.assertTrue(ask(input=turns, tool_choice="none", **options).output_text)


class Completions(unittest.TestCase):
    def setUp(self):
        self.client = connect()

    def complete(self, **options):
        options = {"model": ADAPTER, "prompt": "The wallet", "temperature": 0, "max_tokens": 8, **options}
        return self.client.completions.create(**options)

    def test_text_tokens_and_streams_agree(self):
        answer = self.complete()
        self.assertEqual(answer.object, "text_completion")
        self.assertTrue(answer.id.startswith("cmpl-"))
        ids = self.client.with_options(base_url=URL).post("/tokenize", body={"prompt": "The wallet"}, cast_to=object)
        by_ids = self.complete(prompt=ids["tokens"])
        self.assertEqual(by_ids.choices[0].text, answer.choices[0].text)
        streamed = "".join(chunk.choices[0].text for chunk in self.complete(stream=True))
        self.assertEqual(streamed, answer.choices[0].text)

    def test_several_prompts(self):
        answer = self.complete(prompt=["The wallet", "The clause"], n=2)
        self.assertEqual([choice.index for choice in answer.choices], [0, 1, 2, 3])
        self.assertEqual(answer.choices[0].text, answer.choices[1].text)
        alone = self.complete(prompt="The clause")
        self.assertEqual(answer.choices[2].text, alone.choices[0].text)

    def test_echo_with_logprobs_scores_the_prompt(self):
        answer = self.complete(echo=True, logprobs=1, max_tokens=1)
        choice = answer.choices[0]
        self.assertTrue(choice.text.startswith("The wallet"), choice.text)
        logprobs = choice.logprobs
        self.assertEqual(len(logprobs.tokens), answer.usage.prompt_tokens + 1)
        self.assertIsNone(logprobs.token_logprobs[0])
        self.assertTrue(all(value <= 0 for value in logprobs.token_logprobs[1:]))
        self.assertEqual(len(logprobs.text_offset), len(logprobs.tokens))
        only = self.complete(echo=True, logprobs=1, max_tokens=0)
        self.assertEqual(only.usage.completion_tokens, 0)
        self.assertEqual(only.choices[0].logprobs.token_logprobs, logprobs.token_logprobs[:-1])


class Errors(unittest.TestCase):
    def refused(self, kind, status, param=None, code=None, **options):
        options = {"model": ADAPTER, "messages": MESSAGES, "max_tokens": 4, **options}
        with self.assertRaises(kind) as caught:
            connect().chat.completions.create(**options)
        error = caught.exception
        self.assertEqual(error.status_code, status)
        if param:
            self.assertEqual(error.param, param)
        if code:
            self.assertEqual(error.code, code)
        return error

    def test_unknown_model(self):
        self.refused(openai.NotFoundError, 404, param="model", code="model_not_found", model="nobody")

    def test_bad_parameters_are_named(self):
        bad = openai.BadRequestError
        self.refused(bad, 400, param="temperature", temperature=2.5)
        self.refused(bad, 400, param="top_p", top_p=0)
        self.refused(bad, 400, param="n", n=0)
        self.refused(bad, 400, param="max_tokens", max_tokens=0)
        self.refused(bad, 400, param="messages", messages=[])
        self.refused(bad, 400, param="stop", stop=["x"] * 17)
        self.refused(bad, 400, param="top_logprobs", top_logprobs=2)
        self.refused(bad, 400, param="top_logprobs", logprobs=True, top_logprobs=21)
        self.refused(bad, 400, param="logit_bias", logit_bias={"999999": 1})
        self.refused(bad, 400, param="stop_token_ids", extra_body={"stop_token_ids": [999999]})
        self.refused(bad, 400, param="temperature", temperature="warm")
        tools = [{"type": "function", "function": {"name": "f"}}]
        # Nothing shows how this model would call of its own accord.
        self.refused(bad, 400, param="tool_choice", tools=tools)
        self.refused(bad, 400, param="tools[0].type", tools=[{"type": "web_search"}])
        self.refused(bad, 400, param="functions", functions=[{"name": "f"}])
        self.refused(bad, 400, code="unknown_parameter", extra_body={"max_token": 3})
        self.refused(bad, 400, code="context_length_exceeded", max_tokens=1_000_000)

    def test_a_bad_stream_fails_before_it_begins(self):
        self.refused(openai.BadRequestError, 400, param="temperature", temperature=9, stream=True)

    def test_keys(self):
        self.assertTrue(connect(KEYED_URL, "test-key").models.list().data)
        with self.assertRaises(openai.AuthenticationError) as caught:
            connect(KEYED_URL, "wrong").models.list()
        self.assertEqual(caught.exception.code, "invalid_api_key")
        with self.assertRaises(openai.AuthenticationError):
            connect(KEYED_URL, "wrong").chat.completions.create(model=ADAPTER, messages=MESSAGES)


if __name__ == "__main__":
    unittest.main()
