"""Everything that pard.py offers, on small models. Prints the answer to a question.

    check.py MODEL DRAFT QUESTION MAX_TOKENS
"""

import ctypes
import sys
import threading

import pard

target, draft, question, max_tokens = sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4])


def refused(status, part, call):
    try:
        call()
    except pard.Error as error:
        assert error.status == status and part in str(error), (error.status, str(error))
    else:
        raise AssertionError(f"{status} was expected")


# The structs are those of the header: the library refuses any other size that holds something, and fills none it does
# not know; that its own sizes are the header's is tested from C.
sizes = {
    pard._DeviceOptions: 3,
    pard._LoadOptions: 7,
    pard._Message: 2,
    pard._SessionOptions: 7,
    pard._TokenBias: 1,
    pard._AnswerOptions: 22,
    pard._LikelyToken: 1,
    pard._TokenLogprobs: 3,
    pard._Round: 11,
    pard._Statistics: 43,
}
if ctypes.sizeof(ctypes.c_void_p) == 8:
    for struct, words in sizes.items():
        assert ctypes.sizeof(struct) == 8 * words, (struct, ctypes.sizeof(struct))

refused("PARD_NO_MODEL", "/no/such/model", lambda: pard.Model("/no/such/model"))
refused("PARD_NO_DEVICE", "no such adapter", lambda: pard.Model(target, device="no such adapter"))

seen = []
model = pard.Model(target, draft, context=256, progress=lambda what, done, total: seen.append((what, done, total)))
assert model.name == "target" and model.device and any(done == total for _, done, total in seen), seen
assert pard.version() and model.notices == []

answer = model.generate(question, max_tokens=max_tokens)
assert answer.statistics["method"] == "pard" and len(answer.tokens) == answer.statistics["answer_tokens"]

# Answers of a given form.
answer_of = lambda **form: model.generate(question, max_tokens=max_tokens, **form).text
assert answer_of(choices=["the thing", "another"]) in ["the thing", "another"]
assert len(answer_of(regex="[a-d]{3}")) == 3
assert answer_of(grammar='start: "so it " ("is" | "was")') in ["so it is", "so it was"]
assert answer_of(json_schema={"const": {"a": [1, 2]}}) == '{"a": [1, 2]}'
refused("PARD_INVALID_ARGUMENT", "one at a time", lambda: answer_of(regex="a", choices=["a"]))
refused("PARD_INVALID_ARGUMENT", "no such type", lambda: answer_of(json_schema='{"type": "no such type"}'))

# A stream is the same text in pieces, whoever proposes.
for method in ["ar", "vsd", "pard", "ngram"]:
    stream = model.stream([{"role": "user", "content": question}], max_tokens=max_tokens, method=method, drafts=3)
    pieces = list(stream)
    assert "".join(pieces) == answer.text and len(pieces) > 1, (method, pieces, answer.text)
    assert stream.tokens == answer.tokens and stream.finish == answer.finish
    assert stream.statistics["method"] == method and sum(stream.statistics["accepted"]) <= sum(stream.statistics["proposed"])

# So with caches of 8 bits, whose text is their own.
small = pard.Model(target, draft, context=256, cache="q8_0")
texts = [small.generate(question, max_tokens=max_tokens, method=method).tokens for method in ["ar", "vsd", "pard"]]
assert texts[0] and texts == [texts[0]] * 3, texts

# How tokens are chosen does not depend on who proposes them.
sampling = {"temperature": 0.9, "seed": 5, "top_k": 80, "top_p": 0.95, "min_p": 0.01, "repetition_penalty": 1.1}
sampling.update(presence_penalty=0.2, frequency_penalty=0.1, logit_bias={9: -1.0, 8: 2.0}, banned=[40, 41], logprobs=3)
drawn = model.generate(question, max_tokens=max_tokens, method="ar", **sampling)
assert drawn.tokens != answer.tokens and not {40, 41} & set(drawn.tokens), drawn.tokens
assert len(drawn.logprobs) == len(drawn.tokens)
for logprob, top in drawn.logprobs:
    assert logprob <= 0 and len(top) == 3 and top[0][1] >= top[1][1] >= top[2][1] and logprob <= top[0][1], (logprob, top)
for kind in [{"method": "pard"}, {"method": "ngram"}, {"method": "pard", "drafts": 4, "with_ngrams": True}]:
    other = model.generate(question, max_tokens=max_tokens, **kind, **sampling)
    assert other.tokens == drawn.tokens and other.logprobs == drawn.logprobs, (kind, other.tokens, drawn.tokens)
