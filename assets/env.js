// The editor of an app's environment. A saved secret is shown as saved, and kept unless it is replaced.

import { copy, get, onClick, onSubmit, openDialog, part, put, say } from "./core.js";
import { changes, merge, parseDotenv } from "./variables.js";

export async function envTab(page) {
  const root = copy("tab-env");
  const list = part(root, "rows");
  const path = `${page.path}/env`, form = root.querySelector("form");
  // What is stored, and the name of that state, as far as this page has seen.
  let stored = [], tag = "";

  const rows = () => [...list.children];
  const read = () => rows().map(readRow).filter(given);
  const dirty = () => JSON.stringify(read()) !== JSON.stringify(stored);

  function addRow(entry) {
    const row = makeRow(entry, () => {
      const next = row.nextElementSibling ?? row.previousElementSibling;
      row.remove();
      (next ? part(next, "remove") : part(root, "add")).focus();
      update();
    });
    list.append(row);
    return row;
  }

  function update() {
    part(root, "none").hidden = list.children.length > 0;
    say(root, { saved: dirty() ? "Not saved yet." : "" });
  }

  function draw(entries) {
    list.replaceChildren();
    entries.forEach(addRow);
    return read();
  }

  function show(answer) {
    stored = draw(answer.env);
    tag = answer.tag;
    update();
  }

  async function save() {
    const sent = rows().filter((row) => given(readRow(row)));
    try {
      return await put(path, { env: sent.map(readRow) }, tag);
    } catch (failure) {
      if (failure.status !== 412) throw atItsRow(failure, sent);
      return saveBoth();
    }
  }

  /** Another tab, or a script, has saved meanwhile: what it did stays, and so does what was done here. */
  async function saveBoth() {
    const [base, mine, theirs] = [stored, read(), await get(path)];
    const { conflicts } = merge(base, mine, theirs.env);
    const answers = await review(root, {
      title: "The environment was changed elsewhere",
      why: "In another tab, or by a script, since this page read it. Both edits are kept but where they contradict.",
      take: "Save both", conflicts,
      rows: changes(base, theirs.env).filter(({ name }) => !conflicts.some((one) => one.name === name)),
    });
    if (answers === null) throw new Error("Not saved: the environment was changed elsewhere.");
    const choices = new Map(conflicts.map(({ name }, place) => [name, answers.get(`choice-${place}`)]));
    [stored, tag] = [theirs.env, theirs.tag];
    draw(merge(base, mine, theirs.env, choices).list);
    return save();
  }

  part(root, "add").addEventListener("click", () => {
    addRow({ name: "", value: "", secret: true }).querySelector("input").focus();
    update();
  });
  root.addEventListener("input", update);
  onSubmit(form, async () => {
    const nameless = rows().find((row) => readRow(row).name === "" && readRow(row).value);
    if (nameless) {
      throw Object.assign(new Error("A value has no name yet."), { input: nameless.querySelector("input") });
    }
    show(await save());
    // The server says what of it is not live.
    page.show(await get(page.path));
    const runs = page.app.liveDeployId !== null && !["stopped", "stopping"].includes(page.app.status);
    say(root, { saved: runs ? "Saved. Restart or deploy the app to use it." : "Saved. The next start uses it." });
  });

  /** Takes the variables of a whole file over into the rows; nothing is saved yet. */
  async function takeFile(text) {
    if (text.length > LONGEST_FILE) throw new Error("This is too large for a .env: at most 128 KiB.");
    const found = new Map(parseDotenv(text).map((one) => [one.name, one])), mine = read();
    const own = new Set(mine.map(({ name }) => name));
    const added = [...found.values()].filter(({ name }) => !own.has(name)).map((one) => ({ ...one, secret: true }));
    const after = [...mine.map((one) => ({ ...one, ...found.get(one.name) })), ...added];
    const rest = mine.filter(({ name }) => !found.has(name)).map(({ name }) => name);
    const answers = await review(root, {
      title: "Take these variables over?",
      why: "Nothing is saved before you press Save. New ones are secret; uncheck what may be read again.",
      take: "Take over", rows: changes(mine, after), rest,
    });
    if (answers === null) return;
    draw(answers.has("rest") ? after.filter(({ name }) => found.has(name)) : after);
    update();
    form.querySelector("button:not([type])").focus();
  }

  function take(event, text) {
    event.preventDefault();
    const place = form.querySelector(".error");
    place.textContent = "";
    Promise.resolve(text).then(takeFile).catch((failure) => (place.textContent = failure.message));
  }
  const inField = ({ target }) => target.closest?.("dialog, input, textarea");
  const { signal } = page;
  document.addEventListener("paste", (event) => {
    const text = event.clipboardData.getData("text/plain"), field = inField(event);
    // What is pasted into a value is one; in a name there is no equals sign.
    if (field ? field.name === "name" && text.includes("=") : text) take(event, text);
  }, { signal });
  document.addEventListener("dragover", (event) => inField(event) || event.preventDefault(), { signal });
  document.addEventListener("drop", (event) => {
    const [file] = event.dataTransfer.files;
    if (file) take(event, file.size > LONGEST_FILE ? "x".repeat(LONGEST_FILE + 1) : file.text());
    else if (!inField(event)) take(event, event.dataTransfer.getData("text/plain"));
  }, { signal });

  function showNotLive() {
    const names = page.app.envNotLive ?? [];
    part(root, "not-live").hidden = names.length === 0;
    say(root, {
      "not-live-count": `${names.length} ${names.length === 1 ? "change" : "changes"} not live:`,
      "not-live-names": `${names.join(", ")}.`,
    });
  }
  page.onChange(showNotLive);
  showNotLive();
  onClick(part(root, "restart-now"), form.querySelector(".error"), page.restart);
  show(await get(path));
  return { root, dirty };
}

