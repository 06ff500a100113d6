// Asks the server. What it refuses becomes an Error whose message is the server's one line.

/** What the JSON twin of a page holds; by default the twin of this page with its query. */
export function twin(path = location.pathname, query = location.search) {
  return ask("GET", `${path === "/" ? "/index" : path.replace(/\/$/, "")}.json${query}`);
}

/** Send JSON and get JSON. */
export async function ask(method, address, body = undefined, signal = undefined) {
  const options = { method, signal, headers: { accept: "application/json" } };
  if (body !== undefined) {
    options.body = JSON.stringify(body);
    options.headers["content-type"] = "application/json";
  }
  const response = await answered(address, options);
  const found = await response.json().catch(() => ({ error: `${response.status} ${response.statusText}` }));
  if (!response.ok) throw new Error(found.error ?? `${response.status} ${response.statusText}`);
  return found;
}

async function answered(address, options) {
  try {
    return await fetch(address, options);
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Error("the server does not answer; is `unweave serve` still running?");
  }
}
