"""Language models on any GPU, from Python: one file over the C library, with nothing but the standard library.

    import pard

    model = pard.Model("smollm2")
    for piece in model.stream("Why is the sky blue?", max_tokens=64):
        print(piece, end="", flush=True)

    answer = model.generate([{"role": "user", "content": "Name three colours."}])
    print(answer.text, answer.statistics["tokens_per_second"])

The library, libpard.so (.dylib, pard.dll), is looked for where PARD_LIBRARY says, beside this file, as wheels have it, in the
folder above, in ../lib from here, as `./run stage` lays it out, and then where the system keeps its libraries. `pard.h` is the
manual of all that lies below; this file adds no behaviour of its own but `Model.chat`, which has the form of OpenAI's clients.
"""

from __future__ import annotations

import ctypes
import ctypes.util
import json
import os
import pathlib
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from ctypes import POINTER, byref, c_char_p, c_double, c_float, c_int32, c_size_t, c_uint32, c_uint64, c_void_p
from typing import Any, Literal, Union, overload

__all__ = ["Answer", "Error", "Model", "Stream", "version"]

METHODS = {"best": 0, "ar": 1, "vsd": 2, "pard": 3, "ngram": 4}
ACCEPTANCES = {"noise": 0, "rejection": 1}
FINISHES = [None, "stop", "length", "context", "cancelled", "failed"]
CHOICES = {None: 0, True: 1, False: 2}

Prompt = Union[str, Sequence[Mapping[str, str]]]
Logprob = tuple[float, list[tuple[int, float]]]


class Error(Exception):
    """What the library says. `status` is its name in pard.h, such as "PARD_NO_MODEL"."""

    def __init__(self, status: str, message: str) -> None:
        super().__init__(message)
        self.status = status


class _Sized(ctypes.Structure):
    """A struct that begins with its size; what is not named is zero, the default."""

    def __init__(self, **fields):
        super().__init__(size=ctypes.sizeof(type(self)), **fields)


class _DeviceOptions(_Sized):
    _fields_ = [("size", c_size_t), ("device", c_char_p), ("backend", c_char_p)]


_Progress = ctypes.CFUNCTYPE(None, c_char_p, c_uint64, c_uint64, c_void_p)


class _LoadOptions(_Sized):
    _fields_ = [
        ("size", c_size_t),
        ("weights", c_int32),
        ("cache", c_int32),
        ("products", c_int32),
        ("mask_token", POINTER(c_uint32)),
        ("progress", _Progress),
        ("user", c_void_p),
        ("target_states", c_int32),
    ]


class _Message(ctypes.Structure):
    _fields_ = [("role", c_char_p), ("content", c_char_p)]


class _SessionOptions(_Sized):
    _fields_ = [
        ("size", c_size_t),
        ("method", c_int32),
        ("drafts", c_int32),
        ("context", c_size_t),
        ("run_ahead", c_int32),
        ("acceptance", c_int32),
        ("ngram_longest", c_size_t),
        ("ngram_shortest", c_size_t),
        ("with_ngrams", c_int32),
    ]


class _TokenBias(ctypes.Structure):
    _fields_ = [("token", c_uint32), ("bias", c_float)]


class _AnswerOptions(_Sized):
    _fields_ = [
        ("size", c_size_t),
        ("max_tokens", c_size_t),
        ("stop", POINTER(c_char_p)),
        ("stop_count", c_size_t),
        ("thinking", c_int32),
        ("temperature", c_float),
        ("seed", c_uint64),
        ("top_k", c_size_t),
        ("top_p", c_float),
        ("min_p", c_float),
        ("repetition_penalty", c_float),
        ("presence_penalty", c_float),
        ("frequency_penalty", c_float),
        ("logit_bias", POINTER(_TokenBias)),
        ("logit_bias_count", c_size_t),
        ("banned", POINTER(c_uint32)),
        ("banned_count", c_size_t),
        ("logprobs", c_int32),
        ("top_logprobs", c_size_t),
        ("json_schema", c_char_p),
        ("regex", c_char_p),
        ("grammar", c_char_p),
        ("choices", POINTER(c_char_p)),
        ("choice_count", c_size_t),
        ("min_tokens", c_size_t),
    ]


