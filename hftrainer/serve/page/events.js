// Server-sent events from a fetch, which unlike EventSource sends headers.

// `body` is a ReadableStream of UTF-8; calls take(event, data) with data parsed as JSON.
export async function readEvents(body, take) {
  const reader = body.getReader();
  const decoder = new TextDecoder();
  let rest = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    const blocks = (rest + decoder.decode(value, { stream: true })).replaceAll("\r\n", "\n").split("\n\n");
    rest = blocks.pop();
    for (const block of blocks) {
      const { event, data } = fields(block);
      if (data) take(event, JSON.parse(data));
    }
  }
}

function fields(block) {
  const found = { event: "message", data: "" };
  for (const line of block.split("\n")) {
    const [, name, value] = /^(event|data): ?(.*)$/.exec(line) ?? [];
    if (name === "event") found.event = value;
    else if (name === "data") found.data += value;
  }
  return found;
}
