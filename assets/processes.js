// The tab with what an app runs besides answering requests: process types, jobs, and commands of its owner's.

import {
  copy, dateTime, get, onClick, onStats, onSubmit, part, patch, post, put, say, showStatus, showTime,
} from "./core.js";
import { logBox } from "./log.js";

const RECENT = 10;
const LOOK_MS = 2_000;

export async function processesTab(page) {
  const root = copy("tab-processes");
  const follow = bindRuns(root, page);
  const [showProcesses, showJobs] = [bindProcesses(root, page), bindJobs(root, page, follow)];
  const again = () => Promise.all([showProcesses(), showJobs()]);
  let loading = false, at = Date.now();
  // The stats say nothing of workers and jobs: they are asked for, as long as somebody looks.
  onStats(page.signal, async () => {
    if (loading || document.hidden || Date.now() - at < LOOK_MS) return;
    loading = true;
    await again().catch(() => {});
    [loading, at] = [false, Date.now()];
  });
  await Promise.all([again(), showRuns(root, page, follow)]);
  return { root };
}

function bindProcesses(root, page) {
  const list = part(root, "processes"), place = part(root, "processes-error");
  const path = `${page.path}/processes`;
  const shown = new Map();

  function rowOf({ name, command, scale }) {
    const row = copy("process-row"), input = row.querySelector("input");
    say(row, { name, command });
    part(row, "scale").hidden = name === "web";
    input.value = scale;
    input.ariaLabel = `How many of ${name}`;
    part(row, "set").ariaLabel = `Set how many of ${name}`;
    onClick(part(row, "set"), place, async () => {
      // An emptied field is no number, and none is not meant by it.
      if (!input.reportValidity()) return;
      await patch(`${path}/${encodeURIComponent(name)}`, { scale: Number(input.value) });
      await show();
    });
    return row;
  }

  async function show() {
    const { processes } = await get(path);
    if (page.signal.aborted) return;
    for (const name of shown.keys()) {
      if (!processes.some((one) => one.name === name)) shown.delete(name);
    }
    // A row that is there keeps what its reader is typing.
    list.replaceChildren(...processes.map((process) => {
      const row = shown.get(process.name) ?? rowOf(process);
      shown.set(process.name, row);
      say(row, { command: process.command });
      part(row, "instances").replaceChildren(...process.instances.map(instanceOf));
      return row;
    }));
    list.hidden = processes.length === 0;
    part(root, "no-processes").hidden = processes.length > 0;
  }
  return show;
}

function instanceOf({ number, status, restarts, lastExit, nextStartAt }) {
  const item = document.createElement("li"), word = document.createElement("span");
  word.className = "status";
  showStatus(word, status);
  const facts = [
    restarts > 0 && `started again ${restarts === 1 ? "once" : `${restarts} times`}`,
    lastExit && `ended with ${lastExit}`,
    nextStartAt && `next start at ${new Date(nextStartAt).toLocaleTimeString()}`,
  ].filter(Boolean).join(", ");
  item.append(`${number} `, word, facts && ` ${facts}`);
  return item;
}

