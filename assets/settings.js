// The settings of the whole server: GitHub token, lockouts, admin token, system.

import { get, getText, post, put, remove } from "./api.js";
import { advice, showAdvice, showRuntime, systemFacts } from "./stats.js";
import { copy, dateTime, download, duration, isReadable, onClick, onSubmit, openDialog, part } from "./ui.js";
import { say, showTime } from "./ui.js";

export async function settingsView({ signal, rotated }) {
  const root = copy("view-settings");
  const [system, github, lockouts, { audit }] = await Promise.all([
    get("/api/system"), get("/api/settings/github-token"), get("/api/security/lockouts"), get(AUDIT),
  ]);
  showSystem(root, system);
  bindGitHub(root, github);
  bindLockouts(root, lockouts, signal);
  bindAudit(root, audit);
  bindRotation(root, system, rotated);
  return { root, title: "Settings" };
}

function showSystem(root, system) {
  showRuntime(root, system.runtime);
  part(root, "plain-http").hidden = !isReadable;
  part(root, "system").replaceChildren(...systemFacts(system).flatMap(([name, value]) => {
    const dt = document.createElement("dt"), dd = document.createElement("dd");
    dt.textContent = name;
    dd.textContent = value;
    return [dt, dd];
  }));
  showAdvice(part(root, "advice"), advice(system));
  const button = part(root, "openapi");
  onClick(button, button.closest("section").querySelector(".error"), async () => {
    download("openapi.json", await getText("/api/openapi.json"), "application/json");
  });
}

const GITHUB = "/api/settings/github-token";

function bindGitHub(root, github) {
  const form = root.querySelector("form");
  function show({ saved, savedAt }) {
    part(root, "github-remove").hidden = !saved;
    say(root, {
      "github-state": saved ? `A token is saved${savedAt ? ` (${dateTime(savedAt)})` : ""}.` : "No token is saved.",
      "github-label": saved ? "New token" : "Token",
    });
  }
  show(github);
  onSubmit(form, async ({ token }) => {
    await put(GITHUB, { token: token.value.trim() });
    form.reset();
    show(await get(GITHUB));
  });
  onClick(part(root, "github-remove"), form.querySelector(".error"), async () => {
    await remove(GITHUB);
    show(await get(GITHUB));
    form.elements.namedItem("token").focus();
  });
}

function bindLockouts(root, first, signal) {
  const place = part(root, "lockouts-error"), again = part(root, "lockouts-again");
  let shown = [];

  function show({ lockouts }) {
    shown = lockouts.map((lockout) => ({ lockout, row: copy("lockout-row") }));
    for (const { lockout: { client }, row } of shown) {
      say(row, { client });
      part(row, "clear").ariaLabel = `Clear ${client}`;
      onClick(part(row, "clear"), place, async () => {
        await remove(`/api/security/lockouts/${encodeURIComponent(client)}`);
        show(await get("/api/security/lockouts"));
        again.focus();
      });
    }
    part(root, "lockouts").replaceChildren(...shown.map(({ row }) => row));
    part(root, "lockouts").hidden = shown.length === 0;
    part(root, "no-lockouts").hidden = shown.length > 0;
    count();
  }
  function count() {
    for (const { lockout: { failures, lockedUntilAt }, row } of shown) {
      const left = (lockedUntilAt - Date.now()) / 1000;
      const until = left > 0 ? `locked out for ${duration(Math.ceil(left))}` : "may try again now";
      say(row, { detail: `${failures} wrong tokens, ${until}` });
    }
  }
  show(first);
  const counting = setInterval(count, 1_000);
  signal.addEventListener("abort", () => clearInterval(counting));
  onClick(again, place, async () => show(await get("/api/security/lockouts")));
}

const AUDIT_ROWS = 20;
const AUDIT = `/api/audit?limit=${AUDIT_ROWS}`;

function bindAudit(root, first) {
  const older = part(root, "audit-older");
  let oldest;
  function add(acts) {
    part(root, "audit").append(...acts.map(({ doneAt, who, client, act, appName, outcome }) => {
      const row = copy("audit-row");
      showTime(part(row, "time"), doneAt ?? 0);
      say(row, { act, detail: [who, client, appName, outcome].filter(Boolean).join(" · ") });
      return row;
    }));
    oldest = acts.at(-1)?.id;
    older.hidden = acts.length < AUDIT_ROWS;
  }
  add(first);
  onClick(older, older.closest("section").querySelector(".error"), async () => {
    const { audit } = await get(`${AUDIT}&before=${oldest}`);
    add(audit);
  });
}

function bindRotation(root, { tokenSource }, rotated) {
  const pinned = tokenSource === "environment";
  const dialog = part(root, "rotate-dialog");
  part(root, "rotate").disabled = pinned;
  say(root, {
    "token-source": pinned
      ? "ADMIN_TOKEN in the server's environment sets the token. To change it, change it there and restart the server."
      : "The token opens everything here. Make a new one when somebody may have seen it.",
  });
  part(root, "rotate").addEventListener("click", () => openDialog(dialog));
  onSubmit(dialog.querySelector("form"), async () => {
    const { token } = await post("/api/security/rotate-token");
    dialog.close();
    rotated(token);
  });
}
