// The sign-in screen: wrong token, locked out and server away are three different messages.

import { Failure, get, hasToken, request, setToken } from "./api.js";
import { duration, isReadable, onSubmit, part } from "./ui.js";

const screen = document.getElementById("sign-in");
const note = document.getElementById("sign-in-note");
const form = screen.querySelector("form");
const button = form.querySelector("button");
const input = form.elements.namedItem("token");
const AWAY_RETRY_MS = 3_000;
const LOCKED = "Locked out: too many wrong tokens came from this address.";
// Until when, for the page when it is loaded anew.
const LOCKED_KEY = "better-paas.locked-until";

let signedIn, counting;

part(screen, "plain-http").hidden = !isReadable;

onSubmit(form, async () => {
  // What is copied brings spaces and line ends along.
  const candidate = input.value.trim();
  // What cannot stand in a header never was a token.
  if (!/^[!-~]+$/.test(candidate)) {
    throw refuse("This is not a token: it holds a space or another character that no token has. Copy it again.");
  }
  try {
    const answer = await request("GET", "/api/session", { bearer: candidate });
    setToken(candidate, form.elements.namedItem("stay").checked);
    signedIn(answer);
  } catch (failure) {
    if (failure.status === 401) throw refuse("This token is not the right one. Copy it again, the whole of it.");
    if (failure.status === 429) {
      countDown(failure.retryAfter);
      throw refuse(LOCKED);
    }
    throw failure;
  }
});

function refuse(message) {
  return Object.assign(new Failure(0, message), { field: "token" });
}

function endLockout() {
  form.querySelector(".error").textContent = "";
  input.removeAttribute("aria-invalid");
  part(form, "lockout-hint").hidden = true;
}

function countDown(seconds) {
  const until = Date.now() + seconds * 1000;
  sessionStorage.setItem(LOCKED_KEY, until);
  const place = part(form, "countdown");
  clearInterval(counting);
  button.disabled = true;
  place.hidden = false;
  part(form, "lockout-hint").hidden = false;
  const tick = () => {
    const left = Math.ceil((until - Date.now()) / 1000);
    place.textContent = left > 0 ? `You can try again in ${duration(left)}.` : "You can try again now.";
    if (left > 0) return;
    clearInterval(counting);
    sessionStorage.removeItem(LOCKED_KEY);
    button.disabled = false;
    // It is over, so nothing red says that it is on.
    endLockout();
  };
  counting = setInterval(tick, 250);
  tick();
}

function show(text, withForm) {
  document.title = "Sign in · Better-PaaS";
  document.getElementById("shell").hidden = true;
  screen.hidden = false;
  form.hidden = !withForm;
  note.textContent = text;
}

/** The session of the token that this tab still has, or null. Waits for a server that is away. */
export async function resume() {
  while (hasToken()) {
    try {
      return await get("/api/session");
    } catch (failure) {
      if (failure.status === 401) continue;
      show(failure.message, false);
      await new Promise((done) => setTimeout(done, failure.retryAfter * 1000 || AWAY_RETRY_MS));
    }
  }
  return null;
}

/** Asks for the token until the server takes one. */
export async function askToken(text) {
  show(text, true);
  input.focus();
  const left = (Number(sessionStorage.getItem(LOCKED_KEY)) - Date.now()) / 1000;
  if (left > 0) {
    countDown(left);
    form.querySelector(".error").textContent = LOCKED;
  }
  const answer = await new Promise((done) => (signedIn = done));
  clearInterval(counting);
  sessionStorage.removeItem(LOCKED_KEY);
  form.reset();
  form.querySelector(".error").textContent = "";
  part(form, "countdown").hidden = true;
  part(form, "lockout-hint").hidden = true;
  return answer;
}

export function hideSignIn() {
  screen.hidden = true;
}