class _LikelyToken(ctypes.Structure):
    _fields_ = [("token", c_uint32), ("logprob", c_float)]


class _TokenLogprobs(ctypes.Structure):
    _fields_ = [
        ("token", c_uint32),
        ("logprob", c_float),
        ("top", POINTER(_LikelyToken)),
        ("top_count", c_size_t),
    ]


class _Round(_Sized):
    _fields_ = [
        ("size", c_size_t),
        ("text", c_void_p),
        ("text_length", c_size_t),
        ("tokens", POINTER(c_uint32)),
        ("token_count", c_size_t),
        ("proposed", c_size_t),
        ("accepted", c_size_t),
        ("seconds", c_double),
        ("finish", c_int32),
        ("logprobs", POINTER(_TokenLogprobs)),
        ("logprob_count", c_size_t),
    ]


class _Statistics(_Sized):
    _fields_ = [
        ("size", c_size_t),
        ("prompt_tokens", c_size_t),
        ("answer_tokens", c_size_t),
        ("committed_tokens", c_size_t),
        ("rounds", c_size_t),
        ("tokens_per_round", c_double),
        ("prefill_seconds", c_double),
        ("decode_seconds", c_double),
        ("tokens_per_second", c_double),
        ("mean_drafts", c_double),
        ("proposed", c_size_t * 16),
        ("accepted", c_size_t * 16),
        ("method", c_int32),
        ("finish", c_int32),
    ]


def _load():
    name = {"darwin": "libpard.dylib", "win32": "pard.dll"}.get(sys.platform, "libpard.so")
    here = pathlib.Path(__file__).resolve().parent
    named = os.environ.get("PARD_LIBRARY")
    candidates = [named] if named else [here / name, here.parent / name, here.parent / "lib" / name]
    found = next((str(path) for path in candidates if os.path.exists(path)), None)
    found = found or named or ctypes.util.find_library("pard")
    if found is None:
        raise ImportError(f"{name} is not to be found; name it by PARD_LIBRARY, or install the wheel: pip install pard-llm")
    library = ctypes.CDLL(found)
    signatures = {
        "pard_version": (c_char_p, []),
        "pard_status_name": (c_char_p, [c_int32]),
        "pard_error_new": (c_void_p, []),
        "pard_error_message": (c_char_p, [c_void_p]),
        "pard_device_open": (c_int32, [POINTER(_DeviceOptions), POINTER(c_void_p), c_void_p]),
        "pard_device_name": (c_char_p, [c_void_p]),
        "pard_model_load": (c_int32, [c_void_p, c_char_p, POINTER(_LoadOptions), POINTER(c_void_p), c_void_p]),
        "pard_draft_load": (c_int32, [c_void_p, c_char_p, POINTER(_LoadOptions), POINTER(c_void_p), c_void_p]),
        "pard_model_name": (c_char_p, [c_void_p]),
        "pard_model_notice": (c_char_p, [c_void_p, c_size_t]),
        "pard_draft_notice": (c_char_p, [c_void_p, c_size_t]),
        "pard_model_context": (c_size_t, [c_void_p]),
        "pard_model_has_chat_template": (c_int32, [c_void_p]),
        "pard_session_new": (
            c_int32,
            [c_void_p, c_void_p, POINTER(_SessionOptions), POINTER(c_void_p), c_void_p],
        ),
        "pard_session_start": (c_int32, [c_void_p, c_char_p, POINTER(_AnswerOptions), c_void_p]),
        "pard_session_start_chat": (
            c_int32,
            [c_void_p, POINTER(_Message), c_size_t, POINTER(_AnswerOptions), c_void_p],
        ),
        "pard_session_round": (c_int32, [c_void_p, POINTER(_Round), c_void_p]),
        "pard_session_cancel": (None, [c_void_p]),
        "pard_session_statistics": (c_int32, [c_void_p, POINTER(_Statistics), c_void_p]),
    }
    for handle in ["error", "device", "model", "draft", "session"]:
        signatures[f"pard_{handle}_free"] = (None, [c_void_p])
    for function, (result, arguments) in signatures.items():
        getattr(library, function).restype = result
        getattr(library, function).argtypes = arguments
    return library


