// Asks the server for lines of JSON that come one by one.

/** Send JSON and hear each line of the answer; what the server refuses becomes an Error with its one line. */
export async function heardLines(address, body, signal, hear) {
  const options = { method: "POST", signal, headers: { "content-type": "application/json" }, body: JSON.stringify(body) };
  const response = await fetch(address, options).catch((error) => {
    throw error.name === "AbortError" ? error : new Error("the server does not answer; is `unweave serve` still running?");
  });
  if (!response.ok) {
    const found = await response.json().catch(() => ({}));
    throw new Error(found.error ?? `${response.status} ${response.statusText}`);
  }
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (let part = await reader.read(); !part.done; part = await reader.read()) {
    const lines = (rest + part.value).split("\n");
    rest = lines.pop();
    for (const line of lines) hear(JSON.parse(line));
  }
}
