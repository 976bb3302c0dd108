// Screens out of templates, buttons and forms that show what they do, words for times and sizes.

let nextId = 0;

/** A copy of a template's one element; hints are tied to their inputs. */
export function copy(name) {
  const root = document.getElementById(name).content.firstElementChild.cloneNode(true);
  for (const field of root.querySelectorAll(".field")) {
    const hint = field.querySelector("small");
    if (!hint) continue;
    hint.id = `hint-${(nextId += 1)}`;
    field.querySelector("input").setAttribute("aria-describedby", hint.id);
  }
  return root;
}

export const part = (root, name) => root.querySelector(`[data-part="${name}"]`);

export function say(root, texts) {
  for (const [name, text] of Object.entries(texts)) {
    const element = part(root, name);
    // Live regions speak when they are written to, so only changes are written.
    if (element.textContent !== (text ?? "")) element.textContent = text ?? "";
  }
}

/** Read out by screen readers, seen by nobody. */
export function announce(text) {
  document.getElementById("announcer").textContent = text;
}

const STATUS = {
  new: "New", deploying: "Deploying", running: "Running", restarting: "Restarting", stopping: "Stopping",
  stopped: "Stopped",
  "crash-looping": "Crash-looping", crashed: "Crashed", failed: "Failed",
  queued: "Queued", fetching: "Fetching", building: "Building", starting: "Starting", checking: "Checking",
  live: "Live",
};
/** Whether an app should run and does not, or not for long. */
export const isCrashed = ({ status }) => status === "crashed" || status === "crash-looping";
export const statusWord = (status) => STATUS[status] ?? status;

export function showStatus(element, status, detail = null) {
  const text = detail ? `${statusWord(status)}: ${detail}` : statusWord(status);
  element.dataset.status = status;
  if (element.textContent !== text) element.textContent = text;
}

/** A sentence whose words between backticks are code. */
export function inCode(element, sentence) {
  element.replaceChildren(...sentence.split("`").map((text, place) => {
    if (place % 2 === 0) return document.createTextNode(text);
    const code = document.createElement("code");
    code.textContent = text;
    return code;
  }));
}

const LOOPBACK = /^((.+\.)?localhost|127(\.\d+){3}|\[::1\])$/;
/** Whether this page came from the machine that the browser runs on, or through a tunnel that ends there. */
export const atHome = LOOPBACK.test(location.hostname);

/** Whether everybody on the way can read what this page sends. */
export const isReadable = location.protocol === "http:" && !atHome;

/** What to know about an address before clicking it; empty when it opens from here. */
export function reachOf(url) {
  if (atHome || !URL.canParse(url ?? "")) return "";
  const { hostname } = new URL(url);
  if (!LOOPBACK.test(hostname)) return "";
  const here = "opens only on the server itself";
  return hostname.endsWith(".localhost") ? `${here}; set BASE_DOMAIN or add a domain` : here;
}

/** Copies the text of `output`, or selects it where the browser keeps the clipboard closed: without HTTPS. */
export async function copyText(output, told) {
  try {
    await navigator.clipboard.writeText(output.textContent);
    told.textContent = "Copied.";
  } catch {
    getSelection().selectAllChildren(output);
    told.textContent = "Selected. Copy it with Ctrl+C, or Command+C on a Mac.";
  }
}

/** Shows a link, or hides it when there is nowhere to go. Only web addresses are links. */
export function showLink(element, url, text) {
  element.hidden = !/^https?:\/\//.test(url ?? "");
  if (element.hidden) element.removeAttribute("href");
  else element.href = url;
  element.textContent = text;
}

/** Work of a button: one at a time, its failure in `place`. */
export function onClick(button, place, work) {
  button.addEventListener("click", () => run(button, work, (failure) => (place.textContent = failure?.message ?? "")));
}

/**
 * Work of a form: `work` gets its fields' values and the button. A failure that
 * names a field, or has it as `input`, marks it, stands below it and takes the focus there.
 */
export function onSubmit(form, work) {
  const place = form.querySelector(".error"), { parentElement: home, nextSibling: next } = place;
  place.id ||= `error-${(nextId += 1)}`;
  function tell(failure) {
    place.textContent = "";
    home.insertBefore(place, next);
    for (const input of form.querySelectorAll("[aria-invalid]")) input.removeAttribute("aria-invalid");
    if (failure === null) return;
    const input = failure.input ?? (failure.field ? form.elements.namedItem(failure.field) : null);
    const known = input instanceof HTMLElement;
    // The end of a long form is off the screen of whoever is in its middle.
    if (known) input.closest(".field")?.append(place);
    place.textContent = inLabels(failure, form);
    if (!known) return;
    input.setAttribute("aria-invalid", "true");
    input.setAttribute("aria-errormessage", place.id);
    input.closest("details")?.setAttribute("open", "");
    input.focus();
    place.scrollIntoView({ block: "nearest" });
  }
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    const pressed = event.submitter ?? form.querySelector("button:not([type])");
    await run(pressed, (button) => work(form.elements, button), tell);
  });
}

