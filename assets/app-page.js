// The page of one app: its head with the buttons, and the tab that the address names.

import { get, getText, LiveSocket, patch, post, remove } from "./api.js";
import { appFields } from "./app-fields.js";
import { repoText, withoutScheme } from "./apps.js";
import { deploysTab } from "./deploys.js";
import { envTab } from "./env.js";
import { processesTab } from "./processes.js";
import { onStats } from "./stats.js";
import { copy, download, isCrashed, logBox, onClick, onSubmit, openDialog, part } from "./ui.js";
import { reachOf, say, showLink, showStatus } from "./ui.js";
import { bindWebhook } from "./webhook.js";

const TABS = {
  "": ["Deploys", deploysTab], log: ["Log", logTab], processes: ["Processes", processesTab],
  env: ["Environment", envTab], settings: ["Settings", settingsTab],
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

function bindActions(root, page) {
  const place = part(root, "error");
  onClick(part(root, "deploy"), place, async () => {
    const deploy = await post(`${page.path}/deploys`);
    page.go(`#/apps/${page.id}/deploys/${deploy.id}`);
  });
  for (const action of ["start", "stop"]) {
    onClick(part(root, action), place, async () => page.show(await post(`${page.path}/${action}`)));
  }
  // It is a deploy, whose page says how it goes.
  onClick(part(root, "restart"), place, async () => {
    const app = await post(`${page.path}/restart`);
    page.go(`#/apps/${page.id}/deploys/${app.lastDeployId}`);
  });
}

/** Loads the app again whenever the stats know something that the page does not. */
function watch(root, page) {
  let loading = false, gone = false;
  onStats(page.signal, async ({ apps }) => {
    const now = apps.find(({ id }) => id === page.id);
    const told = ["status", "restarts", "nextStartAt", "url", "lastDeployId"];
    const known = now && told.every((name) => now[name] === page.app[name]);
    if (loading || gone || page.deleting || known) return;
    loading = true;
    try {
      const app = await get(page.path);
      if (!page.signal.aborted) page.show(app);
    } catch (failure) {
      gone = failure.status === 404;
      if (gone) part(root, "error").textContent = failure.message;
    } finally {
      loading = false;
    }
  });
}

async function logTab(page) {
  const root = copy("tab-log");
  const earlier = `Earlier lines are on the server, in data/logs/apps/${page.id}.log.`;
  const box = logBox("Log of the app", "app-log", earlier);
  const load = () => getText(`${page.path}/log?lines=1000`);
  part(root, "log").replaceWith(box.root);
  onClick(part(root, "download"), part(root, "error"), async () => download(`${page.app.name}.log`, await load()));
  new LiveSocket(`/ws/apps/${page.id}/log`, {
    signal: page.signal,
    start: () => box.clear(),
    message: ({ lines = [] }) => box.add(lines),
    poll: async () => box.set(await load()),
  });
  return { root };
}

const LIMITS = { memory: ["Memory", " MiB"], cpu: ["CPU", " % of a core"], processes: ["Processes", ""] };
const HOLDERS = {
  cgroup: "for each of its processes as a whole", process: "for each of its processes",
  user: "for all processes of the app's user", none: "",
};

/** What is really in force; the kernel may hold less, or hold it otherwise, than was asked for. */
function drawLimits(root, { limits }) {
  part(root, "limits-card").hidden = !limits;
  part(root, "limits").replaceChildren(...Object.entries(limits ?? {}).flatMap(([name, { value, by, note }]) => {
    const [word, unit] = LIMITS[name];
    const dt = document.createElement("dt"), dd = document.createElement("dd"), why = document.createElement("small");
    dt.textContent = word;
    dd.textContent = value === null ? "No limit" : [`${value}${unit}`, HOLDERS[by]].filter(Boolean).join(", ");
    why.textContent = note ?? "";
    if (note) dd.append(document.createElement("br"), why);
    return [dt, dd];
  }));
}

/** Asks for them, and again while the server, which has just started, does not know its machine yet. */
async function showLimits(root, page) {
  const app = await get(page.path).catch(() => page.app);
  if (page.signal.aborted) return;
  drawLimits(root, app);
  clearTimeout(page.limitsTimer);
  if (!app.limits) page.limitsTimer = setTimeout(() => page.signal.aborted || showLimits(root, page), 2000);
}

const CERTIFICATES = {
  none: "HTTP, no certificate needed", waiting: "Getting a certificate…", valid: "HTTPS", missing: "No certificate",
};

/** Where the app's names lead, and whether they have what they need; again for as long as one of them waits. */
async function showDomains(root, page) {
  const { domains } = await get(`${page.path}/domains`);
  if (page.signal.aborted) return;
  part(root, "domains-card").hidden = domains.length === 0;
  part(root, "domains").replaceChildren(...domains.flatMap(({ domain, records, certificate, message }) => {
    const dt = document.createElement("dt"), dd = document.createElement("dd"), why = document.createElement("small");
    dt.textContent = domain;
    dd.textContent = CERTIFICATES[certificate];
    const wanted = records.map(({ type, value }) => `${type} ${value}`).join(", ");
    why.textContent = message ?? (wanted && `Record to set: ${wanted}`);
    if (why.textContent) dd.append(document.createElement("br"), why);
    return [dt, dd];
  }));
  const waits = domains.some(({ certificate }) => certificate === "waiting" || certificate === "missing");
  clearTimeout(page.domainsTimer);
  const again = () => page.signal.aborted || showDomains(root, page).catch(() => {});
  if (waits) page.domainsTimer = setTimeout(again, 5000);
}

// What counts at once, and what the next start takes; the rest is for the next deploy.
const AT_ONCE = ["name", "domains"], AT_START = ["memoryMb", "cpuPercent", "maxProcesses", "hostSockets"];

function savedText(changed) {
  const rest = changed.filter((name) => !AT_ONCE.includes(name));
  if (rest.length === 0) return "Saved.";
  return `Saved. The next ${rest.every((name) => AT_START.includes(name)) ? "start" : "deploy"} uses it.`;
}

async function settingsTab(page) {
  const root = copy("tab-settings");
  const form = root.querySelector("form"), dialog = part(root, "dialog");
  const fields = appFields();
  bindWebhook(root, page);
  drawLimits(root, page.app);
  for (const show of [showLimits, showDomains]) {
    const again = () => show(root, page).catch(() => {});
    page.onChange(again);
    again();
  }
  fields.fill(page.app);
  part(root, "fields").replaceWith(fields.root);
  form.addEventListener("input", () => say(root, { saved: "" }));
  onSubmit(form, async () => {
    const changes = fields.read();
    const some = Object.keys(changes).length > 0;
    if (some) {
      page.show(await patch(page.path, changes));
      fields.fill(page.app);
    }
    say(root, { saved: some ? savedText(Object.keys(changes)) : "Nothing has changed." });
  });

  part(root, "delete").addEventListener("click", () => {
    const { id, app: { name } } = page;
    say(dialog, { "dialog-place": `data/apps/${id}/data`, "dialog-name": name, "dialog-name-again": name });
    openDialog(dialog);
  });
  onSubmit(dialog.querySelector("form"), async ({ confirm, keepData }) => {
    if (confirm.value !== page.app.name) {
      throw Object.assign(new Error("This is not the app's name."), { field: "confirm" });
    }
    // What goes away by this page's wish is nothing to look into.
    page.deleting = true;
    try {
      await remove(`${page.path}?keepData=${keepData.checked}`);
    } catch (failure) {
      page.deleting = false;
      throw failure;
    }
    dialog.close();
    page.go("#/apps");
  });
  return { root, dirty: () => !page.deleting && Object.keys(fields.read()).length > 0 };
}