// Characters; the server takes as many bytes.
const LONGEST_FILE = 128 * 1024;

// A row that was added and left empty is nothing to store.
const given = ({ name, value }) => name !== "" || value;

/** A failure that names `env[3].name`, told as a person counts, with the input it is about. */
function atItsRow(failure, sent) {
  const [place, index, field] = /env\[(\d+)\](?:\.(\w+))?/.exec(failure.message) ?? [];
  const row = sent[index];
  if (!row) return failure;
  const shown = rowsWith(row).indexOf(row) + 1;
  failure.message = failure.message.replace(place, `Variable ${shown}: ${field ? `the ${field}` : "it"}`);
  failure.input = row.querySelector(`[name="${field}"]`) ?? row.querySelector("input");
  return failure;
}

const rowsWith = (row) => [...row.parentElement.children];

/** A value as it is told in a few words; a secret is told to nobody. */
function shownValue(entry) {
  if (!entry) return "removed";
  if (entry.secret || entry.value === undefined) return "a secret";
  return entry.value === "" ? "empty" : entry.value.slice(0, 200);
}

/**
 * Shows what is about to change. `conflicts` are asked for, and whether the names of `rest` are to go. Gives the
 * answers, or null when it is called off.
 */
function review(root, { title, why, take, rows, conflicts = [], rest = [] }) {
  const dialog = part(root, "review"), form = dialog.querySelector("form");
  say(dialog, { "review-title": title, "review-why": why, "review-take": take });
  part(dialog, "review-rest").hidden = rest.length === 0;
  say(dialog, { "review-rest-names": `Remove what the file does not name: ${rest.join(", ")}` });
  const items = rows.map(({ what, name }) => {
    const item = copy("env-change");
    say(item, { what, name });
    part(item, "ask").remove();
    return item;
  });
  const asked = conflicts.map(({ name, own, other }, place) => {
    const item = copy("env-change");
    say(item, { what: "Changed in both:", name });
    say(item, { mine: `Here: ${shownValue(own)}`, theirs: `Elsewhere: ${shownValue(other)}` });
    part(item, "ask").ariaLabel = name;
    for (const input of item.querySelectorAll("input")) input.name = `choice-${place}`;
    return item;
  });
  part(dialog, "review-list").replaceChildren(...asked, ...items);
  return new Promise((done) => {
    // Not by the dialog's end, of which one hears only after the next click.
    form.onsubmit = (event) => {
      event.preventDefault();
      done(new FormData(form));
      dialog.close();
    };
    dialog.onclose = () => done(null);
    openDialog(dialog);
  });
}

/** One row; it keeps a stored secret as long as its value box is not opened. */
function makeRow({ name, value, secret }, removed) {
  const row = copy("env-row");
  const [nameInput, valueInput, secretInput] = row.querySelectorAll("input, textarea");
  // A secret, or one that was lost with the key: either stays as it is until it is given anew.
  const kept = value === undefined;
  nameInput.value = name;
  valueInput.value = value ?? "";
  secretInput.checked = secret;
  // The stored value belongs to this name, so both stay until it is replaced.
  nameInput.readOnly = kept;
  secretInput.disabled = kept;
  part(row, "value").hidden = kept;
  const mask = () => valueInput.classList.toggle("masked", secretInput.checked);
  mask();
  secretInput.addEventListener("change", mask);
  part(row, "replace").ariaLabel = `Replace ${name}`;
  part(row, "replace").addEventListener("click", () => {
    secretInput.disabled = false;
    part(row, "value").hidden = false;
    part(row, "kept").remove();
    valueInput.focus();
    row.dispatchEvent(new Event("input", { bubbles: true }));
  });
  if (!kept) part(row, "kept").remove();
  part(row, "remove").addEventListener("click", removed);
  part(row, "remove").ariaLabel = `Remove ${name || "this variable"}`;
  return row;
}

function readRow(row) {
  const [name, value, secret] = row.querySelectorAll("input, textarea");
  const entry = { name: name.value.trim(), secret: secret.checked };
  if (!part(row, "value").hidden) entry.value = value.value;
  return entry;
}