/** The API's names of fields, as the form's labels have them: `gitRepo` is “Git repository” to a person. */
function inLabels({ message, field }, form) {
  let text = message;
  for (const { name, labels } of form.elements) {
    const label = labels?.[0]?.firstChild.textContent.trim();
    if (!label) continue;
    if (name === field) text = text.replace(new RegExp(`^${name}\\b`, "i"), label);
    // Other names are ordinary words too, unless they are in camel case.
    if (/[A-Z]/.test(name)) text = text.replace(new RegExp(`\\b${name}\\b`, "g"), `“${label}”`);
  }
  return text;
}

/** Runs `work` once at a time; `tell` gets null when it begins, and its failure if it fails. */
async function run(button, work, tell) {
  // Not `disabled`: that would drop the keyboard's focus.
  if (button.ariaDisabled === "true") return;
  tell(null);
  button.ariaDisabled = "true";
  button.ariaBusy = "true";
  try {
    await work(button);
  } catch (failure) {
    tell(failure);
  } finally {
    button.ariaDisabled = null;
    button.ariaBusy = null;
  }
}

/** Opens a dialog of a screen; its data-close button and Escape close it. */
export function openDialog(dialog) {
  const form = dialog.querySelector("form");
  form.reset();
  for (const error of dialog.querySelectorAll(".error")) error.textContent = "";
  const close = dialog.querySelector("[data-close]");
  if (close) close.onclick = () => dialog.close();
  dialog.showModal();
}

/** Saves a text to a file of the person's choice. */
export function download(name, text, type = "text/plain") {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([text], { type }));
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
}

const UNITS = [["day", 86_400], ["hour", 3_600], ["minute", 60]];
const relative = new Intl.RelativeTimeFormat("en", { numeric: "auto" });
const absolute = new Intl.DateTimeFormat("en-GB", { dateStyle: "medium", timeStyle: "medium" });

function ago(at) {
  const seconds = (at - Date.now()) / 1000;
  const [unit, size] = UNITS.find(([, size]) => Math.abs(seconds) >= size) ?? ["second", 0];
  if (size === 0) return "just now";
  return Math.abs(seconds) > 30 * 86_400 ? absolute.format(at) : relative.format(Math.round(seconds / size), unit);
}

/** Fills a <time>, which then keeps itself up to date. */
export function showTime(element, at) {
  element.dateTime = new Date(at).toISOString();
  element.title = absolute.format(at);
  element.textContent = ago(at);
}
setInterval(() => {
  for (const element of document.querySelectorAll("time[datetime]")) {
    element.textContent = ago(Date.parse(element.dateTime));
  }
}, 20_000);

export const dateTime = (at) => absolute.format(at);

// A number and its unit stay on one line.
const NBSP = "\u00a0";

/** 75 → "1 min 15 s" */
export function duration(seconds) {
  if (seconds > 0 && seconds < 1) return `less than 1${NBSP}s`;
  const s = Math.max(0, Math.round(seconds));
  if (s < 60) return `${s}${NBSP}s`;
  if (s < 3_600) return `${Math.floor(s / 60)}${NBSP}min ${s % 60}${NBSP}s`;
  if (s < 86_400) return `${Math.floor(s / 3_600)}${NBSP}h ${Math.floor((s % 3_600) / 60)}${NBSP}min`;
  return `${Math.floor(s / 86_400)}${NBSP}d ${Math.floor((s % 86_400) / 3_600)}${NBSP}h`;
}

/** 1610612736 → "1.5 GiB" */
export function bytes(count) {
  let unit = 0, value = count;
  for (; value >= 1024 && unit < 4; unit += 1) value /= 1024;
  const number = value >= 100 || unit === 0 ? Math.round(value) : value.toFixed(1);
  return `${number}${NBSP}${["B", "KiB", "MiB", "GiB", "TiB"][unit]}`;
}

export const withoutScheme = (url) => url.replace(/^https?:\/\//, "").replace(/\.git$|\/$/, "");
export const repoText = ({ gitRepo, branch }) =>
  gitRepo === null ? "from archives alone" : withoutScheme(gitRepo) + (branch ? ` @ ${branch}` : "");

/** Why a deploy failed, in one line. The app's last lines, which may follow it, are in the log. */
export function reasonOf({ error }) {
  const [first, ...more] = (error || "failed without a reason").split("\n");
  const line = (more.length > 0 ? first.replace(/(; [^;]*)?:$/, ".") : first)
    // The word "Failed" stands beside it already.
    .replace(/^(fetching|building|starting|checking) failed: /, "while $1: ");
  return line.charAt(0).toUpperCase() + line.slice(1);
}
