"""Clients of agents against a server: structured answers and tools, as each of them asks for them. The first argument is the
server's URL, the others are the clients to try. Prints nothing; an assertion that fails says what is wrong."""

import json
import sys
from enum import Enum

from pydantic import BaseModel, ConfigDict, Field

url, clients = f"{sys.argv[1]}/v1", sys.argv[2:]
PROMPT = "Describe a stone."


class Size(Enum):
    small = "small"
    large = "large"


class Part(BaseModel):
    model_config = ConfigDict(extra="forbid")
    size: Size
    count: int = Field(ge=0, le=99)


class Stone(BaseModel):
    """A stone and its parts."""

    model_config = ConfigDict(extra="forbid")
    name: str = Field(max_length=8)
    parts: list[Part] = Field(min_length=1, max_length=2)


TOOL = {"type": "function", "function": {"name": "weigh", "description": "Weighs it.", "parameters": Stone.model_json_schema()}}


def with_openai():
    import openai

    client = openai.OpenAI(base_url=url, api_key="none", max_retries=0, timeout=300)
    question = {"model": "any", "messages": [{"role": "user", "content": PROMPT}], "max_tokens": 200}
    parsed = client.chat.completions.parse(**question, response_format=Stone).choices[0].message.parsed
    assert isinstance(parsed, Stone), parsed
    schema = {"name": "stone", "strict": True, "schema": Stone.model_json_schema()}
    mode = {"type": "json_schema", "json_schema": schema}
    answer = client.chat.completions.create(**question, response_format=mode)
    assert Stone.model_validate_json(answer.choices[0].message.content) == parsed
    # Any object: an answer that is not cut off is one.
    free = client.chat.completions.create(**question, response_format={"type": "json_object"}).choices[0]
    assert free.finish_reason == "length" or isinstance(json.loads(free.message.content), dict), free
    for choice in ["required", {"type": "function", "function": {"name": "weigh"}}]:
        called = client.chat.completions.create(**question, tools=[TOOL], tool_choice=choice, parallel_tool_calls=False)
        assert called.choices[0].finish_reason == "tool_calls", called
        (call,) = called.choices[0].message.tool_calls
        assert call.function.name == "weigh" and Stone.model_validate_json(call.function.arguments)
    with client.chat.completions.stream(
        **question, tools=[TOOL], tool_choice="required", parallel_tool_calls=False
    ) as stream:
        calls = stream.get_final_completion().choices[0].message.tool_calls
    assert calls and Stone.model_validate_json(calls[0].function.arguments), calls
    # The call and its result go back, and no tool needs to be called.
    history = [
        *question["messages"],
        {"role": "assistant", "content": None, "tool_calls": [call.model_dump()]},
        {"role": "tool", "tool_call_id": call.id, "content": "12 kg"},
    ]
    after = client.chat.completions.create(model="any", messages=history, tools=[TOOL], max_tokens=8)
    assert after.choices[0].finish_reason in ["length", "stop", "tool_calls"], after


def with_openai_responses():
    import openai

    client = openai.OpenAI(base_url=url, api_key="none", max_retries=0, timeout=300)
    question = {"model": "any", "input": PROMPT, "max_output_tokens": 200}
    answer = client.responses.create(**{**question, "max_output_tokens": 12})
    assert answer.output_text and answer.status in ["incomplete", "completed"], answer
    streamed = client.responses.create(**{**question, "max_output_tokens": 12}, stream=True)
    assert "".join(event.delta for event in streamed if event.type == "response.output_text.delta") == answer.output_text
    parsed = client.responses.parse(**question, text_format=Stone).output_parsed
    assert isinstance(parsed, Stone), parsed
    with client.responses.stream(**question, text_format=Stone) as stream:
        assert stream.get_final_response().output_parsed == parsed
    tool = {"type": "function", **TOOL["function"], "strict": True}
    one = {"tools": [tool], "tool_choice": "required", "parallel_tool_calls": False}
    called = client.responses.create(**question, **one)
    (call,) = called.output
    assert call.name == "weigh" and Stone.model_validate_json(call.arguments), call
    with client.responses.stream(**question, **one) as stream:
        (same,) = stream.get_final_response().output
    assert same.arguments == call.arguments
    result = {"type": "function_call_output", "call_id": call.call_id, "output": "12 kg"}
    history = [{"role": "user", "content": PROMPT}, *called.output, result]
    after = client.responses.create(**{**question, "input": history, "max_output_tokens": 8}, tools=[tool])
    assert after.usage.output_tokens <= 8, after
    for refused in [{"previous_response_id": "resp_1"}, {"temperature": -1}]:
        try:
            client.responses.create(**question, **refused)
            raise AssertionError(refused)
        except openai.BadRequestError as error:
            assert error.param in refused, error