function bindJobs(root, page, follow) {
  const list = part(root, "jobs"), form = part(root, "job-form"), place = part(root, "jobs-error");
  const path = `${page.path}/jobs`;
  let own = [], tag = "";
  /** Writes the owner's jobs as `edit` makes them, also where they were changed elsewhere since they were read. */
  async function write(edited, edit) {
    const jobOf = () => JSON.stringify(own.find(({ name }) => name === edited));
    const before = jobOf();
    try {
      await put(path, { jobs: edit(own) }, tag);
    } catch (failure) {
      if (failure.status !== 412) throw failure;
      await show();
      const asks = `${edited} was changed elsewhere meanwhile. Look at it, then try again.`;
      if (jobOf() !== before) throw new Error(asks);
      return write(edited, edit);
    }
    await show();
  }

  function rowOf({ name, schedule, command, from, nextRunAt, lastRun }) {
    const row = copy("job-row");
    say(row, { name, schedule, command, from: from === "owner" ? "" : `from ${from}` });
    say(row, { next: nextRunAt ? `Next: ${dateTime(nextRunAt)}` : "Does not run now" });
    part(row, "last").replaceChildren(...(lastRun ? runText("Last:", lastRun) : ["Has not run yet"]));
    part(row, "run").ariaLabel = `Run ${name} now`;
    onClick(part(row, "run"), place, async () => {
      follow(await post(`${path}/${encodeURIComponent(name)}/run`), name);
    });
    part(row, "log").hidden = !lastRun;
    part(row, "log").ariaLabel = `Log of the last run of ${name}`;
    part(row, "log").addEventListener("click", () => follow(lastRun, name));
    part(row, "remove").hidden = from !== "owner";
    part(row, "remove").ariaLabel = `Remove ${name}`;
    onClick(part(row, "remove"), place, () => write(name, (jobs) => jobs.filter((job) => job.name !== name)));
    return row;
  }

  async function show() {
    const { jobs, tag: now } = await get(path);
    if (page.signal.aborted) return;
    tag = now;
    own = jobs.filter(({ from }) => from === "owner")
      .map(({ name, command, schedule }) => ({ name, command, schedule }));
    list.replaceChildren(...jobs.map(rowOf));
    list.hidden = jobs.length === 0;
    part(root, "no-jobs").hidden = jobs.length > 0;
  }
  onSubmit(form, async ({ name, command, schedule }) => {
    const job = { name: name.value.trim(), command: command.value.trim(), schedule: schedule.value.trim() };
    await write(job.name, (jobs) => [...jobs.filter((one) => one.name !== job.name), job]);
    form.reset();
    form.closest("details").open = false;
  });
  return show;
}

/** When a run began and what came of it. */
function runText(word, { startedAt, finishedAt, result }) {
  const time = document.createElement("time");
  showTime(time, startedAt);
  return [`${word} `, time, `, ${finishedAt ? result : "still runs"}`];
}

/** The form that runs a command, and the box with the output of one run. Gives what shows another one there. */
function bindRuns(root, page) {
  const form = part(root, "run-form"), error = part(root, "run-error"), cancel = part(root, "run-cancel");
  let shownId = null, stop = new AbortController();

  function news(run) {
    cancel.hidden = run.finishedAt !== null;
    const result = part(root, "run-result");
    result.dataset.status = run.finishedAt === null ? "" : run.result === "exit code 0" ? "live" : "failed";
    say(root, { "run-result": run.finishedAt === null ? "" : `Ended: ${run.result}` });
    return run.finishedAt !== null;
  }
  function follow({ id }, title) {
    stop.abort();
    stop = new AbortController();
    shownId = id;
    error.textContent = "";
    part(root, "run-shown").hidden = false;
    say(root, { "run-title": title, "run-result": "" });
    cancel.hidden = false;
    const ended = (run) => {
      const over = news(run);
      if (over) showRuns(root, page, follow).catch(() => {});
      return over;
    };
    const box = logBox({
      label: "Output of the command", hook: "run-log", name: `run-${id}`,
      signal: AbortSignal.any([page.signal, stop.signal]),
      path: `/api/runs/${id}/log`, live: `/ws/runs/${id}`,
      ended: (run) => !run || ended(run),
      poll: async () => (await get(`${page.path}/runs`)).runs.find((one) => one.id === id),
    });
    (part(root, "run-shown").querySelector(".log") ?? part(root, "run-log")).replaceWith(box);
    part(root, "run-title").scrollIntoView({ block: "nearest" });
  }
  onClick(cancel, error, () => post(`/api/runs/${shownId}/cancel`));
  onSubmit(form, async ({ command }) => {
    follow(await post(`${page.path}/run`, { command: command.value.trim() }), command.value.trim());
  });
  return follow;
}

/** The newest runs, of jobs and of the owner's commands. */
async function showRuns(root, page, follow) {
  const { runs } = await get(`${page.path}/runs`);
  if (page.signal.aborted) return;
  part(root, "runs").replaceChildren(...runs.slice(0, RECENT).map((run) => {
    const row = copy("run-row"), title = run.job ?? "A command";
    say(row, { what: title });
    part(row, "how").replaceChildren(...runText("", run));
    part(row, "what").addEventListener("click", () => follow(run, title));
    return row;
  }));
  part(root, "runs-part").hidden = runs.length === 0;
}
