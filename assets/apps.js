// The list of apps, the form that adds one, and the fields that an app's settings share with it.

import { get, post } from "./api.js";
import { onStats, showMachine, showRuntime } from "./stats.js";
import { announce, copy, onSubmit, part, showLink, showStatus, statusWord } from "./ui.js";

const withoutScheme = (url) => url.replace(/^https?:\/\//, "").replace(/\.git$|\/$/, "");
export const repoText = (app) => withoutScheme(app.gitRepo) + (app.branch ? ` @ ${app.branch}` : "");

export async function appsView({ signal }) {
  const root = copy("view-apps");
  const list = part(root, "list");
  const rows = new Map();

  function show(apps) {
    part(root, "empty").hidden = apps.length > 0;
    list.hidden = apps.length === 0;
    for (const [id, row] of rows) {
      if (apps.some((app) => app.id === id)) continue;
      row.root.remove();
      rows.delete(id);
    }
    apps.forEach((app, place) => {
      if (!rows.has(app.id)) rows.set(app.id, { root: copy("app-row") });
      const row = rows.get(app.id);
      Object.assign(row, { status: app.status, name: app.name, url: app.url });
      const name = part(row.root, "name");
      name.textContent = app.name;
      name.href = `#/apps/${app.id}`;
      part(row.root, "repo").textContent = repoText(app);
      showStatus(part(row.root, "status"), app.status, app.statusDetail);
      showLink(part(row.root, "url"), app.url, withoutScheme(app.url ?? ""));
      // Moving a row that is in its place already would take the focus from it.
      if (list.children[place] !== row.root) list.insertBefore(row.root, list.children[place] ?? null);
    });
  }

  let reloading = false;
  async function reload() {
    if (reloading) return;
    reloading = true;
    try {
      show((await get("/api/apps")).apps);
    } catch {
      // The next message tries again; the connection's note says what is wrong.
    } finally {
      reloading = false;
    }
  }

  const [{ apps }, system] = await Promise.all([get("/api/apps"), get("/api/system")]);
  show(apps);
  showRuntime(root, system.runtime);
  showMachine(root, { machine: system.machine, server: system });
  onStats(signal, (now) => {
    showMachine(root, now);
    const changed = now.apps.filter(({ id, status }) => rows.get(id)?.status !== status);
    for (const { id, status } of changed) {
      const row = rows.get(id);
      if (!row) continue;
      row.status = status;
      showStatus(part(row.root, "status"), status);
      announce(`${row.name}: ${statusWord(status)}`);
    }
    const moved = now.apps.some(({ id, url }) => rows.get(id)?.url !== url);
    if (changed.length > 0 || moved || now.apps.length !== rows.size) reload();
  });
  return { root, title: "Apps" };
}

const TEXT_FIELDS = ["gitRepo", "name", "branch", "rootDir", "buildCommand", "startCommand", "healthPath"];

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
      ? `The saved token was given for ${originOf(app.gitRepo)} and is dropped when you save. Paste one for the new address if it needs one.`
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
      for (const name of TEXT_FIELDS) input(name).value = app[name];
      input("healthTimeoutSeconds").value = app.healthTimeoutSeconds;
      input("gitToken").value = "";
      input("removeToken").checked = false;
      part(root, "remove-token").hidden = !app.hasGitToken;
      const advanced = app.rootDir + app.buildCommand + app.startCommand + app.healthPath;
      if (advanced !== "" || app.healthTimeoutSeconds !== 60) root.querySelector("details").open = true;
      tellAboutToken();
    },
    read() {
      const before = app ?? { healthTimeoutSeconds: 60 };
      const changes = {};
      for (const name of TEXT_FIELDS) {
        const value = input(name).value.trim();
        if (value !== (before[name] ?? "")) changes[name] = value;
      }
      const seconds = Number(input("healthTimeoutSeconds").value);
      if (seconds !== before.healthTimeoutSeconds) changes.healthTimeoutSeconds = seconds;
      if (input("gitToken").value !== "") changes.gitToken = input("gitToken").value;
      else if (input("removeToken").checked) changes.gitToken = null;
      return changes;
    },
  };
}

export async function newAppView({ go }) {
  const root = copy("view-new-app");
  const fields = appFields();
  part(root, "fields").replaceWith(fields.root);
  onSubmit(root.querySelector("form"), async (_, button) => {
    const app = await post("/api/apps", fields.read());
    if (button.value !== "deploy") return go(`#/apps/${app.id}`);
    try {
      const deploy = await post(`/api/apps/${app.id}/deploys`);
      return go(`#/apps/${app.id}/deploys/${deploy.id}`);
    } catch (failure) {
      // The app is there now, so its own page is the place to go on from.
      return go(`#/apps/${app.id}`, `The app was added, but not deployed. ${failure.message}`);
    }
  });
  return { root, title: "Add an app" };
}
