// The tab with an app's deploys: the log of one, live while it runs, and the history of all.

import {
  copy, duration, Failure, get, isCrashed, onClick, onSubmit, openDialog, part, post, reasonOf, say,
  showStatus, showTime, statusWord,
} from "./core.js";
import { logBox } from "./log.js";

const STEPS = ["queued", "fetching", "building", "starting", "checking", "live"];
const PAGE = 20;
const STEP_POLL_MS = 1_500;

const BY = {
  api: ", by the API", webhook: ", by a push", rollback: ", a rollback", restart: ", a restart", upload: ", an upload",
};
const isFinal = ({ status }) => status === "live" || status === "failed";
const took = ({ startedAt, finishedAt }) => duration((finishedAt - startedAt) / 1000);

function nameOf(deploy) {
  if (deploy.commit === null) return "Deploy";
  return [deploy.commit.slice(0, 7), deploy.commitMessage].filter(Boolean).join("  ");
}

export async function deploysTab(page) {
  const root = copy("tab-deploys");
  const path = `${page.path}/deploys`;
  // In the server's order, newest first: by the clock, one that jumped would mix them up.
  let known = new Map();
  let shownId = null, shown = null, showAgain = () => {}, stopShown = new AbortController();

  const add = (deploys) => {
    for (const deploy of deploys) known.set(deploy.id, deploy);
  };

  function showList() {
    const deploys = [...known.values()];
    part(root, "list").replaceChildren(...deploys.map((deploy) => rowOf(deploy, page, shownId)));
    part(root, "list").hidden = deploys.length === 0;
    part(root, "empty").hidden = deploys.length > 0;
  }

  function showOne(deploy) {
    if (!deploy || deploy.id === shownId) return;
    stopShown.abort();
    stopShown = new AbortController();
    shownId = deploy.id;
    shown = deploy;
    part(root, "shown").hidden = false;
    showRollBack();
    const signal = AbortSignal.any([page.signal, stopShown.signal]);
    showAgain = showDeploy(page, part(root, "shown"), deploy, signal, (now) => {
      if (known.has(now.id)) add([now]);
      shown = now;
      showList();
      // The app knows only now which release is live.
      if (isFinal(now)) get(page.path).then((app) => page.signal.aborted || page.show(app), () => {});
    });
  }

  function showRollBack() {
    part(root, "roll-back").hidden = !shown.canRollBack || shownId === page.app.liveDeployId;
  }
  // What comes of it comes as any news of the deploy.
  onClick(part(root, "cancel"), part(root, "log-error"), () => post(`/api/deploys/${shownId}/cancel`));
  const dialog = part(root, "back");
  part(root, "roll-back").addEventListener("click", () => {
    say(dialog, { "back-what": nameOf(shown) });
    showTime(part(dialog, "back-when"), shown.finishedAt);
    openDialog(dialog);
  });
  onSubmit(dialog.querySelector("form"), async () => {
    const { id } = await post(`${page.path}/rollback`, { deployId: shownId });
    dialog.close();
    page.go(`#/apps/${page.id}/deploys/${id}`);
  });

  async function load() {
    const { deploys } = await get(`${path}?limit=${PAGE}`);
    const before = known;
    known = new Map();
    add([...deploys, ...[...before.values()].filter(({ id }) => !deploys.some((deploy) => deploy.id === id))]);
    return deploys;
  }

  const [first, chosen] = await Promise.all([load(), page.deployId ? get(`/api/deploys/${page.deployId}`) : null]);
  if (chosen && chosen.appId !== page.id) throw new Failure(404, "This app has no such deploy.");
  const older = part(root, "older");
  older.hidden = first.length < PAGE;
  showOne(chosen ?? first[0]);
  showList();
  if (page.deployId) {
    part(root, "title").tabIndex = -1;
    part(root, "title").dataset.focus = "";
  }

  onClick(older, older.parentElement.querySelector(".error"), async () => {
    const { deploys } = await get(`${path}?limit=${PAGE}&before=${[...known.keys()].at(-1)}`);
    add(deploys);
    older.hidden = deploys.length < PAGE;
    showList();
  });
  page.onChange(async () => {
    showAgain();
    try {
      const [newest] = await load();
      if (!page.deployId) showOne(newest);
      showList();
      if (shown) showRollBack();
    } catch {
      // The next change tries again.
    }
  });
  return { root };
}

