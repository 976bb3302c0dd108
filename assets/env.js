// The editor of an app's environment. A saved secret is shown as saved, and kept unless it is replaced.

import { copy, get, onSubmit, part, put, say } from "./core.js";

export async function envTab(page) {
  const root = copy("tab-env");
  const list = part(root, "rows");
  const path = `${page.path}/env`;
  let before = "";

  const rows = () => [...list.children];
  const read = () => rows().map(readRow).filter(given);
  const dirty = () => JSON.stringify(read()) !== before;

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

  function show({ env }) {
    list.replaceChildren();
    env.forEach(addRow);
    before = JSON.stringify(read());
    update();
  }

  part(root, "add").addEventListener("click", () => {
    addRow({ name: "", value: "", secret: false }).querySelector("input").focus();
    update();
  });
  root.addEventListener("input", update);
  onSubmit(root, async () => {
    const nameless = rows().find((row) => readRow(row).name === "" && readRow(row).value);
    if (nameless) {
      throw Object.assign(new Error("A value has no name yet."), { input: nameless.querySelector("input") });
    }
    const sent = rows().filter((row) => given(readRow(row)));
    let answer;
    try {
      answer = await put(path, { env: sent.map(readRow) });
    } catch (failure) {
      throw atItsRow(failure, sent);
    }
    show(answer ?? (await get(path)));
    if (page.app.lost.length > 0) page.show(await get(page.path));
    const runs = page.app.liveDeployId !== null && !["stopped", "stopping"].includes(page.app.status);
    say(root, { saved: runs ? "Saved. Restart or deploy the app to use it." : "Saved. The next start uses it." });
  });
  show(await get(path));
  return { root, dirty };
}

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
