// The checklist, judged by the server; lockouts, and the admin token.

import {
  copy, copyText, duration, get, inCode, isReadable, onClick, onSubmit, openDialog, part, remove,
  rotateToken, say, showTime,
} from "./core.js";

const AGAIN_MS = 20_000;
const WORD = { fail: "To be mended", warn: "Could be better", pass: "Well" };

export async function securityView({ signal, rotated }) {
  const root = copy("view-security");
  const [checked, lockouts, system] = await Promise.all([check(), get(LOCKOUTS), get("/api/system")]);
  part(root, "plain-http").hidden = !isReadable;
  bindChecks(root, checked, signal);
  bindLockouts(root, lockouts, signal);
  bindRotation(root, system, rotated);
  return { root, title: "Security" };
}

/** Tells the server this browser's time too, so that it can judge its own clock. */
const check = () => get(`/api/security/check?now=${Date.now()}`);

function bindChecks(root, first, signal) {
  const place = part(root, "check-error");
  let shown = "";
  function show({ checkedAt, findings }) {
    showTime(part(root, "checked-at"), checkedAt);
    const now = JSON.stringify(findings);
    // Who reads, or has a button's focus, is not disturbed for nothing.
    if (now === shown) return;
    shown = now;
    const bad = findings.filter(({ level }) => level !== "pass");
    const well = findings.filter(({ level }) => level === "pass");
    part(root, "findings").replaceChildren(...bad.map(findingRow));
    part(root, "well").replaceChildren(...well.map(findingRow));
    say(root, {
      "check-state": bad.length === 0 ? "Everything is well." : `${count(bad, "fail")}, ${count(bad, "warn")}.`,
      "well-count": `${well.length} points are well`,
    });
  }
  show(first);
  onClick(part(root, "check-again"), place, async () => show(await check()));
  const looking = setInterval(async () => {
    if (document.hidden) return;
    try {
      show(await check());
      place.textContent = "";
    } catch (failure) {
      place.textContent = failure.message;
    }
  }, AGAIN_MS);
  signal.addEventListener("abort", () => clearInterval(looking));
}

function count(findings, level) {
  const n = findings.filter((finding) => finding.level === level).length;
  if (level === "fail") return n === 1 ? "1 thing is to be mended" : `${n} things are to be mended`;
  return `${n} could be better`;
}

const capital = (sentence) => sentence.charAt(0).toUpperCase() + sentence.slice(1);

function findingRow({ level, sentence, mend, appId }) {
  const row = copy("finding-row");
  row.dataset.level = level;
  say(row, { level: WORD[level] });
  inCode(part(row, "sentence"), capital(sentence));
  inCode(part(row, "mend"), mend);
  part(row, "mend").hidden = mend === "";
  const command = part(row, "mend").querySelector("code"), button = part(row, "copy");
  button.hidden = command === null;
  if (command) button.addEventListener("click", () => copyText(command, part(row, "copied")));
  const link = part(row, "app");
  link.hidden = appId === null;
  if (appId) link.href = `#/apps/${appId}`;
  return row;
}

const LOCKOUTS = "/api/security/lockouts";

function bindLockouts(root, first, signal) {
  const place = part(root, "lockouts-error"), again = part(root, "lockouts-again");
  let shown = [];

  function show({ lockouts }) {
    shown = lockouts.map((lockout) => ({ lockout, row: copy("lockout-row") }));
    for (const { lockout: { client }, row } of shown) {
      say(row, { client });
      part(row, "clear").ariaLabel = `Clear ${client}`;
      onClick(part(row, "clear"), place, async () => {
        await remove(`${LOCKOUTS}/${encodeURIComponent(client)}`);
        show(await get(LOCKOUTS));
        again.focus();
      });
    }
    part(root, "lockouts").replaceChildren(...shown.map(({ row }) => row));
    part(root, "lockouts").hidden = shown.length === 0;
    part(root, "no-lockouts").hidden = shown.length > 0;
    count();
  }
  function count() {
    for (const { lockout: { failures, lockedUntilAt }, row } of shown) {
      const left = (lockedUntilAt - Date.now()) / 1000;
      const until = left > 0 ? `locked out for ${duration(Math.ceil(left))}` : "may try again now";
      say(row, { detail: `${failures} wrong tokens, ${until}` });
    }
  }
  show(first);
  const counting = setInterval(count, 1_000);
  signal.addEventListener("abort", () => clearInterval(counting));
  onClick(again, place, async () => show(await get(LOCKOUTS)));
}

function bindRotation(root, { tokenSource }, rotated) {
  const pinned = tokenSource === "environment";
  const dialog = part(root, "rotate-dialog");
  part(root, "rotate").disabled = pinned;
  say(root, {
    "token-source": pinned
      ? "ADMIN_TOKEN in the server's environment sets the token. To change it, change it there and restart the server."
      : "The token opens everything here. Make a new one when somebody may have seen it.",
  });
  part(root, "rotate").addEventListener("click", () => openDialog(dialog));
  onSubmit(dialog.querySelector("form"), async () => {
    const token = await rotateToken();
    dialog.close();
    rotated(token);
  });
}