function rowOf(deploy, page, shownId) {
  const row = copy("deploy-row");
  const status = part(row, "status"), what = part(row, "what");
  showStatus(status, deploy.status);
  if (deploy.status === "live" && deploy.id !== page.app.liveDeployId) {
    status.textContent = "Was live";
    status.classList.add("past");
  }
  what.textContent = nameOf(deploy);
  what.href = `#/apps/${page.id}/deploys/${deploy.id}`;
  if (deploy.id === page.app.liveDeployId && isCrashed(page.app)) showStatus(status, page.app.status);
  if (deploy.id === shownId) what.ariaCurrent = "true";
  showTime(part(row, "when"), deploy.createdAt);
  const how = BY[deploy.trigger] ?? "";
  const time = isFinal(deploy) && deploy.startedAt !== null ? `, took ${took(deploy)}` : "";
  say(row, { how: how + time, error: deploy.error && reasonOf(deploy) });
  return row;
}

/** Shows one deploy and follows it to its end; `changed` gets each news of it. Gives what shows its state anew. */
function showDeploy(page, root, deploy, signal, changed) {
  const path = `/api/deploys/${deploy.id}`;
  part(root, "log-error").textContent = "";

  function show(now) {
    if (signal.aborted) return;
    say(root, { title: nameOf(now), author: now.commitAuthor && `by ${now.commitAuthor}` });
    part(root, "cancel").hidden = isFinal(now);
    showSteps(part(root, "steps"), now);
    const result = part(root, "result");
    const crashed = now.id === page.app.liveDeployId && isCrashed(page.app);
    result.dataset.status = crashed ? "crashed" : isFinal(now) ? now.status : "";
    say(root, { result: isFinal(now) ? resultOf(now, crashed, page.app) : "" });
  }
  const again = () => show(deploy);
  show(deploy);

  const showLog = (more) => {
    const box = logBox({
      label: "Log of the deploy", hook: "build-log", name: `deploy-${deploy.id}`, signal,
      path: `${path}/log`, ...more,
    });
    (root.querySelector(".log") ?? part(root, "log")).replaceWith(box);
  };
  if (isFinal(deploy)) {
    showLog({});
    return again;
  }
  const news = (now) => {
    deploy = now;
    show(now);
    changed(now);
    return isFinal(now);
  };
  // The socket brings the lines and the end; the steps between are asked for.
  const steps = setInterval(async () => {
    const now = await get(path).catch(() => deploy);
    if (!isFinal(deploy) && now.status !== deploy.status) news(now);
    if (isFinal(deploy)) clearInterval(steps);
  }, STEP_POLL_MS);
  signal.addEventListener("abort", () => clearInterval(steps));
  showLog({ live: `/ws/deploys/${deploy.id}`, ended: news, poll: () => get(path) });
  return again;
}

function resultOf(deploy, crashed, app) {
  if (deploy.status === "failed") {
    const serving = app.liveDeployId !== null && app.status === "running";
    const unchanged = "\nNothing has changed for visitors: the release before it keeps running.";
    return reasonOf(deploy) + (serving ? unchanged : "");
  }
  if (crashed) return "Went live; the app has crashed since.";
  return deploy.startedAt === null ? "Live." : `Live after ${took(deploy)}.`;
}

/** How much of the longest step one took; the words beside it say it too. */
function barOf(value, max) {
  const bar = Object.assign(document.createElement("progress"), { max: Math.max(1, max), value });
  bar.ariaHidden = "true";
  return bar;
}

/** The steps with the time that each took; of a failed deploy those that it came to, up to where it ended. */
function showSteps(list, { status, steps }) {
  const failed = status === "failed";
  const shown = failed ? steps.map(({ step }) => step) : STEPS;
  const at = failed ? shown.length - 1 : STEPS.indexOf(status);
  const longest = Math.max(...steps.map(({ startedAt, finishedAt }) => (finishedAt ?? startedAt) - startedAt));
  list.hidden = shown.length === 0;
  list.replaceChildren(...shown.map((step, place) => {
    const item = document.createElement("li");
    const taken = steps.find((one) => one.step === step);
    const ended = failed && place === at ? " failed after" : "";
    item.textContent = statusWord(step) + (taken?.finishedAt ? `${ended} ${took(taken)}` : ended && " failed");
    if (taken?.finishedAt) item.append(barOf(taken.finishedAt - taken.startedAt, longest));
    item.className = place < at || status === "live" ? "done" : place > at ? "" : failed ? "bad" : "now";
    if (item.className === "now") item.ariaCurrent = "step";
    return item;
  }));
}
