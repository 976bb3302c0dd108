// The wire: requests that carry the token, failures as data, live sockets that come back.

const KEY = "better-paas.token";
const REQUEST_LIMIT_MS = 60_000;
// A file may be large, and the line slow.
const FILE_LIMIT_MS = 12 * 3_600_000;
const LONGEST_WAIT_MS = 30_000;
// A socket that lived this long was a good one: its end starts the waits anew.
const GOOD_SOCKET_MS = 5_000;
const POLL_MS = 3_000;

// Only this tab's memory keeps the token, which is gone when the tab is; where its owner stays signed in, the
// browser's, which all tabs share.
let store = sessionStorage.getItem(KEY) === null ? localStorage : sessionStorage;
let token = store.getItem(KEY);
// The old token may be refused before the new one has come.
let rotating = false;

/** Says "ended" when the server no longer takes the token, and "left" when another tab has signed out. */
export const session = new EventTarget();

export const hasToken = () => token !== null;

/** Keeps a token, or forgets it; `stay` says whether it is for all tabs, now and later. */
export function setToken(value, stay = store === localStorage) {
  store.removeItem(KEY);
  token = value;
  store = stay || value === null ? localStorage : sessionStorage;
  if (value !== null) store.setItem(KEY, value);
}

/** Forgets the token here and where all tabs find it. */
export function signOut() {
  setToken(null);
  localStorage.removeItem(KEY);
}

/** Makes a new token, with which this tab goes on. */
export async function rotateToken() {
  rotating = true;
  try {
    const made = await post("/api/security/rotate-token");
    setToken(made.token);
    return made.token;
  } finally {
    rotating = false;
  }
}

// Another tab has signed in, made a new token or signed out.
addEventListener("storage", ({ key, newValue, storageArea }) => {
  if (key !== KEY || storageArea !== localStorage || store !== localStorage || rotating) return;
  const wasOut = token === null;
  token = newValue;
  if (newValue === null) session.dispatchEvent(new Event("left"));
  else if (wasOut) location.reload();
});

/** Why a request brought nothing. `status` is 0 when no answer of the server came. */
export class Failure extends Error {
  constructor(status, message, { code = "", field = null, retryAfter = 0 } = {}) {
    super(message);
    Object.assign(this, { status, code, field, retryAfter });
  }
}

const AWAY = "The server does not answer. Check that it runs and that this computer reaches it, then try again.";

/**
 * One request. Gives the decoded JSON, the text or the file when `text` or `file` is set, or undefined. A list
 * that is written as a whole has the name of its state as `tag`; `match` is the one that is to be replaced.
 */
