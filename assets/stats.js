// What the server says each second about the machine and the apps, for every screen.

import { get, LiveSocket } from "./api.js";
import { bytes, dateTime, duration, inCode, part, say } from "./ui.js";

// What the server says in its first moments is no advice yet.
const PENDING = /^it is being looked at/;

/** Says "stats" with the message as `detail`. */
export const stats = new EventTarget();

export function watchStats(signal) {
  const tell = (detail) => void stats.dispatchEvent(new CustomEvent("stats", { detail }));
  new LiveSocket(() => "/ws/stats", {
    signal,
    message: tell,
    async poll() {
      const [{ apps }, system] = await Promise.all([get("/api/apps"), get("/api/system")]);
      tell({ machine: system.machine, server: { memoryBytes: system.memoryBytes }, apps });
    },
  });
}

export function onStats(signal, then) {
  stats.addEventListener("stats", ({ detail }) => then(detail), { signal });
}

export function showMachine(root, { machine, server }) {
  const { memoryTotalBytes, memoryAvailableBytes, diskTotalBytes, diskFreeBytes, loadAverage, cores } = machine;
  say(root, {
    memory: `${bytes(memoryTotalBytes - memoryAvailableBytes)} of ${bytes(memoryTotalBytes)}`,
    disk: `${bytes(diskFreeBytes)} free of ${bytes(diskTotalBytes)}`,
    server: bytes(server.memoryBytes),
  });
  if (loadAverage !== undefined) {
    say(root, { load: `${loadAverage[0].toFixed(2)} of ${cores} ${cores === 1 ? "core" : "cores"}` });
  }
  part(root, "memory-meter").value = 1 - memoryAvailableBytes / memoryTotalBytes;
  part(root, "disk-meter").value = 1 - diskFreeBytes / diskTotalBytes;
}

export function showRuntime(root, { ready, message }) {
  part(root, "runtime").hidden = ready;
  inCode(part(root, "runtime-message"), message ?? "");
}

const ROUTER = { off: "Off", starting: "Starting", missing: "Not running" };

function routerText({ state, version, httpPort, httpsPort }) {
  if (state !== "running") return ROUTER[state];
  return `Caddy ${version} on ${httpsPort === null ? `port ${httpPort}` : `ports ${httpPort} and ${httpsPort}`}`;
}

function fenceText({ inForce, problem }) {
  if (inForce) return "In force";
  return PENDING.test(problem) ? "Being looked at" : "Not in force";
}

const updateText = (update) => update
  ? `${update.version}, ${update.result}, ${dateTime(update.finishedAt)}${update.reason ? `: ${update.reason}` : ""}`
  : "None";

export const systemFacts = (system) => [
  ["Version", system.version],
  ["Last update", updateText(system.lastUpdate)],
  ["Host", system.hostName],
  ["Running for", duration(system.uptimeSeconds)],
  ["Apps can run", system.runtime.ready ? "Yes" : "No"],
  ["Router", routerText(system.router)],
  ["Apps' users", system.identity.perApp ? "One for each app" : "One for all apps"],
  ["Firewall", fenceText(system.firewall)],
  ["Port fence", fenceText(system.portFence)],
  ["Socket fence", fenceText(system.socketFence)],
  ["Server's memory", bytes(system.memoryBytes)],
  ["Machine's memory",
    `${bytes(system.machine.memoryAvailableBytes)} available of ${bytes(system.machine.memoryTotalBytes)}`],
  ["Disk", `${bytes(system.machine.diskFreeBytes)} free of ${bytes(system.machine.diskTotalBytes)}`],
];