_library = _load()


def version() -> str:
    """The library's version."""
    return _library.pard_version().decode()


def _call(function, *arguments):
    """Calls a function that can fail."""
    error = _library.pard_error_new()
    try:
        status = function(*arguments, error)
        if status != 0:
            message = _library.pard_error_message(error).decode()
            raise Error(_library.pard_status_name(status).decode(), message)
    finally:
        _library.pard_error_free(error)


def _encode(text):
    # C ends a text at its first zero byte; to cut one short silently would be worse than to refuse it.
    encoded = text.encode()
    if b"\0" in encoded:
        raise ValueError("a text for the model holds a zero byte")
    return encoded


class _Handle:
    """What the library gave; it is given back when nobody uses it any more."""

    def __init__(self, kind):
        self.pointer = c_void_p()
        self._free = getattr(_library, f"pard_{kind}_free")

    def close(self):
        if self.pointer:
            self._free(self.pointer)
            self.pointer.value = None

    __del__ = close


_WEIGHTS = ["compact", "f32", "bf16", "q8_0", "q4_k"]  # as pard.h numbers them


def _load_options(weights, cache, products, progress, mask_token=None, target_states="auto"):
    options = _LoadOptions(weights=_WEIGHTS.index(weights))
    options.target_states = {"auto": 0, "off": 1}[target_states]
    options.cache = {"f16": 0, "f32": 1, "q8_0": 2}[cache]
    options.products = {"plain": 0, "cooperative": 1}[products]
    if mask_token is not None:
        options.mask_token = ctypes.pointer(c_uint32(mask_token))
    if progress is not None:
        options.progress = _Progress(lambda what, done, total, _: progress(what.decode(), done, total))
    return options


def _sampling(
    logit_bias=(), banned=(), logprobs=None, json_schema=None, regex=None, grammar=None, choices=(), **numbers
):
    """The fields of _AnswerOptions that say how tokens are chosen."""
    known = ["temperature", "seed", "top_k", "top_p", "min_p", "repetition_penalty", "presence_penalty", "frequency_penalty"]
    known.append("min_tokens")
    for name in numbers:
        if name not in known:
            others = "logit_bias, banned, logprobs, json_schema, regex, grammar and choices"
            raise TypeError(f"there is no option {name!r}; there are {', '.join(known)}, {others}")
    biases = [_TokenBias(token, bias) for token, bias in dict(logit_bias).items()]
    fields = {
        "logit_bias": (_TokenBias * len(biases))(*biases),
        "logit_bias_count": len(biases),
        "banned": (c_uint32 * len(banned))(*banned),
        "banned_count": len(banned),
        "choices": (c_char_p * len(choices))(*map(_encode, choices)),
        "choice_count": len(choices),
    }
    if json_schema is not None and not isinstance(json_schema, str):
        json_schema = json.dumps(json_schema)
    for name, text in [("json_schema", json_schema), ("regex", regex), ("grammar", grammar)]:
        if text is not None:
            fields[name] = _encode(text)
    if logprobs is not None:
        fields.update(logprobs=CHOICES[True], top_logprobs=logprobs)
    return {**numbers, **fields}