assert model.generate(question, max_tokens=8, logit_bias={19: 1000.0}).tokens == [19] * 8
assert model.generate(question, max_tokens=8, temperature=1.0, acceptance="rejection").logprobs == []
assert model.generate(question, max_tokens=max_tokens).tokens == answer.tokens, "options last for one answer"
refused("PARD_INVALID_ARGUMENT", "top_p", lambda: model.generate("the", top_p=1.5))
refused("PARD_INVALID_ARGUMENT", "99999", lambda: model.generate("the", banned=[99999]))
try:
    model.generate("the", heat=1.0)
except TypeError as error:
    assert "heat" in str(error)
else:
    raise AssertionError("an option that there is not")

stop = answer.text[len(answer.text) // 2 :][:3]
cut = model.generate(question, max_tokens=max_tokens, stop=stop)
assert cut.text == answer.text[: answer.text.index(stop)] and cut.finish == "stop", cut.text
held = model.generate(question, max_tokens=max_tokens, min_tokens=max_tokens, stop=stop)
assert len(held.tokens) == max_tokens > len(cut.tokens) and held.text.startswith(cut.text + stop), held.text
assert model.generate("the", raw=True, max_tokens=4).text != model.generate("the", max_tokens=4).text

stream = model.stream(question, max_tokens=max_tokens)
stream.round()
stream.cancel()
list(stream)
assert stream.finish == "cancelled" and stream.statistics["finish"] == "cancelled"

# A closed stream says what it has, and its session serves the next answer.
with model.stream(question, max_tokens=max_tokens, method="vsd") as stream:
    begun = stream.round() + stream.round()
assert stream.finish == "cancelled" and answer.text.startswith(begun) and list(stream) == [], (stream.finish, begun)
assert answer.tokens[: len(stream.tokens)] == stream.tokens and stream.statistics["answer_tokens"] == len(stream.tokens)
idle = len(model._idle)
assert model.generate(question, max_tokens=max_tokens, method="vsd").text == answer.text and len(model._idle) == idle

# Conversations in OpenAI's form.
conversation = [{"role": "user", "content": [{"type": "text", "text": question[:4]}, {"type": "text", "text": question[4:]}]}]
whole = model.chat(conversation, max_completion_tokens=max_tokens)
[choice] = whole["choices"]
assert whole["object"] == "chat.completion" and whole["model"] == "target" and whole["id"], whole
assert choice["message"] == {"role": "assistant", "content": answer.text} and choice["finish_reason"] == "length", choice
assert whole["usage"]["completion_tokens"] == len(answer.tokens), whole["usage"]
chunks = list(model.chat(conversation, max_tokens=max_tokens, stream=True))
deltas = [chunk["choices"][0]["delta"] for chunk in chunks]
assert {chunk["object"] for chunk in chunks} == {"chat.completion.chunk"} and deltas[0]["role"] == "assistant", chunks
assert "".join(delta.get("content", "") for delta in deltas) == answer.text and len(chunks) > 3, deltas
assert chunks[-1]["usage"] == whole["usage"] and chunks[-1]["choices"][0]["finish_reason"] == "length", chunks[-1]
form = {"type": "json_schema", "json_schema": {"name": "a", "schema": {"const": {"a": [1, 2]}}}}
said = model.chat(conversation, max_tokens=max_tokens, response_format=form)["choices"][0]
assert said["message"]["content"] == '{"a": [1, 2]}', said
assert model.chat(conversation, stop=answer.text[:2])["choices"][0]["finish_reason"] == "stop"
for part, message in [("image_url", {"role": "user", "content": [{"type": "image_url"}]}), ("grammar", None)]:
    try:
        model.chat([message or {"role": "user", "content": "the"}], response_format={"type": part if not message else "text"})
    except ValueError as error:
        assert part in str(error), error
    else:
        raise AssertionError(f"{part} is not supported")

# A closed model gives its memory back, but for the answers that are being written.
with pard.Model(target, context=256) as short:
    open_stream = short.stream(question, max_tokens=max_tokens)
assert "".join(open_stream) == answer.text
try:
    short.generate(question)
except ValueError as error:
    assert "closed" in str(error)
else:
    raise AssertionError("a closed model answers")

# A stream that nobody reads to its end disturbs no other; several threads share the model.
model.stream(question).round()
texts = []
threads = [threading.Thread(target=lambda: texts.append(str(model.generate(question, max_tokens=max_tokens)))) for _ in range(3)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
assert texts == [answer.text] * 3, texts

refused("PARD_BAD_PROMPT", "empty", lambda: model.generate("", raw=True))
refused("PARD_BAD_PROMPT", "256", lambda: model.generate("the " * 300, raw=True))
try:
    model.generate("a\0b")
except ValueError:
    pass
else:
    raise AssertionError("a zero byte ends a text early")

# What the command line ends with a line break.
sys.stdout.buffer.write((answer.text + "\n").encode())
