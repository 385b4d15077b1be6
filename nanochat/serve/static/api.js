// What the server is asked. A stream of tokens is an async generator; leaving its loop, or the signal, stops it.

/** One JSON object for another. Throws an Error whose message is the server's own. */
export async function ask(path, body, signal) {
  const more = body && { method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify(body) };
  const response = await reach(path, { ...more, signal });
  return response.json();
}

let key = sessionStorage.getItem("nanochat.key");

async function reach(path, options) {
  let response;
  try {
    response = await fetch(path, { ...options, headers: { ...options.headers, ...(key && { authorization: `Bearer ${key}` }) } });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Error("The server does not answer. Is nanochat serve still running?");
  }
  if (response.ok) return response;
  if (response.status === 401) {
    // A server that others can reach asks for its key. It is kept until this tab is closed.
    key = prompt("The key of this server:")?.trim();
    if (key) {
      sessionStorage.setItem("nanochat.key", key);
      return reach(path, options);
    }
  }
  const told = await response.json().catch(() => null);
  const wait = response.status === 429 ? " Too many are asking at once: try again in a moment." : "";
  throw new Error((told?.error?.message ?? `The server answered ${response.status}.`) + wait);
}

/** The events of a stream (https://html.spec.whatwg.org/multipage/server-sent-events.html), as objects. */
async function* events(response) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let waiting = "";
  try {
    for (;;) {
      const { value, done } = await reader.read();
      if (done) return;
      waiting += value;
      for (let end; (end = waiting.indexOf("\n\n")) >= 0; waiting = waiting.slice(end + 2)) {
        const data = waiting.slice(0, end).split("\n").filter((line) => line.startsWith("data:"));
        const text = data.map((line) => line.slice(5).trimStart()).join("\n");
        if (text === "[DONE]") return;
        if (text) yield JSON.parse(text);
      }
    }
  } finally {
    reader.cancel().catch(() => {});
  }
}

/** The tokens of an answer as they come: { kind, id, text, sampled, p, entropy, choices, at }, last { finish, provenance }. */
export async function* stream(body, signal) {
  const response = await reach("v1/chat/completions", {
    method: "POST", signal, headers: { "content-type": "application/json" },
    body: JSON.stringify({ stream: true, ...body, nanochat: { alternatives: 5, ...body.nanochat } }),
  });
  for await (const event of events(response)) {
    if (event.error) throw new Error(event.error.message);
    const choice = event.choices?.[0];
    if (!choice) continue;
    const told = choice.delta?.nanochat ?? choice.nanochat;
    if (told && told.id !== undefined) {
      yield {
        kind: told.kind, id: told.id, text: told.text ?? choice.delta.content ?? "", sampled: told.sampled !== false,
        p: Math.exp(told.logprob ?? 0), entropy: told.entropy ?? 0, at: performance.now(),
        choices: told.alternatives ?? [],
      };
    }
    if (choice.finish_reason) yield { finish: told?.finish ?? choice.finish_reason, provenance: told?.provenance ?? null };
  }
}
