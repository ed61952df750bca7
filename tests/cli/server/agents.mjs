// Clients of npm against a server: structured answers, tools and streams, as each of them asks for them. The first argument is
// a folder that the packages are installed in, the second the server's URL, the others are the clients to try. Prints nothing;
// an assertion that fails says what is wrong.

import assert from "node:assert/strict";
import { createRequire } from "node:module";
import { join } from "node:path";
import { pathToFileURL } from "node:url";

const [folder, server, ...clients] = process.argv.slice(2);
const packages = createRequire(join(folder, "package.json"));
const load = (name) => import(pathToFileURL(packages.resolve(name)));
const { z } = await load("zod");

const url = `${server}/v1`;
const PROMPT = "Describe a stone.";
const Part = z.strictObject({ size: z.enum(["small", "large"]), count: z.int().min(0).max(99) });
const Stone = z.strictObject({ name: z.string().max(8), parts: z.array(Part).min(1).max(2) });

const tests = {
  async openai() {
    const { default: OpenAI } = await load("openai");
    const { zodFunction, zodResponseFormat, zodTextFormat } = await load("openai/helpers/zod");
    const client = new OpenAI({ baseURL: url, apiKey: "none", maxRetries: 0 });
    const messages = [{ role: "user", content: PROMPT }];
    const question = { model: "any", messages, max_tokens: 200 };
    const { chat, responses } = client;

    const format = { response_format: zodResponseFormat(Stone, "stone") };
    const { parsed } = (await chat.completions.parse({ ...question, ...format })).choices[0].message;
    assert.deepEqual(Stone.parse(parsed), parsed);
    const [free] = (await chat.completions.create({ ...question, response_format: { type: "json_object" } })).choices;
    assert(free.finish_reason === "length" || typeof JSON.parse(free.message.content) === "object");

    // A stream with its helper says the same, piece by piece.
    let text = "";
    const stream = chat.completions.stream({ ...question, ...format }).on("content", (piece) => (text += piece));
    assert.deepEqual((await stream.finalChatCompletion()).choices[0].message.parsed, parsed);
    assert.deepEqual(JSON.parse(text), parsed);
    const counted = { ...question, max_tokens: 8, stream: true, stream_options: { include_usage: true } };
    let last;
    for await (const chunk of await chat.completions.create(counted)) last = chunk;
    assert.equal(last.usage.completion_tokens, 8);

    const tool = zodFunction({ name: "weigh", description: "Weighs it.", parameters: Stone });
    const one = { tools: [tool], tool_choice: "required", parallel_tool_calls: false };
    const called = (await chat.completions.parse({ ...question, ...one })).choices[0];
    assert.equal(called.finish_reason, "tool_calls");
    const call = called.message.tool_calls[0].function;
    assert.deepEqual(Stone.parse(call.parsed_arguments), call.parsed_arguments);
    const { choices } = await chat.completions.stream({ ...question, ...one }).finalChatCompletion();
    assert.equal(choices[0].message.tool_calls[0].function.arguments, call.arguments);
    // The helper calls the function, and the model answers to what it says.
    let weighed = 0;
    const runnable = { ...tool, function: { ...tool.function, function: () => `${++weighed} kg`, parse: JSON.parse } };
    const named = { tools: [runnable], tool_choice: { type: "function", function: { name: "weigh" } } };
    await chat.completions.runTools({ ...question, ...named }).done();
    assert.equal(weighed, 1);

    const asked = { model: "any", input: PROMPT, max_output_tokens: 200 };
    const answer = await responses.parse({ ...asked, text: { format: zodTextFormat(Stone, "stone") } });
    assert.deepEqual(Stone.parse(answer.output_parsed), answer.output_parsed);
    let streamed = "";
    const events = responses.stream({ ...asked, max_output_tokens: 12 });
    for await (const event of events) streamed += event.type === "response.output_text.delta" ? event.delta : "";
    assert.equal((await events.finalResponse()).output_text, streamed);
    await assert.rejects(chat.completions.create({ ...question, temperature: -1 }), { status: 400, param: "temperature" });
  },

  async ai() {
    const { generateText, jsonSchema, Output, stepCountIs, streamText, tool } = await load("ai");
    const { createOpenAICompatible } = await load("@ai-sdk/openai-compatible");
    const options = { name: "pard", baseURL: url, includeUsage: true, supportsStructuredOutputs: true };
    const provider = createOpenAICompatible(options);
    const question = { model: provider("any"), prompt: PROMPT, maxOutputTokens: 200, maxRetries: 0 };

    const { output } = await generateText({ ...question, output: Output.object({ schema: Stone }) });
    assert.deepEqual(Stone.parse(output), output);
    const stream = streamText({ ...question, maxOutputTokens: 12 });
    let text = "";
    for await (const piece of stream.textStream) text += piece;
    assert.equal(text, (await generateText({ ...question, maxOutputTokens: 12 })).text);
    assert.equal((await stream.usage).outputTokens, 12);

    let weighed = 0;
    const weigh = tool({ description: "Weighs it.", inputSchema: Stone, execute: async () => `${++weighed} kg` });
    const alone = { pard: { parallel_tool_calls: false } };
    const one = { tools: { weigh }, toolChoice: "required", stopWhen: stepCountIs(1), providerOptions: alone };
    const [call] = (await generateText({ ...question, ...one })).toolCalls;
    assert.equal(call.toolName, "weigh");
    assert.deepEqual(Stone.parse(call.input), call.input);
    for await (const part of streamText({ ...question, ...one }).fullStream) assert.notEqual(part.type, "error", part.error);
    assert.equal(weighed, 2);
    // Plain schemas are taken as well.
    const properties = { a: { type: "boolean" } };
    const schema = jsonSchema({ type: "object", properties, required: ["a"], additionalProperties: false });
    assert.equal(typeof (await generateText({ ...question, output: Output.object({ schema }) })).output.a, "boolean");
  },
};

for (const client of clients) await tests[client]();
