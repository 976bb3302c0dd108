// The page of one app: its head with the buttons, and the tab that the address names.

import {
  copy, get, isCrashed, onClick, onStats, part, post, reachOf, repoText, say, showLink, showStatus,
  withoutScheme,
} from "./core.js";

const TABS = {
  "": ["Deploys", async (page) => (await import("./deploys.js")).deploysTab(page)],
  log: ["Log", async (page) => (await import("./log.js")).logTab(page)],
  processes: ["Processes", async (page) => (await import("./processes.js")).processesTab(page)],
  env: ["Environment", async (page) => (await import("./env.js")).envTab(page)],
  settings: ["Settings", async (page) => (await import("./app-settings.js")).settingsTab(page)],
};

export async function appView({ signal, go, note, params: [id, tab = "", deployId] }) {
  const root = copy("view-app");
  const path = `/api/apps/${id}`;
  const changes = new EventTarget();
  const page = {
    id, path, signal, go, deployId, deleting: false,
    app: await get(path),
    /** Calls `then` whenever the app is shown anew. */
    onChange: (then) => changes.addEventListener("change", then, { signal }),
    show(app) {
      page.app = app;
      showHead(root, app);
      changes.dispatchEvent(new Event("change"));
    },
  };
  const [title, make] = TABS[deployId ? "" : tab];
  for (const link of root.querySelectorAll("[data-tab]")) {
    link.href = `#/apps/${id}${link.dataset.tab && `/${link.dataset.tab}`}`;
    if (link.textContent === title) link.ariaCurrent = "page";
  }
  page.show(page.app);
  part(root, "error").textContent = note;
  bindActions(root, page);
  watch(root, page);
  const made = await make(page);
  part(root, "tab").replaceWith(made.root);
  return { root, title: `${page.app.name}: ${title}`, dirty: made.dirty };
}

function showHead(root, app) {
  say(root, { name: app.name, repo: repoText(app) });
  showStatus(part(root, "status"), app.status, app.statusDetail);
  showAddresses(part(root, "urls"), app.urls);
  part(root, "lost").hidden = app.lost.length === 0;
  say(root, { "lost-what": app.lost.join(", ") });
  part(root, "trouble").hidden = !isCrashed(app);
  say(root, { "trouble-why": whyOf(app) });
  part(root, "trouble-log").href = `#/apps/${app.id}/log`;
  const halted = app.status === "stopped" || app.status === "stopping";
  const up = app.liveDeployId !== null && !halted;
  const focused = document.activeElement;
  part(root, "start").hidden = !halted || app.liveDeployId === null;
  part(root, "restart").hidden = !up;
  part(root, "stop").hidden = !up;
  // A button that goes away while it has the focus hands it to one that stays.
  if (focused?.hidden && part(root, "actions").contains(focused)) part(root, "deploy").focus();
}

function whyOf({ statusDetail, lastExit, restarts, nextStartAt }) {
  if (!statusDetail) return "";
  const sentence = statusDetail.charAt(0).toUpperCase() + statusDetail.slice(1);
  const why = statusDetail === lastExit ? `It ended with ${lastExit}` : sentence;
  const again = restarts > 0 ? ` It was started again ${restarts === 1 ? "once" : `${restarts} times`}.` : "";
  const next = nextStartAt === null ? "" : ` The next start is at ${new Date(nextStartAt).toLocaleTimeString()}.`;
  return ` ${why}.${again}${next}`;
}

/** Everywhere it answers, so that a domain that does not work hides no address that does. */
function showAddresses(list, urls) {
  // Links that are there already keep the focus.
  if ([...list.querySelectorAll("a")].map((link) => link.getAttribute("href")).join() === urls.join()) return;
  list.replaceChildren(...urls.map((url, place) => {
    const [item, link, reach] = ["li", "a", "small"].map((name) => document.createElement(name));
    Object.assign(link, { target: "_blank", rel: "noopener noreferrer" });
    if (place === 0) link.dataset.test = "app-url";
    showLink(link, url, withoutScheme(url));
    reach.textContent = reachOf(url);
    item.append(link, ...(reach.textContent ? [" ", reach] : []));
    return item;
  }));
}

const ASKED = { start: "starting", stop: "stopping", restart: "restarting" };

/** Asks for an action, and says at once that it goes on. */
async function asked(page, action) {
  const before = page.app;
  // What is on its way was true before.
  page.asking = true;
  page.show({ ...before, status: ASKED[action], statusDetail: null });
  try {
    return await post(`${page.path}/${action}`);
  } catch (failure) {
    page.show(before);
    throw failure;
  } finally {
    page.asking = false;
  }
}

function bindActions(root, page) {
  const place = part(root, "error");
  onClick(part(root, "deploy"), place, async () => {
    const deploy = await post(`${page.path}/deploys`);
    page.go(`#/apps/${page.id}/deploys/${deploy.id}`);
  });
  for (const action of ["start", "stop"]) {
    onClick(part(root, action), place, async () => page.show(await asked(page, action)));
  }
  // It is a deploy, whose page says how it goes.
  page.restart = async () => {
    const app = await asked(page, "restart");
    page.go(`#/apps/${page.id}/deploys/${app.lastDeployId}`);
  };
  onClick(part(root, "restart"), place, page.restart);
}

/** Loads the app again whenever the stats know something that the page does not. */
function watch(root, page) {
  let loading = false, gone = false;
  onStats(page.signal, async ({ apps }) => {
    const now = apps.find(({ id }) => id === page.id);
    const told = ["status", "restarts", "nextStartAt", "url", "lastDeployId"];
    const known = now && told.every((name) => now[name] === page.app[name]);
    if (loading || gone || page.deleting || page.asking || known) return;
    loading = true;
    try {
      const app = await get(page.path);
      if (!page.signal.aborted && !page.asking) page.show(app);
    } catch (failure) {
      gone = failure.status === 404;
      if (gone) part(root, "error").textContent = failure.message;
    } finally {
      loading = false;
    }
  });
}
