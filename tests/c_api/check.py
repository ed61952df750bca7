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
    pard._LoadOptions: 6,
    pard._Message: 2,
    pard._SessionOptions: 4,
    pard._AnswerOptions: 5,
    pard._Round: 9,
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
assert pard.version()

answer = model.generate(question, max_tokens=max_tokens)
assert answer.statistics["method"] == "pard" and len(answer.tokens) == answer.statistics["answer_tokens"]

# A stream is the same text in pieces, whoever proposes.
for method in ["ar", "vsd", "pard"]:
    stream = model.stream([{"role": "user", "content": question}], max_tokens=max_tokens, method=method, drafts=3)
    pieces = list(stream)
    assert "".join(pieces) == answer.text and len(pieces) > 1, (method, pieces, answer.text)
    assert stream.tokens == answer.tokens and stream.finish == answer.finish
    assert stream.statistics["method"] == method and sum(stream.statistics["accepted"]) <= sum(stream.statistics["proposed"])

stop = answer.text[len(answer.text) // 2 :][:3]
cut = model.generate(question, max_tokens=max_tokens, stop=stop)
assert cut.text == answer.text[: answer.text.index(stop)] and cut.finish == "stop", cut.text
assert model.generate("the", raw=True, max_tokens=4).text != model.generate("the", max_tokens=4).text

stream = model.stream(question, max_tokens=max_tokens)
stream.round()
stream.cancel()
list(stream)
assert stream.finish == "cancelled" and stream.statistics["finish"] == "cancelled"

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
