// The fields of an app, which the form that adds one and its settings share.

import { copy, part } from "./core.js";

const TEXTS = ["gitRepo", "name", "branch", "rootDir", "buildCommand", "startCommand", "publishDir", "healthPath"];
// What each number is when nothing was chosen. A limit of 0 is the platform's own, and no port: both empty fields.
const NUMBERS = { healthTimeoutSeconds: 60, memoryMb: 0, cpuPercent: 0, maxProcesses: 0, port: null };
const LISTS = ["domains", "hostSockets"];

const words = (text) => text.split(/[\s,]+/).filter(Boolean);

/** The name that a repository's address proposes, as the API allows names. */
function nameFrom(repository) {
  const last = repository.replace(/\/+$/, "").split("/").pop().replace(/\.git$/, "");
  return last.toLowerCase().replace(/[^a-z0-9]+/g, "-").slice(0, 40).replace(/^-+|-+$/g, "");
}

const originOf = (url) => (URL.canParse(url) ? new URL(url).origin : "");

/** The fields of an app: `fill` shows one, `read` gives what differs from it (or from the defaults). */
export function appFields() {
  const root = copy("app-fields");
  const input = (name) => root.querySelector(`[name="${name}"]`);
  const hint = part(root, "token-hint"), plainHint = hint.textContent;
  let app = null, named = false;

  function tellAboutToken() {
    const kept = app?.hasGitToken && input("gitToken").value === "";
    const moved = kept && originOf(input("gitRepo").value) !== originOf(app.gitRepo);
    input("gitToken").placeholder = kept && !moved ? "saved" : "";
    hint.textContent = moved
      ? `The saved token was given for ${originOf(app.gitRepo)} and is dropped when you save. ` +
        "Paste one for the new address if it needs one."
      : kept ? "A token is saved. Leave this empty to keep it, or paste one to replace it." : plainHint;
  }
  root.addEventListener("input", ({ target }) => {
    if (target.name === "name") named = target.value !== "";
    if (target.name === "gitRepo" && app === null && !named) input("name").value = nameFrom(target.value.trim());
    tellAboutToken();
  });

  return {
    root,
    fill(shown) {
      app = shown;
      for (const name of TEXTS) input(name).value = app[name] ?? "";
      for (const name of LISTS) input(name).value = app[name].join(" ");
      input("gitRepo").required = app.gitRepo !== null;
      input("spaFallback").value = app.spaFallback ?? "";
      for (const [name, usual] of Object.entries(NUMBERS)) {
        input(name).value = app[name] === usual && !usual ? "" : app[name];
      }
      input("oneAtATime").checked = app.oneAtATime;
      input("gitToken").value = "";
      input("removeToken").checked = false;
      part(root, "remove-token").hidden = !app.hasGitToken;
      for (const details of root.querySelectorAll("details")) {
        const inputs = [...details.querySelectorAll("input")];
        const filled = inputs.some(({ value, defaultValue }) => value !== defaultValue);
        const chosen = app.spaFallback !== null || app.oneAtATime;
        if (filled || chosen) details.open = true;
      }
      tellAboutToken();
    },
    read() {
      const changes = {};
      for (const name of TEXTS) {
        const value = input(name).value.trim();
        if (value !== (app?.[name] ?? "")) changes[name] = value;
      }
      for (const name of LISTS) {
        const value = words(input(name).value);
        if (value.join(" ") !== (app?.[name] ?? []).join(" ")) changes[name] = value;
      }
      const fallback = { true: true, false: false }[input("spaFallback").value] ?? null;
      if (fallback !== (app?.spaFallback ?? null)) changes.spaFallback = fallback;
      const alone = input("oneAtATime").checked;
      if (alone !== (app?.oneAtATime ?? false)) changes.oneAtATime = alone;
      for (const [name, usual] of Object.entries(NUMBERS)) {
        const { value: text } = input(name), value = text === "" ? usual : Number(text);
        if (value !== (app?.[name] ?? usual)) changes[name] = value;
      }
      if (input("gitToken").value !== "") changes.gitToken = input("gitToken").value;
      else if (input("removeToken").checked) changes.gitToken = null;
      return changes;
    },
  };
}
