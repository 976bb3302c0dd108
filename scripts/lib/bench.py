"""The measurements behind `scripts/bench`, which installs and builds what they need.

Usage: bench.py DIRECTORY-OF-THE-RELEASE-BUILD. Prints a Markdown table to standard output, progress to standard
error. Times and sizes are read from /proc and from wrk; each server is started, measured and ended by its pid.
"""

import http.client
import json
import os
import pathlib
import re
import secrets
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time

RUNS = 3
SECONDS = 3
CONNECTIONS = 32
IDLE_CONNECTIONS = 5000
START_RUNS = 9
TICKS = os.sysconf("SC_CLK_TCK")
PAGE = os.sysconf("SC_PAGE_SIZE")
TOKEN = "bpaas_" + secrets.token_hex(32)


def say(text):
    print(text, file=sys.stderr, flush=True)


def free_port():
    """A port that nobody listens on, below the range that outgoing connections take theirs from."""
    while True:
        port = 20_000 + secrets.randbelow(12_000)
        with socket.socket() as s:
            try:
                s.bind(("0.0.0.0", port))
                return port
            except OSError:
                pass


def stat_fields(pid):
    """The fields of /proc/PID/stat after the program's name, or None when the process has gone."""
    try:
        text = pathlib.Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    return text.rpartition(")")[2].split()


def tree(pid):
    """A process and all that descend from it."""
    children = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit() and (fields := stat_fields(entry)):
            children.setdefault(int(fields[1]), []).append(int(entry))
    found, queue = [], [pid]
    while queue:
        one = queue.pop()
        found.append(one)
        queue += children.get(one, [])
    return found


def cpu_seconds(pid):
    return sum((int(f[11]) + int(f[12])) / TICKS for p in tree(pid) if (f := stat_fields(p)))


def memory_mb(pid):
    return sum(int(f[21]) * PAGE for p in tree(pid) if (f := stat_fields(p))) / 1e6


class Server:
    """One contestant: how to start it, and where it answers."""

    path = "/api/apps"

    def __init__(self, name, program, arguments, env=None, port=None):
        self.name, self.program, self.env, self.port = name, program, env, port
        self.arguments = [str(a) for a in arguments]
        self.process = None
        self.log = None

    def start(self):
        """Starts it; returns the seconds until its first answer."""
        self.log = tempfile.NamedTemporaryFile(suffix=".log")
        begin = time.perf_counter()
        self.process = subprocess.Popen(
            [self.program, *self.arguments], env=self.env, stdin=subprocess.DEVNULL, stdout=self.log, stderr=self.log
        )
        while time.perf_counter() - begin < 10:
            try:
                port = self.port if self.env is None else self.logged_port()
                if self.get(port):
                    took = time.perf_counter() - begin
                    self.port = port
                    return took
            except OSError:
                time.sleep(0.0002)
            if self.process.poll() is not None:
                break
        raise SystemExit(f"{self.name} did not start:\n{pathlib.Path(self.log.name).read_text()}")

    def logged_port(self):
        found = re.search(r"listening on http://127\.0\.0\.1:(\d+)", pathlib.Path(self.log.name).read_text())
        if not found:
            raise OSError("not yet")
        return int(found[1])

    def get(self, port=None, headers=None):
        c = http.client.HTTPConnection("127.0.0.1", port or self.port, timeout=5)
        c.request("GET", self.path, headers={"Authorization": f"Bearer {TOKEN}"} | (headers or {}))
        answer = c.getresponse()
        body = answer.read()
        c.close()
        if answer.status != 200:
            raise SystemExit(f"{self.name} answered {answer.status}: {body[:200]!r}")
        return body

    def stop(self):
        if self.process:
            self.process.terminate()
            try:
                self.process.wait(15)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
            self.process = None


def fill(server):
    """Ten apps with commands of a length that real ones have: about 9 KB of JSON."""
    build = "npm ci --no-audit --no-fund && npm run build -- --mode production && npm prune --omit=dev"
    start = "node --enable-source-maps --max-old-space-size=256 dist/server/index.js --host 127.0.0.1 --trust-proxy"
    for number in range(10):
        app = {
            "name": f"customer-portal-{number}",
            "gitRepo": f"https://git.example.com/customers/portal-number-{number}.git",
            "branch": "main",
            "rootDir": "apps/portal",
            "buildCommand": f"{build} # {'cache warm ' * 29}",
            "startCommand": f"{start} --instance portal-{number}",
            "healthPath": "/internal/health?verbose=1",
        }
        c = http.client.HTTPConnection("127.0.0.1", server.port, timeout=5)
        c.request(
            "POST",
            "/api/apps",
            json.dumps(app),
            {"Authorization": f"Bearer {TOKEN}", "Content-Type": "application/json"},
        )
        answer = c.getresponse()
        body = answer.read()
        c.close()
        if answer.status != 201:
            raise SystemExit(f"could not add an app: {answer.status} {body[:300]!r}")


