// The settings of the whole server: GitHub token, notifications, backups, audit, system.

import {
  bytes, copy, dateTime, download, get, getFile, getText, isReadable, onClick, onSubmit, openDialog,
  part, post, put, remove, say, showRuntime, showTime, systemFacts,
} from "./core.js";

export async function settingsView({ signal }) {
  const root = copy("view-settings");
  const [system, github, notifications, { audit }, backups] = await Promise.all([
    get("/api/system"), get(GITHUB), get(NOTIFICATIONS), get(AUDIT), get(BACKUPS),
  ]);
  showSystem(root, system);
  bindGitHub(root, github);
  bindNotifications(root, notifications);
  bindAudit(root, audit);
  bindBackups(root, backups, signal);
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
  const button = part(root, "openapi");
  onClick(button, button.closest("section").querySelector(".error"), async () => {
    download("openapi.json", await getText("/api/openapi.json"), "application/json");
  });
}

const BACKUPS = "/api/backups";
const BACKUP_LOOK_MS = 2_000;

function bindBackups(root, first, signal) {
  const place = part(root, "backups-error"), button = part(root, "backup"), dialog = part(root, "backup-dialog");
  let looking, doomed;
  signal.addEventListener("abort", () => clearTimeout(looking));

  function row(backup) {
    const { name, size, createdAt, checkedAt, error, leftOut, commandError } = backup;
    const item = copy("backup-row");
    const state = error ? `Damaged: ${error}` : checkedAt ? `checked ${dateTime(checkedAt)}` : "not checked yet";
    const more = leftOut.length ? `; left out: ${leftOut.join("; ")}` : "";
    const away = commandError ? `; on this machine alone, BACKUP_COMMAND failed: ${commandError}` : "";
    say(item, { name, detail: `${dateTime(createdAt)}, ${bytes(size)}, ${state}${away}${more}` });
    part(item, "download").ariaLabel = `Download ${name}`;
    part(item, "delete").ariaLabel = `Delete ${name}`;
    onClick(part(item, "download"), place, async () => {
      download(name, await getFile(`${BACKUPS}/${name}`), "application/gzip");
    });
    part(item, "delete").addEventListener("click", () => {
      doomed = name;
      say(dialog, { "backup-name": name });
      openDialog(dialog);
    });
    return item;
  }
  function show({ backups, isBeingMade, lastError }) {
    part(root, "backups").replaceChildren(...backups.map(row));
    part(root, "backups").hidden = backups.length === 0;
    const none = backups.length === 0 ? "There is none yet." : "";
    const failed = lastError ? `The last try failed: ${lastError}` : none;
    say(root, { "backup-state": isBeingMade ? "A backup is being made…" : failed });
    clearTimeout(looking);
    if (isBeingMade && !signal.aborted) looking = setTimeout(again, BACKUP_LOOK_MS);
  }
  async function again() {
    try {
      show(await get(BACKUPS));
    } catch (failure) {
      place.textContent = failure.message;
    }
  }
  show(first);
  onClick(button, place, async () => show(await post(BACKUPS)));
  onSubmit(dialog.querySelector("form"), async () => {
    await remove(`${BACKUPS}/${doomed}`);
    dialog.close();
    await again();
    button.focus();
  });
}

const GITHUB = "/api/settings/github-token";

function bindGitHub(root, github) {
  const form = part(root, "github");
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

const NOTIFICATIONS = "/api/settings/notifications";

function bindNotifications(root, first) {
  const form = part(root, "notifications"), error = form.querySelector(".error");
  const went = (last) =>
    last ? ` Last sent ${dateTime(last.sentAt)}: ${last.error ?? `taken, status ${last.status}`}.` : "";
  function show({ saved, savedAt, last }) {
    part(root, "notify-remove").hidden = part(root, "notify-test").hidden = !saved;
    say(root, {
      "notify-state": saved ? `An address is saved (${dateTime(savedAt)}).${went(last)}` : "No address is saved.",
      "notify-label": saved ? "New address" : "Address",
    });
  }
  const again = async () => show(await get(NOTIFICATIONS));
  show(first);
  onSubmit(form, async ({ url }) => {
    show(await put(NOTIFICATIONS, { url: url.value.trim() }));
    form.reset();
  });
  onClick(part(root, "notify-test"), error, async () => {
    await post(`${NOTIFICATIONS}/test`);
    await again();
  });
  onClick(part(root, "notify-remove"), error, async () => {
    await remove(NOTIFICATIONS);
    await again();
    form.elements.namedItem("url").focus();
  });
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