export async function request(method, path, { body, match, bearer = token, text = false, file = false } = {}) {
  if (bearer === null) throw new Failure(401, "You are signed out.");
  const headers = { Authorization: `Bearer ${bearer}` };
  if (body !== undefined) headers["Content-Type"] = "application/json";
  if (match) headers["If-Match"] = match;
  let response, content;
  try {
    response = await fetch(path, {
      method, headers, body: body === undefined ? undefined : JSON.stringify(body),
      cache: "no-store", credentials: "omit", redirect: "error",
      signal: AbortSignal.timeout(file ? FILE_LIMIT_MS : REQUEST_LIMIT_MS),
    });
    if (response.ok && file) return await response.blob();
    content = await response.text();
  } catch {
    throw new Failure(0, AWAY);
  }
  if (response.ok && text) return content;
  let data;
  try {
    data = content === "" ? undefined : JSON.parse(content);
  } catch {
    data = undefined;
  }
  // A proxy that compresses marks the name as weak; the list is the same.
  const tag = response.headers.get("ETag")?.replace(/^W\//, "");
  if (response.ok) return tag ? { ...data, tag } : data;
  throw failureOf(response, data, bearer);
}

// What the API says to programs, said to a person.
const SAID = {
  app_not_found: "There is no such app. It may have been deleted.",
  deploy_not_found: "There is no such deploy. Its app may have been deleted.",
};

/** A sentence with a capital, unless it begins with a name such as `env[0]`. */
const capital = (sentence) => sentence.replace(/^[a-z]+(?=[ ,:;])/, (word) => word[0].toUpperCase() + word.slice(1));

function failureOf(response, data, bearer) {
  // A proxy in front answers these in its own words when the server is away.
  if (!data?.error && [502, 503, 504].includes(response.status)) return new Failure(0, AWAY);
  if (response.status === 401 && bearer === token && !rotating) {
    const shared = store.getItem(KEY);
    // Another tab has made a new one.
    if (shared !== null && shared !== bearer) token = shared;
    else {
      setToken(null);
      session.dispatchEvent(new Event("ended"));
    }
  }
  const { code, message, field } = data?.error ?? {};
  const retryAfter = Number(response.headers.get("Retry-After")) || 0;
  const sentence = SAID[code] ?? capital(message ?? `The server answered ${response.status}.`);
  return new Failure(response.status, sentence, { code, field, retryAfter });
}

export const get = (path) => request("GET", path);
export const getText = (path) => request("GET", path, { text: true });
export const getFile = (path) => request("GET", path, { file: true });
export const post = (path, body) => request("POST", path, { body });
export const put = (path, body, match) => request("PUT", path, { body, match });
export const patch = (path, body) => request("PATCH", path, { body });
export const remove = (path) => request("DELETE", path);

/** How the live connections are: "change" when `trouble()` does. */
export const connection = Object.assign(new EventTarget(), {
  states: new Map(),
  /** "lost", "polling" or null, the worst of all. */
  trouble() {
    const all = [...this.states.values()];
    return all.includes("lost") ? "lost" : all.includes("polling") ? "polling" : null;
  },
  set(key, state) {
    const before = this.trouble();
    if (state === null) this.states.delete(key);
    else this.states.set(key, state);
    if (this.trouble() !== before) this.dispatchEvent(new Event("change"));
  },
  retryNow() {
    this.dispatchEvent(new Event("retry"));
  },
});
addEventListener("online", () => connection.retryNow());

/**
 * A WebSocket that stays open until `signal` aborts: a ticket for each, longer waits
 * after each failure. `path` gives the address for each. When tickets come but sockets do not
 * open, `poll` is called every few seconds instead. `start` is called before a socket's first
 * message. `message` returns true for the last one.
 */
export class LiveSocket {
  #key;
  #failures = 0;
  #socket;
  #waiting;
  #polling;
  #done = false;
  #retry = () => {
    if (this.#waiting !== undefined) this.#open();
  };

  constructor(path, { signal, start = () => {}, message, poll }) {
    Object.assign(this, { path, start, message, poll });
    this.#key = Symbol(path());
    if (signal.aborted) return;
    connection.addEventListener("retry", this.#retry);
    signal.addEventListener("abort", () => this.#stop());
    this.#open();
  }

  async #open() {
    clearTimeout(this.#waiting);
    this.#waiting = undefined;
    const url = new URL(this.path(), location.href);
    url.protocol = url.protocol.replace("http", "ws");
    try {
      url.searchParams.set("ticket", (await post("/api/ws-ticket")).ticket);
      if (!this.#done) this.#listen(new WebSocket(url));
    } catch (failure) {
      if (!this.#done && hasToken()) this.#again("lost", failure.retryAfter);
    }
  }

  #listen(socket) {
    let openedAt = null;
    this.#socket = socket;
    socket.onopen = () => {
      openedAt = performance.now();
      clearInterval(this.#polling);
      this.#polling = undefined;
      connection.set(this.#key, null);
      this.start();
    };
    socket.onmessage = (event) => {
      if (!this.#done && this.message(JSON.parse(event.data)) === true) this.#stop();
    };
    socket.onclose = () => {
      if (this.#done) return;
      if (openedAt !== null && performance.now() - openedAt > GOOD_SOCKET_MS) this.#failures = 0;
      this.#again(openedAt === null && this.#failures > 0 ? "polling" : "lost");
    };
  }

  #again(state, retryAfter = 0) {
    this.#failures += 1;
    // The first broken connection is often healed at once; say nothing yet.
    if (this.#failures > 1) connection.set(this.#key, state);
    if (state === "polling" && this.#polling === undefined) {
      this.#polling = setInterval(() => this.#poll(), POLL_MS);
      this.#poll();
    }
    const wait = Math.min(LONGEST_WAIT_MS, 500 * 2 ** this.#failures) * (0.8 + 0.4 * Math.random());
    this.#waiting = setTimeout(() => this.#open(), Math.max(wait, retryAfter * 1000));
  }

  async #poll() {
    try {
      const last = await this.poll();
      if (this.#done) return;
      if (last === true) this.#stop();
      else connection.set(this.#key, "polling");
    } catch (failure) {
      if (!this.#done && failure.status === 0) connection.set(this.#key, "lost");
    }
  }

  #stop() {
    this.#done = true;
    clearTimeout(this.#waiting);
    clearInterval(this.#polling);
    this.#socket?.close();
    connection.set(this.#key, null);
    connection.removeEventListener("retry", this.#retry);
  }
}