def with_anthropic():
    import anthropic

    client = anthropic.Anthropic(base_url=sys.argv[1], api_key="none", max_retries=0, timeout=300)
    question = {"model": "any", "messages": [{"role": "user", "content": PROMPT}]}
    answer = client.messages.create(**question, max_tokens=12)
    text = answer.content[0].text
    assert text and answer.stop_reason in ["max_tokens", "end_turn"], answer
    with client.messages.stream(**question, max_tokens=12) as stream:
        assert "".join(stream.text_stream) == text
        assert stream.get_final_message().stop_reason == answer.stop_reason
    tool = {"name": "weigh", "description": "Weighs it.", "input_schema": Stone.model_json_schema()}
    one = {"max_tokens": 200, "tools": [tool], "tool_choice": {"type": "any", "disable_parallel_tool_use": True}}
    called = client.messages.create(**question, **one)
    (call,) = called.content
    assert called.stop_reason == "tool_use" and Stone.model_validate(call.input), called
    with client.messages.stream(**question, **one) as stream:
        (same,) = stream.get_final_message().content
    assert same.input == call.input, same
    result = {"type": "tool_result", "tool_use_id": call.id, "content": "12 kg"}
    history = [
        *question["messages"],
        {"role": "assistant", "content": called.content},
        {"role": "user", "content": [result]},
    ]
    after = client.messages.create(model="any", messages=history, tools=[tool], max_tokens=8)
    count = client.messages.count_tokens(model="any", messages=history, tools=[tool]).input_tokens
    assert after.usage.input_tokens + after.usage.cache_read_input_tokens == count, after
    try:
        client.messages.create(**question, max_tokens=0)
        raise AssertionError("max_tokens 0")
    except anthropic.BadRequestError as error:
        assert error.body["error"]["type"] == "invalid_request_error", error


def with_instructor():
    import instructor
    import openai

    for mode in [instructor.Mode.TOOLS, instructor.Mode.JSON_SCHEMA]:
        client = instructor.from_openai(openai.OpenAI(base_url=url, api_key="none", max_retries=0, timeout=300), mode=mode)
        stone = client.chat.completions.create(
            model="any", messages=[{"role": "user", "content": PROMPT}], response_model=Stone, max_retries=0, max_tokens=200
        )
        assert isinstance(stone, Stone), stone


def with_pydantic_ai():
    from pydantic_ai import Agent, NativeOutput
    from pydantic_ai.models.openai import OpenAIChatModel
    from pydantic_ai.providers.openai import OpenAIProvider

    model = OpenAIChatModel("any", provider=OpenAIProvider(base_url=url, api_key="none"))
    for output in [Stone, NativeOutput(Stone)]:
        stone = Agent(model, output_type=output, model_settings={"max_tokens": 200}).run_sync(PROMPT).output
        assert isinstance(stone, Stone), stone


def with_langchain():
    from langchain_openai import ChatOpenAI

    model = ChatOpenAI(model="any", base_url=url, api_key="none", max_retries=0, max_tokens=200)
    for method in ["json_schema", "function_calling"]:
        stone = model.with_structured_output(Stone, method=method).invoke(PROMPT)
        assert isinstance(stone, Stone), stone
    called = model.bind_tools([TOOL], tool_choice="any", parallel_tool_calls=False).invoke(PROMPT)
    assert [call["name"] for call in called.tool_calls] and Stone.model_validate(called.tool_calls[0]["args"]), called


def with_litellm():
    import litellm

    question = {"model": "openai/any", "api_base": url, "api_key": "none", "max_tokens": 200, "num_retries": 0}
    question["messages"] = [{"role": "user", "content": PROMPT}]
    one = {"tools": [TOOL], "tool_choice": "required", "parallel_tool_calls": False}
    called = litellm.completion(**question, **one)
    assert Stone.model_validate_json(called.choices[0].message.tool_calls[0].function.arguments), called
    answer = litellm.completion(**question, response_format=Stone)
    assert Stone.model_validate_json(answer.choices[0].message.content), answer
    chunks = list(litellm.completion(**question, **one, stream=True))
    pieces = [call for chunk in chunks for call in chunk.choices[0].delta.tool_calls or []]
    assert Stone.model_validate_json("".join(piece.function.arguments or "" for piece in pieces if piece.index == 0)), pieces


for client in clients:
    globals()[f"with_{client}"]()
