"""langchain-openai, unmodified, against a running server.

    pip install -r frameworks.txt
    MORTISE_URL=http://127.0.0.1:8080 MORTISE_PROMPT=... python -m unittest langchain_client

MORTISE_ADAPTER names the adapter that answers; MORTISE_PROMPT is a prompt of its domain.
"""

import os
import unittest
from typing import Literal

from langchain_core.messages import AIMessage, HumanMessage, SystemMessage, ToolMessage
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI, OpenAI, OpenAIEmbeddings
from pydantic import BaseModel, Field

URL = os.environ["MORTISE_URL"]
ADAPTER = os.environ["MORTISE_ADAPTER"]
PROMPT = os.environ["MORTISE_PROMPT"]
COMMON = dict(model=ADAPTER, base_url=f"{URL}/v1", api_key="unused", max_retries=0, timeout=120)


class Assessment(BaseModel):
    """What is known of a wallet."""

    risk: str = Field(pattern="^(low|medium|high)$")
    score: int = Field(ge=0, le=100)


@tool
def escalate(to: Literal["desk", "bank"]) -> str:
    """Hands the case on."""
    return to


def chat(**options):
    return ChatOpenAI(**{**COMMON, "temperature": 0, "max_completion_tokens": 48, **options})


class LangChain(unittest.TestCase):
    def test_invoke_stream_and_batch_agree(self):
        messages = [SystemMessage("Be brief."), HumanMessage(PROMPT)]
        answer = chat().invoke(messages)
        self.assertTrue(answer.content.strip())
        self.assertGreater(answer.usage_metadata["input_tokens"], 0)
        streamed = "".join(chunk.content for chunk in chat().stream(messages))
        self.assertEqual(streamed, answer.content)
        self.assertEqual([one.content for one in chat().batch([messages] * 3)], [answer.content] * 3)

    def test_a_conversation_goes_on(self):
        turns = [HumanMessage(PROMPT), AIMessage("Wait."), HumanMessage("Go on.")]
        self.assertIsInstance(chat(stop=["\u2603"], seed=1).invoke(turns), AIMessage)

    def test_logprobs_and_choices(self):
        answer = chat(logprobs=True, top_logprobs=2, max_completion_tokens=4).invoke(PROMPT)
        self.assertEqual(len(answer.response_metadata["logprobs"]["content"]), 4)
        result = chat(n=2, temperature=1.2).generate([[HumanMessage(PROMPT)]])
        self.assertEqual(len(result.generations[0]), 2)

    def test_structured_output_by_schema(self):
        model = chat(max_completion_tokens=128)
        found = model.with_structured_output(Assessment, method="json_schema").invoke(PROMPT)
        self.assertIn(found.risk, ("low", "medium", "high"))
        self.assertTrue(0 <= found.score <= 100)

    def test_structured_output_by_function(self):
        model = chat(max_completion_tokens=128)
        found = model.with_structured_output(Assessment, method="function_calling").invoke(PROMPT)
        self.assertIn(found.risk, ("low", "medium", "high"))
        raw = model.with_structured_output(Assessment, method="function_calling", include_raw=True).invoke(PROMPT)
        self.assertEqual((raw["parsed"], raw["parsing_error"]), (found, None))

    def test_tools(self):
        model = chat(max_completion_tokens=200)
        named = model.bind_tools([Assessment, escalate], tool_choice="Assessment")
        (call,) = named.invoke(PROMPT).tool_calls
        self.assertEqual(call["name"], "Assessment")
        pieces = None
        for piece in named.stream(PROMPT):
            pieces = piece if pieces is None else pieces + piece
        self.assertEqual(pieces.tool_calls[0]["args"], call["args"])
        some = model.bind_tools([Assessment, escalate], tool_choice="any", parallel_tool_calls=False)
        answer = some.invoke(PROMPT)
        (call,) = answer.tool_calls
        self.assertIn(call["name"], ("Assessment", "escalate"))
        turns = [HumanMessage(PROMPT), answer, ToolMessage("done", tool_call_id=call["id"])]
        self.assertTrue(chat().invoke(turns).content)

    def test_tools_of_responses(self):
        model = chat(use_responses_api=True, max_completion_tokens=200)
        named = model.bind_tools([Assessment], tool_choice="Assessment")
        (call,) = named.invoke(PROMPT).tool_calls
        self.assertIn(call["args"]["risk"], ("low", "medium", "high"))
        pieces = None
        for piece in named.stream(PROMPT):
            pieces = piece if pieces is None else pieces + piece
        self.assertEqual(pieces.tool_calls[0]["args"], call["args"])

    def test_responses(self):
        answer = chat(use_responses_api=True, max_completion_tokens=16).invoke(PROMPT)
        self.assertTrue(answer.text.strip())
        parts = list(chat(use_responses_api=True, max_completion_tokens=16).stream(PROMPT))
        self.assertEqual("".join(part.text for part in parts), answer.text)

    def test_completions(self):
        model = OpenAI(**COMMON, temperature=0, max_tokens=8)
        self.assertEqual("".join(model.stream("The wallet")), model.invoke("The wallet"))

    def test_embeddings(self):
        # The server's own tokenizer reads the texts, not tiktoken's.
        model = OpenAIEmbeddings(**COMMON, check_embedding_ctx_length=False)
        vectors = model.embed_documents(["the wallet", "the clause"])
        self.assertEqual(len(vectors), 2)
        self.assertNotEqual(vectors[0], vectors[1])
        alone = model.embed_query("the wallet")
        self.assertEqual(alone, vectors[0])
        self.assertAlmostEqual(sum(value * value for value in alone), 1.0, places=4)
        short = OpenAIEmbeddings(**COMMON, check_embedding_ctx_length=False, dimensions=8)
        self.assertEqual(len(short.embed_query("the wallet")), 8)


if __name__ == "__main__":
    unittest.main()
