// The dashboard's start: sign in, show the screen that the address names, sign out, again.

import { connection, get, session, signOut } from "./api.js";
import { askToken, hideSignIn, resume } from "./sign-in.js";
import { watchStats } from "./stats.js";
import { copy, copyText, part } from "./ui.js";

// The module of a screen comes when the screen is opened.
const appView = async (screen) => (await import("./app-page.js")).appView(screen);
const ROUTES = [
  [/^#\/apps$/, "apps", async (screen) => (await import("./apps.js")).appsView(screen)],
  [/^#\/apps\/new$/, "apps", async (screen) => (await import("./new-app.js")).newAppView(screen)],
  [/^#\/apps\/([a-z0-9]{10})(?:\/(log|processes|env|settings))?$/, "apps", appView],
  [/^#\/apps\/([a-z0-9]{10})\/(deploys)\/([a-z0-9]{10})$/, "apps", appView],
  [/^#\/security$/, "security",
    async (screen) => (await import("./security.js")).securityView(screen)],
  [/^#\/settings$/, "settings",
    async (screen) => (await import("./settings.js")).settingsView(screen)],
  [/^#\/help(?:\/([\w-]+)(?:\/([\w-]+))?)?$/, "help",
    async (screen) => (await import("./help.js")).helpView(screen)],
];

const shell = document.getElementById("shell");
const main = document.getElementById("main");

/** Shows the dashboard until the session ends; gives the sentence for the sign-in screen. */
function runShell({ hostName, findings }, resumed) {
  const ending = new AbortController();
  const { signal } = ending;
  document.getElementById("host-name").textContent = hostName;
  hideSignIn();
  shell.hidden = false;
  return new Promise((ended) => {
    const end = (sentence) => {
      if (signal.aborted) return;
      ending.abort();
      main.replaceChildren();
      for (const dialog of document.querySelectorAll("dialog[open]")) dialog.close();
      ended(sentence);
    };
    const refused = "You were signed out: the server no longer takes this token.";
    session.addEventListener("ended", () => end(refused), { signal });
    session.addEventListener("left", () => end("You signed out in another tab."), { signal });
    part(shell, "sign-out").addEventListener("click", () => {
      signOut();
      end("You are signed out.");
    }, { signal });
    watchConnection(signal);
    watchStats(signal);
    watchFindings(signal, findings);
    new Router(signal, resumed);
  });
}

/** Shows the view that the address names, and the next one when it changes. */
class Router {
  #shellSignal;
  #current = { abort() {} };
  #loading = null;
  #dirty = () => false;
  #shown = "";
  #note = "";
  #quiet;

  /** `resumed` says that the page was just loaded. */
  constructor(shellSignal, resumed) {
    this.#shellSignal = shellSignal;
    this.#quiet = resumed;
    const signal = shellSignal;
    addEventListener("hashchange", () => this.#route(), { signal });
    addEventListener("beforeunload", (event) => this.#dirty() && event.preventDefault(), { signal });
    signal.addEventListener("abort", () => this.#current.abort());
    this.#route();
  }

  async #route() {
    const hash = location.hash;
    const routes = ROUTES.map(([pattern, nav, view]) => ({ match: pattern.exec(hash), nav, view }));
    const known = routes.find(({ match }) => match);
    if (!known) return location.replace("#/apps");
    if (hash !== this.#shown && this.#dirty() && !confirm("Leave without saving your changes?")) {
      history.pushState(null, "", this.#shown);
      this.#note = "";
      return;
    }
    this.#loading?.abort();
    const mine = (this.#loading = new AbortController());
    const signal = AbortSignal.any([this.#shellSignal, mine.signal]);
    main.ariaBusy = "true";
    const go = (...where) => this.#go(...where), params = known.match.slice(1);
    const screen = { signal, note: this.#note, rotated: showNewToken, params, go };
    this.#note = "";
    const view = await known.view(screen).catch((failure) => trouble(failure, () => this.#route()));
    if (signal.aborted) return;
    this.#current.abort();
    this.#current = mine;
    this.#loading = null;
    this.#shown = hash;
    this.#dirty = view.dirty ?? (() => false);
    this.#show(view, known.nav);
  }

  #show({ root, title }, nav) {
    for (const link of shell.querySelectorAll("[data-nav]")) {
      link.ariaCurrent = link.dataset.nav === nav ? "page" : null;
    }
    document.title = `${title} · Better-PaaS`;
    main.replaceChildren(root);
    main.ariaBusy = null;
    // A page that was just loaded begins at its top, with the skip link.
    const focus = main.querySelector("[data-focus]");
    // The focus alone would leave a new page scrolled as far down as the one before.
    if (!this.#quiet && !focus) scrollTo({ top: 0, behavior: "instant" });
    if (!this.#quiet) (focus ?? main.querySelector("h1")).focus();
    this.#quiet = false;
  }

  #go(hash, text = "") {
    this.#note = text;
    if (location.hash === hash) this.#route();
    else location.hash = hash;
  }
}

const NO_MODULE = "A part of the dashboard did not come: the server is away, or runs another"
  + " version by now. Load the page again.";

function trouble(failure, again) {
  const root = copy("view-trouble"), came = !(failure instanceof TypeError);
  part(root, "message").textContent = came ? failure.message : NO_MODULE;
  // A browser may not ask twice for a module that did not come.
  part(root, "again").addEventListener("click", came ? again : () => location.reload());
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

const FINDINGS_MS = 20_000;

/** How many findings have lasted, beside the link to them; red when one is to be mended now. */
function watchFindings(signal, first) {
  const badge = part(shell, "badge");
  function show({ fail, warn }) {
    badge.hidden = fail + warn === 0;
    badge.dataset.level = fail > 0 ? "fail" : "warn";
    badge.textContent = fail + warn;
    badge.ariaLabel = `${fail} to be mended, ${warn} could be better`;
  }
  async function look() {
    if (document.hidden) return;
    try {
      show((await get("/api/session")).findings);
    } catch {
      // The line about the connection says it.
    }
  }
  show(first);
  const looking = setInterval(look, FINDINGS_MS);
  signal.addEventListener("abort", () => clearInterval(looking));
}

/** Shows the new token once. */
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
  dialog.addEventListener("close", () => dialog.remove());
  document.body.append(dialog);
  dialog.showModal();
}

document.querySelector("[data-skip]").addEventListener("click", (event) => {
  event.preventDefault();
  main.focus();
});

// Not at the top: the screens' modules, which import this one, would wait for its end.
async function start() {
  for (let sentence = ""; ;) {
    const kept = await resume();
    sentence = await runShell(kept ?? (await askToken(sentence)), kept !== null);
  }
}
start();
