// The list of apps, and the form that adds one.

import { get, post } from "./api.js";
import { appFields } from "./app-fields.js";
import { reasonOf } from "./deploys.js";
import { onStats, showMachine, showRuntime } from "./stats.js";
import { announce, copy, onSubmit, part, reachOf, say, showLink, showStatus, statusWord } from "./ui.js";

export const withoutScheme = (url) => url.replace(/^https?:\/\//, "").replace(/\.git$|\/$/, "");
export const repoText = ({ gitRepo, branch }) =>
  gitRepo === null ? "from archives alone" : withoutScheme(gitRepo) + (branch ? ` @ ${branch}` : "");

/** Why the last deploy failed, also when the release before it goes on running. */
async function tellWhy(row, { id, status, liveDeployId, lastDeployId }) {
  const failed = lastDeployId !== liveDeployId && ["failed", "running", "crashed", "crash-looping"].includes(status);
  if (!failed) return say(row, { why: "" });
  try {
    const last = await get(`/api/deploys/${lastDeployId}`);
    const reason = last.error ? reasonOf(last) : "";
    say(row, { why: reason && status !== "failed" ? `The last deploy failed. ${reason}` : reason });
  } catch {
    // The app's page says it too.
  }
}

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
      Object.assign(row, { status: app.status, name: app.name, url: app.url, lastDeployId: app.lastDeployId });
      const name = part(row.root, "name");
      name.textContent = app.name;
      name.href = `#/apps/${app.id}`;
      part(row.root, "repo").textContent = repoText(app);
      showStatus(part(row.root, "status"), app.status, app.statusDetail);
      showLink(part(row.root, "url"), app.url, withoutScheme(app.url ?? ""));
      const reach = reachOf(app.url);
      say(row.root, { reach: reach && `(${reach})` });
      tellWhy(row.root, app);
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
  const { fail, warn } = system.findings, count = fail + warn;
  part(root, "could-be-better").hidden = count === 0;
  const things = count === 1 ? "One thing" : `${count} things`;
  const now = fail > 0 ? `, ${fail} to be mended now` : "";
  say(root, { "advice-count": `${things} could be better on this machine${now}` });
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
    const moved = now.apps.some(({ id, url, lastDeployId }) => {
      const row = rows.get(id);
      return row?.url !== url || row?.lastDeployId !== lastDeployId;
    });
    if (changed.length > 0 || moved || now.apps.length !== rows.size) reload();
  });
  return { root, title: "Apps" };
}

/** What would become of a repository, in sentences. */
async function tellWhatItIs(place, { gitRepo, branch, rootDir, gitToken }) {
  place.textContent = "Fetching it …";
  try {
    const asked = Object.entries({ gitRepo, branch, rootDir, gitToken }).filter(([, value]) => value);
    const seen = await post("/api/detect", Object.fromEntries(asked));
    const found = [...seen.notes];
    if (seen.build) found.push(`Builds with: ${seen.build}`);
    if (seen.start) found.push(`Starts with: ${seen.start}`);
    if (seen.publish) found.push(`Serves the files of ${seen.publish}, if the build leaves them.`);
    if (seen.error) found.push(seen.error);
    if (seen.branches.length > 1) found.push(`Branches: ${seen.branches.join(", ")}`);
    place.replaceChildren(...found.map((text) => Object.assign(document.createElement("p"), { textContent: text })));
  } catch (failure) {
    place.textContent = "";
    throw failure;
  }
}

export async function newAppView({ go }) {
  const root = copy("view-new-app");
  const fields = appFields();
  part(root, "fields").replaceWith(fields.root);
  onSubmit(root.querySelector("form"), async (_, button) => {
    if (button.value === "look") return tellWhatItIs(part(root, "seen"), fields.read());
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