def milliseconds(text):
    number, unit = re.fullmatch(r"([\d.]+)(us|ms|s)", text).groups()
    return float(number) * {"us": 1e-3, "ms": 1, "s": 1e3}[unit]


def wrk(server, close):
    """One run of wrk: requests/s, p50 and p99 in ms, CPU seconds per 10,000 requests."""
    before = cpu_seconds(server.process.pid)
    command = ["wrk", "-t1", f"-c{CONNECTIONS}", f"-d{SECONDS}s", "--latency", "-H", f"Authorization: Bearer {TOKEN}"]
    command += ["-H", "Connection: close"] if close else []
    out = subprocess.run(
        [*command, f"http://127.0.0.1:{server.port}{server.path}"], capture_output=True, text=True, timeout=60
    ).stdout
    spent = cpu_seconds(server.process.pid) - before
    if "Non-2xx" in out:
        raise SystemExit(f"{server.name} refused requests:\n{out}")
    if errors := re.search(r"Socket errors: .*", out):
        say(f"  {server.name}: {errors[0]}")
    count = int(re.search(r"(\d+) requests in", out)[1])
    rate = float(re.search(r"Requests/sec:\s+([\d.]+)", out)[1])
    p50, p99 = (milliseconds(re.search(rf"^\s+{p}%\s+(\S+)", out, re.M)[1]) for p in (50, 99))
    return rate, p50, p99, spent / max(count, 1) * 10_000


def median_runs(server, close):
    runs = [wrk(server, close) for _ in range(RUNS)]
    return [statistics.median(values) for values in zip(*runs)]


def idle_crowd(server):
    """Memory while thousands of connections say nothing, and how many of them the server keeps."""
    sockets = []
    try:
        for number in range(IDLE_CONNECTIONS):
            s = socket.socket()
            s.settimeout(2)
            try:
                # As many clients as a crowd would be: fifty connections each.
                s.bind((f"127.0.1.{1 + number // 50}", 0))
                s.connect(("127.0.0.1", server.port))
            except OSError:
                s.close()
                break
            s.setblocking(False)
            sockets.append(s)
        kept, before, deadline = len(sockets), None, time.monotonic() + 10
        while kept != before and time.monotonic() < deadline:
            time.sleep(1)
            before, kept = kept, sum(1 for s in sockets if is_open(s))
        settle(server)
        mb = memory_mb(server.process.pid)
        begin = time.perf_counter()
        try:
            server.get()
            answer = f"{(time.perf_counter() - begin) * 1e3:.0f} ms"
        except OSError:
            answer = "none within 5 s"
        return mb, kept, answer
    finally:
        for s in sockets:
            s.close()


def is_open(s):
    try:
        return s.recv(1) != b""
    except BlockingIOError:
        return True
    except OSError:
        return False


def settle(server):
    """Waits until the server's memory has stopped changing."""
    last, deadline = -1.0, time.monotonic() + 5
    while time.monotonic() < deadline:
        now = memory_mb(server.process.pid)
        if now == last:
            return
        last = now
        time.sleep(0.3)


def measure(server):
    say(f"{server.name} ...")
    starts = []
    for _ in range(START_RUNS):
        starts.append(server.start())
        server.stop()
    server.start()
    try:
        settle(server)
        result = {"start": statistics.median(starts) * 1e3, "idle": memory_mb(server.process.pid)}
        wrk(server, False)  # warm: caches filled, threads started
        result["kept"] = median_runs(server, False)
        result["closed"] = median_runs(server, True)
        settle(server)
        result["after"] = memory_mb(server.process.pid)
        result["crowd"] = idle_crowd(server)
        return result
    finally:
        server.stop()