class Model:
    """A model on a device, and the sessions that run on it.

    `name` is a folder, a .gguf file, a repository of the Hugging Face hub ("owner/name", "owner/name:Q4_K_M",
    "owner/name@revision" or its address), or "smollm2". `draft` names a model that
    proposes tokens, "itself" the model itself. A draft made for it reads its target's hidden states, unless `target_states` is
    "off". `device` is a part of the adapter's name, or its index. `progress` is called with what is loaded, and how many of
    how many bytes are.

    Any number of threads may use a model: each answer being written has a session of its own. Its memory is given back by
    `close`, at the end of a `with` block, or when nobody uses it any more.
    """

    def __init__(
        self,
        name: str | os.PathLike[str],
        draft: str | os.PathLike[str] | None = None,
        *,
        mask_token: int | None = None,
        target_states: str = "auto",
        device: str | int | None = None,
        backend: str | None = None,
        context: int = 0,
        weights: str = "compact",
        cache: str = "f16",
        products: str = "plain",
        progress: Callable[[str, int, int], object] | None = None,
    ) -> None:
        self.context = context
        self._idle: list[Any] | None = []  # none, once the model is closed
        self._lock = threading.Lock()
        encoded = lambda text: None if text is None else _encode(str(text))
        self._device = _Handle("device")
        options = _DeviceOptions(device=encoded(device), backend=encoded(backend))
        _call(_library.pard_device_open, byref(options), byref(self._device.pointer))
        self._model = _Handle("model")
        options = _load_options(weights, cache, products, progress)
        arguments = (self._device.pointer, encoded(os.fspath(name)), byref(options), byref(self._model.pointer))
        _call(_library.pard_model_load, *arguments)
        self._draft = _Handle("draft")
        if draft is not None:
            options = _load_options(weights, cache, products, progress, mask_token, target_states)
            draft = None if draft == "itself" else os.fspath(draft)
            arguments = (self._model.pointer, encoded(draft), byref(options), byref(self._draft.pointer))
            _call(_library.pard_draft_load, *arguments)

    def __enter__(self) -> Model:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Gives the memory of model and draft back, as soon as the answers that are being written are done or closed."""
        with self._lock:
            self._idle = None
        for handle in [self._draft, self._model, self._device]:
            handle.close()

    @property
    def name(self) -> str:
        """What to call the model."""
        return _library.pard_model_name(self._model.pointer).decode()

    @property
    def notices(self) -> list[str]:
        """What to know of how the model and its draft were loaded, in a text each."""
        given = []
        for function, handle in [(_library.pard_model_notice, self._model), (_library.pard_draft_notice, self._draft)]:
            index = 0
            while (notice := function(handle.pointer, index)) is not None:
                given.append(notice.decode())
                index += 1
        return given

    @property
    def device(self) -> str:
        """The adapter that it runs on."""
        return _library.pard_device_name(self._device.pointer).decode()

    def stream(
        self,
        prompt: Prompt,
        *,
        max_tokens: int = 256,
        stop: str | Iterable[str] = (),
        raw: bool = False,
        thinking: bool | None = None,
        method: str = "best",
        drafts: int = 0,
        acceptance: str = "noise",
        with_ngrams: bool = False,
        **sampling: Any,
    ) -> Stream:
        """Begins an answer, and gives a Stream of its text.

        `prompt` is a text, which is put into the model's chat template where it has one unless `raw` is true; or a
        conversation, a list of dictionaries with `role` and `content`. `drafts` is K, tokens proposed each round; 0
        chooses it. `with_ngrams` lets n-grams propose in the draft's place in rounds in which they promise more.

        What else may be named says how tokens are chosen, as pard_answer_options in pard.h does: `temperature`, `seed`,
        `top_k`, `top_p`, `min_p`, `repetition_penalty`, `presence_penalty`, `frequency_penalty`, `logit_bias` (a dictionary
        from tokens to what is added to their logits), `banned` (tokens), and `logprobs`: of how many of the likeliest tokens
        the log-probabilities are wanted beside those of the answer's own tokens; 0: of these alone. One of `json_schema` (JSON
        text, or what json.dumps makes it of), `regex`, `grammar` (GBNF or Lark) and `choices` (texts) gives the answer's form.
        `min_tokens` is the least number of the answer's tokens.
        """
        kind = (METHODS[method], drafts, ACCEPTANCES[acceptance], CHOICES[with_ngrams])
        return Stream(self, prompt, max_tokens, stop, raw, thinking, kind, sampling)

    def generate(self, prompt: Prompt, **options: Any) -> Answer:
        """The whole Answer. Options are those of `stream`."""
        with self.stream(prompt, **options) as stream:
            text = "".join(stream)
        return Answer(text, stream.tokens, stream.finish, stream.statistics, stream.logprobs)

    @overload
    def chat(
        self, messages: Sequence[Mapping[str, Any]], *, stream: Literal[False] = False, **options: Any
    ) -> dict[str, Any]: ...

    @overload
    def chat(
        self, messages: Sequence[Mapping[str, Any]], *, stream: Literal[True], **options: Any
    ) -> Iterator[dict[str, Any]]: ...

    def chat(
        self,
        messages: Sequence[Mapping[str, Any]],
        *,
        stream: bool = False,
        max_completion_tokens: int | None = None,
        response_format: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> dict[str, Any] | Iterator[dict[str, Any]]:
        """The answer to a conversation as OpenAI's interface has it: a `chat.completion`, or with `stream` an iterator of
        `chat.completion.chunk`, whose last one holds `usage`.

        A message's `content` is a text, or a list of parts of the type `text`. `response_format` has the type `text`,
        `json_object` or `json_schema`. Other options are those of `stream` above. `pard serve` is the whole interface.
        """
        if max_completion_tokens is not None:
            options["max_tokens"] = max_completion_tokens
        form = response_format or {"type": "text"}
        kind = form["type"]
        if kind == "json_object":
            options["json_schema"] = {"type": "object"}
        elif kind == "json_schema":
            options["json_schema"] = form["json_schema"]["schema"]
        elif kind != "text":
            raise ValueError(f"response_format has no type {kind!r}; there are text, json_object and json_schema")
        turns = [{"role": turn["role"], "content": _text_of(turn["content"])} for turn in messages]
        chunks = self._chunks(self.stream(turns, **options))
        if stream:
            return chunks
        text, last = "", {}
        for last in chunks:
            text += last["choices"][0]["delta"].get("content", "")
        choice = {
            "index": 0,
            "message": {"role": "assistant", "content": text},
            "finish_reason": last["choices"][0]["finish_reason"],
        }
        return {**last, "object": "chat.completion", "choices": [choice]}

    def _chunks(self, answer):
        head = {"id": f"chatcmpl-{uuid.uuid4().hex}", "object": "chat.completion.chunk", "created": int(time.time())}
        head["model"] = self.name
        choice = lambda delta, finish=None: [{"index": 0, "delta": delta, "finish_reason": finish}]
        with answer:
            yield {**head, "choices": choice({"role": "assistant", "content": ""})}
            for text in answer:
                yield {**head, "choices": choice({"content": text})}
            read, written = answer.statistics["prompt_tokens"], answer.statistics["answer_tokens"]
            usage = {"prompt_tokens": read, "completion_tokens": written, "total_tokens": read + written}
            finish = "stop" if answer.finish == "stop" else "length"
            yield {**head, "choices": choice({}, finish), "usage": usage}

    def _session(self, kind):
        """A session for one answer, used before if one of the same kind is idle."""
        with self._lock:
            if self._idle is None:
                raise ValueError("the model is closed")
            for index, (idle, session) in enumerate(self._idle):
                if idle == kind:
                    del self._idle[index]
                    return session
            session = _Handle("session")
            method, drafts, acceptance, with_ngrams = kind
            options = _SessionOptions(
                method=method, drafts=drafts, acceptance=acceptance, context=self.context, with_ngrams=with_ngrams
            )
            arguments = (self._model.pointer, self._draft.pointer, byref(options), byref(session.pointer))
            _call(_library.pard_session_new, *arguments)
            return session


def _text_of(content):
    """The text of a message's content, which OpenAI's clients may give in parts."""
    if isinstance(content, str):
        return content
    for part in content:
        if part["type"] != "text":
            raise ValueError(f"a message has a part of the type {part['type']!r}; models read text alone")
    return "".join(part["text"] for part in content)


class Answer:
    """What a model wrote: `text`, `tokens`, why it ended (`finish`), what it cost (`statistics`), and `logprobs`, if they
    were asked for: of each token a pair, its log-probability and a list of the likeliest tokens with theirs."""

    def __init__(
        self, text: str, tokens: list[int], finish: str, statistics: dict[str, Any], logprobs: list[Logprob]
    ) -> None:
        self.text, self.tokens, self.finish, self.statistics = text, tokens, finish, statistics
        self.logprobs = logprobs

    def __str__(self) -> str:
        return self.text


class Stream:
    """An answer being written: an iterator over its text. `tokens`, `logprobs` and `finish` follow it. One that is not read
    to its end is ended by `close`, or at the end of a `with` block."""

    tokens: list[int]
    logprobs: list[Logprob]
    finish: str | None

    def __init__(self, model, prompt, max_tokens, stop, raw, thinking, kind, sampling):
        self.tokens, self.logprobs, self.finish = [], [], None
        self._model, self._kind = model, kind
        if max_tokens < 1:
            raise ValueError("max_tokens must be 1 at least")
        stop = [_encode(text) for text in ([stop] if isinstance(stop, str) else stop)]
        stops = (c_char_p * len(stop))(*stop)
        sampling = _sampling(**sampling)
        options = _AnswerOptions(
            max_tokens=max_tokens, stop=stops, stop_count=len(stop), thinking=CHOICES[thinking], **sampling
        )
        if isinstance(prompt, str) and not raw and _library.pard_model_has_chat_template(model._model.pointer):
            prompt = [{"role": "user", "content": prompt}]
        self._session = model._session(kind)
        if isinstance(prompt, str):
            _call(_library.pard_session_start, self._session.pointer, _encode(prompt), byref(options))
        else:
            pairs = [(_encode(turn["role"]), _encode(turn["content"])) for turn in prompt]
            messages = (_Message * len(pairs))(*pairs)
            arguments = (self._session.pointer, messages, len(pairs), byref(options))
            _call(_library.pard_session_start_chat, *arguments)

    def __iter__(self) -> Stream:
        return self

    def __enter__(self) -> Stream:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Ends the answer where it is, and lets another have its session. The thread that reads the answer calls it, others
        `cancel`."""
        if self.finish is None:
            self._end(self.statistics["finish"] or "cancelled")

    def _end(self, finish):
        self._statistics = {**self.statistics, "finish": finish}
        self.finish = finish
        session, self._session = self._session, None
        with self._model._lock:
            if self._model._idle is not None:
                self._model._idle.append((self._kind, session))

    def __next__(self) -> str:
        """The next text, after as many rounds as it takes to make some certain."""
        while self.finish is None:
            text = self.round()
            if text:
                return text
        raise StopIteration

    def round(self) -> str:
        """Writes one round more and gives its text, which may be empty."""
        if self.finish is not None:
            return ""
        found = _Round()
        _call(_library.pard_session_round, self._session.pointer, byref(found))
        self.tokens += found.tokens[: found.token_count]
        for one in found.logprobs[: found.logprob_count]:
            self.logprobs.append((one.logprob, [(likely.token, likely.logprob) for likely in one.top[: one.top_count]]))
        text = ctypes.string_at(found.text, found.text_length).decode()
        if found.finish != 0:
            self._end(FINISHES[found.finish])
        return text

    def cancel(self) -> None:
        """Ends the answer within one round; from any thread."""
        session = self._session
        if session is not None:
            _library.pard_session_cancel(session.pointer)

    @property
    def statistics(self) -> dict[str, Any]:
        """Counts and times so far, by their names in pard.h; `proposed` and `accepted` by position."""
        if self._session is None:
            return self._statistics
        found = _Statistics()
        _call(_library.pard_session_statistics, self._session.pointer, byref(found))
        numbers = {name: getattr(found, name) for name, _ in found._fields_ if name != "size"}
        positions = max((index + 1 for index, count in enumerate(found.proposed) if count), default=0)
        for name in ["proposed", "accepted"]:
            numbers[name] = list(numbers[name])[:positions]
        numbers["method"] = {number: name for name, number in METHODS.items()}[found.method]
        numbers["finish"] = FINISHES[found.finish]
        return numbers
