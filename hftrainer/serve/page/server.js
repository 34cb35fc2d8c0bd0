// The server's API: requests with the token, errors as sentences, and streams of events.

import { readEvents } from "./events.js";

export class Refused extends Error {
  constructor(status, { error = "unknown", message = `The server answered with status ${status}.` } = {}) {
    super(message);
    this.status = status;
    this.kind = error;
  }
}

export class Server {
  // `askToken()` promises a token, from the reader.
  constructor(askToken) {
    this.askToken = askToken;
    this.token = takeToken();
  }

  get(path) {
    return this.request(path).then((answer) => answer.json());
  }

  post(path, body) {
    const headers = { "Content-Type": "application/json" };
    return this.request(path, { method: "POST", body: JSON.stringify(body), headers }).then((answer) => answer.json());
  }

  remove(path) {
    return this.request(path, { method: "DELETE" });
  }

  // Calls take(event, data) with every event, until the stream ends.
  async events(path, take) {
    await readEvents((await this.request(path)).body, take);
  }

  blob(path) {
    return this.request(path).then((answer) => answer.blob());
  }

  socket(path) {
    const address = new URL(path, location.href);
    address.protocol = address.protocol.replace("http", "ws");
    if (this.token) address.searchParams.set("token", this.token); // a websocket has no headers
    return new WebSocket(address);
  }

  async request(path, { headers = {}, ...options } = {}) {
    const known = this.token ? { ...headers, Authorization: `Bearer ${this.token}` } : headers;
    const answer = await fetch(path, { ...options, headers: known }).catch(() => {
      throw new Refused(0, { error: "offline", message: "The server does not answer. Is hftrainer serve still running?" });
    });
    if (answer.ok) return answer;
    if (answer.status === 401) {
      this.token = keepToken(await this.askToken());
      return this.request(path, { headers, ...options });
    }
    throw new Refused(answer.status, await answer.json().catch(() => ({})));
  }
}

// A link that was printed with ?token= is opened once; the token does not stay in the address.
function takeToken() {
  const address = new URL(location.href);
  const given = address.searchParams.get("token");
  if (!given) return sessionStorage.getItem("token");
  address.searchParams.delete("token");
  history.replaceState(null, "", address);
  return keepToken(given);
}

function keepToken(token) {
  sessionStorage.setItem("token", token);
  return token;
}