def contestants(directory, binaries):
    """The server with its database filled, and the others with the same bytes."""
    data = directory / "data"
    env = {"PATH": os.environ["PATH"], "HOME": str(directory), "LISTEN_ADDR": "127.0.0.1:0",
           "ROUTER": "off"}
    env |= {"DATA_DIR": str(data), "ADMIN_TOKEN": TOKEN}
    ours = Server("Better-PaaS", binaries / "server", [], env=env)
    ours.start()
    fill(ours)
    body = ours.get()
    ours.stop()
    ours.port = None

    root = directory / "root" / "api"
    root.mkdir(parents=True)
    (root / "apps").write_bytes(body)
    directory.chmod(0o755)
    ports = [free_port() for _ in range(3)]
    nginx = directory / "nginx.conf"
    nginx.write_text(NGINX % {"port": ports[0], "token": TOKEN, "root": root.parent, "temp": directory})
    caddy = directory / "Caddyfile"
    caddy.write_text(CADDY % {"port": ports[1], "token": TOKEN, "root": root.parent, "temp": directory})
    home = {"PATH": os.environ["PATH"], "HOME": str(directory)}
    return len(body), [
        ours,
        Server("nginx", shutil.which("nginx"), ["-c", nginx, "-p", directory, "-e", directory / "nginx.err"], port=ports[0]),
        Server("Caddy", shutil.which("caddy"), ["run", "--config", caddy, "--adapter", "caddyfile"], port=ports[1]),
        Server(
            "bare tiny_http",
            binaries / "examples" / "bare_tiny_http",
            [f"127.0.0.1:{ports[2]}", TOKEN, root / "apps"],
            port=ports[2],
        ),
    ]


NGINX = """
daemon off;
worker_processes auto;
worker_rlimit_nofile 20000;
pid %(temp)s/nginx.pid;
events { worker_connections 10000; }
http {
  access_log off;
  default_type application/json;
  client_body_temp_path %(temp)s/nb; proxy_temp_path %(temp)s/np; fastcgi_temp_path %(temp)s/nf;
  uwsgi_temp_path %(temp)s/nu; scgi_temp_path %(temp)s/ns;
  open_file_cache max=16;
  server {
    listen 127.0.0.1:%(port)s backlog=4096;
    root %(root)s;
    location / { if ($http_authorization != "Bearer %(token)s") { return 401; } }
  }
}
"""

CADDY = """
{
  admin off
  auto_https off
  storage file_system %(temp)s/caddy
}
http://127.0.0.1:%(port)s {
  bind 127.0.0.1
  @owner header Authorization "Bearer %(token)s"
  handle @owner {
    root * %(root)s
    file_server
  }
  respond 401
}
"""


def binary_size(server):
    return os.stat(os.path.realpath(server.program)).st_size / 1e6


def table(servers, results):
    def row(label, values):
        print(f"| {label} | " + " | ".join(values) + " |")

    row("", [s.name for s in servers])
    row("---", ["---:"] * len(servers))
    for mode, label in (("kept", "kept alive"), ("closed", "`Connection: close`")):
        rows = [r[mode] for r in results]
        row(f"requests/s, {label}", [f"{v[0]:,.0f}" for v in rows])
        row(f"p50 / p99, {label}", [f"{v[1]:.2f} / {v[2]:.2f} ms" for v in rows])
        row(f"CPU seconds per 10,000 requests, {label}", [f"{v[3]:.2f}" for v in rows])
    row("memory idle", [f"{r['idle']:.1f} MB" for r in results])
    row("memory after the load", [f"{r['after']:.1f} MB" for r in results])
    row(f"memory with {IDLE_CONNECTIONS:,} idle connections", [f"{r['crowd'][0]:.1f} MB" for r in results])
    row("of these kept open", [f"{r['crowd'][1]:,}" for r in results])
    row("the owner's answer beside them", [r["crowd"][2] for r in results])
    row("first answer after start", [f"{r['start']:.0f} ms" for r in results])
    row("binary", [f"{binary_size(s):.1f} MB" for s in servers])


def main():
    binaries = pathlib.Path(sys.argv[1]).resolve()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    with tempfile.TemporaryDirectory(prefix="better-paas-bench-") as name:
        size, servers = contestants(pathlib.Path(name), binaries)
        begin = time.monotonic()
        results = [measure(s) for s in servers]
        say(f"measured in {time.monotonic() - begin:.0f} s")
        print(
            f"`GET /api/apps`, {size:,} bytes of JSON, {CONNECTIONS} connections, medians of {RUNS} runs of {SECONDS} s;"
            f" {os.cpu_count()} cores, which wrk shares; memory is resident memory of all processes.\n"
        )
        table(servers, results)


if __name__ == "__main__":
    main()
