// The dashboard's start: sign in, show the screen that the address names, sign out, again.

import { appView } from "./app-page.js";
import { appsView, newAppView } from "./apps.js";
import { connection, session, setToken } from "./api.js";
import { settingsView } from "./settings.js";
import { askToken, hideSignIn, resume } from "./sign-in.js";
import { watchStats } from "./stats.js";
import { copy, copyText, part } from "./ui.js";

const ROUTES = [
  [/^#\/apps$/, "apps", appsView],
  [/^#\/apps\/new$/, "apps", newAppView],
  [/^#\/apps\/([a-z0-9]{10})(?:\/(log|env|settings))?$/, "apps", appView],
  [/^#\/apps\/([a-z0-9]{10})\/(deploys)\/([a-z0-9]{10})$/, "apps", appView],
  [/^#\/settings$/, "settings", settingsView],
];

const shell = document.getElementById("shell");
const main = document.getElementById("main");

/** Shows the dashboard until the session ends; gives the sentence for the sign-in screen. */
function runShell({ hostName }, resumed) {
  const ending = new AbortController();
  const { signal } = ending;
  document.getElementById("host-name").textContent = hostName;
  hideSignIn();
  shell.hidden = false;
  return new Promise((ended) => {
    const end = (sentence) => {
      if (signal.aborted) return;
      ending.abort();
      setToken(null);
      main.replaceChildren();
      for (const dialog of document.querySelectorAll("dialog[open]")) dialog.close();
      ended(sentence);
    };
    session.addEventListener("ended", () => end("You were signed out: the server no longer takes this token."), { signal });
    part(shell, "sign-out").addEventListener("click", () => end("You are signed out."), { signal });
    watchConnection(signal);
    watchStats(signal);
    runRoutes(signal, resumed, (token) => {
      end("");
      showNewToken(token);
    });
  });
}

function runRoutes(shellSignal, resumed, rotated) {
  let current = { abort() {} }, loading = null, dirty = () => false, shown = "", note = "", quiet = resumed;

  async function route() {
    const hash = location.hash;
    const known = ROUTES.map(([pattern, nav, view]) => ({ match: pattern.exec(hash), nav, view })).find(({ match }) => match);
    if (!known) return location.replace("#/apps");
    if (hash !== shown && dirty() && !confirm("Leave without saving your changes?")) {
      history.pushState(null, "", shown);
      note = "";
      return;
    }
    loading?.abort();
    const mine = (loading = new AbortController());
    const signal = AbortSignal.any([shellSignal, mine.signal]);
    main.ariaBusy = "true";
    const screen = { signal, note, rotated, params: known.match.slice(1), go };
    note = "";
    const made = await known.view(screen).catch((failure) => trouble(failure, route));
    if (signal.aborted) return;
    current.abort();
    current = mine;
    loading = null;
    shown = hash;
    dirty = made.dirty ?? (() => false);
    for (const link of shell.querySelectorAll("[data-nav]")) link.ariaCurrent = link.dataset.nav === known.nav ? "page" : null;
    document.title = `${made.title} · Better-PaaS`;
    main.replaceChildren(made.root);
    main.ariaBusy = null;
    // A page that was just loaded begins at its top, with the skip link.
    const focus = main.querySelector("[data-focus]");
    // The focus alone would leave a new page scrolled as far down as the one before.
    if (!quiet && !focus) scrollTo({ top: 0, behavior: "instant" });
    if (!quiet) (focus ?? main.querySelector("h1")).focus();
    quiet = false;
  }

  function go(hash, text = "") {
    note = text;
    if (location.hash === hash) route();
    else location.hash = hash;
  }

  addEventListener("hashchange", route, { signal: shellSignal });
  addEventListener("beforeunload", (event) => dirty() && event.preventDefault(), { signal: shellSignal });
  shellSignal.addEventListener("abort", () => current.abort());
  route();
}

function trouble(failure, again) {
  const root = copy("view-trouble");
  part(root, "message").textContent = failure.message;
  part(root, "again").addEventListener("click", again);
  return { root, title: "Trouble" };
}

const CONNECTION = {
  lost: "Connection lost. Trying again; what you see may be old.",
  polling: "Live updates do not get through here, so this page asks every few seconds instead.",
};

function watchConnection(signal) {
  const bar = document.getElementById("connection");
  const button = bar.querySelector("button");
  const show = () => {
    const state = connection.trouble();
    bar.dataset.state = state ?? "";
    bar.querySelector("span").textContent = CONNECTION[state] ?? "";
    button.hidden = state !== "lost";
  };
  connection.addEventListener("change", show, { signal });
  button.addEventListener("click", () => connection.retryNow(), { signal });
  show();
}

/** Shows the new token once, above the sign-in screen. */
function showNewToken(token) {
  const dialog = copy("new-token-dialog");
  const output = part(dialog, "token");
  output.textContent = token;
  dialog.querySelector("form").addEventListener("submit", (event) => {
    event.preventDefault();
    dialog.close();
  });
  part(dialog, "copy").addEventListener("click", () => copyText(output, part(dialog, "copied")));
  // A stray Escape must not throw away what is shown once.
  dialog.addEventListener("cancel", (event) => event.preventDefault());
  dialog.addEventListener("close", () => {
    dialog.remove();
    document.querySelector("#sign-in input").focus();
  });
  document.body.append(dialog);
  dialog.showModal();
}

document.querySelector("[data-skip]").addEventListener("click", (event) => {
  event.preventDefault();
  main.focus();
});

let sentence = "";
for (;;) {
  const kept = await resume();
  sentence = await runShell(kept ?? (await askToken(sentence)), kept !== null);
}
