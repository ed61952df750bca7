"""The client that most programs use, against a server whose URL is the first argument, with a model that writes what the
file named second says. Prints nothing; an assertion that fails says what is wrong."""

import json
import sys

import openai

url, expectations = sys.argv[1], json.load(open(sys.argv[2], encoding="utf-8"))
client = openai.OpenAI(base_url=f"{url}/v1", api_key="the-key", max_retries=0, timeout=120)
question = {"model": "any", "messages": [{"role": "user", "content": expectations["prompt"]}]}
settings = expectations["settings"]
expected = expectations["text"]

# The streamed chat is what `pard generate` writes, and so is the whole one.
chunks = list(client.chat.completions.create(**question, **settings, stream=True, stream_options={"include_usage": True}))
assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices) == expected, chunks
assert chunks[0].choices[0].delta.role == "assistant"
assert chunks[-2].choices[0].finish_reason == expectations["finish"]
usage = chunks[-1].usage
assert usage.completion_tokens == expectations["tokens"], usage
details = usage.completion_tokens_details
assert details.accepted_prediction_tokens + details.rejected_prediction_tokens >= 0
answer = client.chat.completions.create(**question, **settings)
assert answer.choices[0].message.content == expected
assert answer.choices[0].finish_reason == expectations["finish"]
assert answer.usage.total_tokens == answer.usage.prompt_tokens + expectations["tokens"]

# Each token's origin, as an extension.
marked = client.chat.completions.create(**question, **settings, extra_body={"pard": {"method": "ar"}})
tokens = marked.choices[0].pard["tokens"]
assert "".join(token["text"] for token in tokens) == expected and not any(token["accepted"] for token in tokens)

# Several answers, by seeds that follow each other.
drawn = dict(settings, temperature=1.0)
several = client.chat.completions.create(**question, **dict(drawn, seed=40), n=3)
assert [choice.index for choice in several.choices] == [0, 1, 2]
for index, choice in enumerate(several.choices):
    alone = client.chat.completions.create(**question, **dict(drawn, seed=40 + index))
    assert alone.choices[0].message.content == choice.message.content

# A stop text.
stop = expected[len(expected) // 2 :][:2]
stopped = client.chat.completions.create(**question, **settings, stop=stop)
assert stopped.choices[0].message.content == expected[: expected.index(stop)]
assert stopped.choices[0].finish_reason == "stop"

# How probable each token was.
probable = client.chat.completions.create(**question, **settings, logprobs=True, top_logprobs=2)
content = probable.choices[0].logprobs.content
assert b"".join(bytes(token.bytes) for token in content).decode(errors="replace") == expected
assert all(token.logprob <= 0 and len(token.top_logprobs) == 2 for token in content)
assert all(abs(token.logprob - token.top_logprobs[0].logprob) < 1e-3 for token in content), "the likeliest is taken"

# Plain texts, as many as are asked for.
texts = client.completions.create(model="any", prompt=["the thing", "the other"], max_tokens=4)
assert [choice.index for choice in texts.choices] == [0, 1] and texts.object == "text_completion"
streamed = client.completions.create(model="any", prompt="the thing", max_tokens=4, stream=True)
assert "".join(chunk.choices[0].text for chunk in streamed) == texts.choices[0].text

assert [model.id for model in client.models.list()] == [expectations["model"]]
assert client.models.retrieve(expectations["model"]).id == expectations["model"]


def raises(kind, call, part):
    try:
        call()
    except kind as error:
        assert part in str(error), error
        return error
    raise AssertionError(f"no {kind.__name__}")


chat = client.chat.completions.create
error = raises(openai.BadRequestError, lambda: chat(**question, temperature=-1), "temperature")
assert error.param == "temperature" and error.type == "invalid_request_error"
raises(openai.BadRequestError, lambda: chat(model="any", messages=[]), "messages")
error = raises(
    openai.BadRequestError,
    lambda: chat(model="any", messages=[{"role": "user", "content": "the " * 100000}]),
    "context",
)
assert error.code == "context_length_exceeded"
raises(openai.NotFoundError, lambda: client.models.retrieve("other"), "the model here is")
stranger = openai.OpenAI(base_url=f"{url}/v1", api_key="wrong", max_retries=0)
raises(openai.AuthenticationError, lambda: stranger.models.list(), "key")
huge = [{"role": "user", "content": "x" * 10_000_000}]
raises(openai.APIStatusError, lambda: chat(model="any", messages=huge), "larger than")
