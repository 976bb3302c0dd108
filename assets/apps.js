// The list of apps.

import {
  announce, copy, get, onStats, part, reachOf, reasonOf, repoText, say, showLink, showMachine,
  showRuntime, showStatus, statusWord, withoutScheme,
} from "./core.js";

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
