// The tab with the settings of an app, its limits, its domains, and how to delete it.

import { copy, get, onSubmit, openDialog, part, patch, remove, say } from "./core.js";
import { appFields } from "./app-fields.js";
import { bindWebhook } from "./webhook.js";

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

export async function settingsTab(page) {
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
