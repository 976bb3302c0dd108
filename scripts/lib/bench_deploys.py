"""What a deploy costs over the same steps by hand, and what running apps cost the server.

Usage: bench_deploys.py DIRECTORY-OF-THE-RELEASE-BUILD. Prints a Markdown table to standard output, progress to
standard error. The server, its Git host and all apps live in a temporary directory and listen on the loopback
interface; the server runs as whoever runs this, and every process is ended at the end, by its pid.
"""

import base64
import http.client
import http.server
import json
import os
import pathlib
import re
import secrets
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time

DEPLOYS = 15
APPS = 20
VIEWERS = 20
BUILD = "python3 -c 'print(\"built\")'"
TOKEN = "bpaas_" + secrets.token_hex(32)
PAGE = os.sysconf("SC_PAGE_SIZE")
# As in a sandbox; a wrapper in somebody's own directory would slow down one side alone.
PATH = "/usr/local/bin:/usr/bin:/bin"

MAIN = """
import http.server, os
class H(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200); self.end_headers(); self.wfile.write(b'VERSION')
http.server.ThreadingHTTPServer(('127.0.0.1', int(os.environ['PORT'])), H).serve_forever()
"""


RUST = """
use std::io::{Read, Write};
fn main() {
    let port: u16 = std::env::var("PORT").unwrap().parse().unwrap();
    for stream in std::net::TcpListener::bind(("127.0.0.1", port)).unwrap().incoming() {
        let mut stream = stream.unwrap();
        let _ = stream.read(&mut [0; 4096]);
        let _ = stream.write_all(b"HTTP/1.1 200 OK\\r\\nContent-Length: 2\\r\\nConnection: close\\r\\n\\r\\nok");
    }
}
"""

# Apps of the commonest languages, as small as they come; nothing is set for them.
KINDS = {
    "Node.js, Express": {
        "package.json": json.dumps({"dependencies": {"express": "5"}, "scripts": {"start": "node server.js"}}),
        "server.js": "require('express')().get('/', (q, a) => a.send('ok')).listen(process.env.PORT, '127.0.0.1')\n",
    },
    "Python, Flask": {
        "requirements.txt": "flask\ngunicorn\n",
        "app.py": "import flask\napp = flask.Flask(__name__)\n@app.get('/')\ndef index():\n    return 'ok'\n",
    },
    "Rust, no packages": {
        "Cargo.toml": "[package]\nname = 'small'\nversion = '0.1.0'\nedition = '2021'\n",
        "Cargo.lock": "version = 3\n\n[[package]]\nname = \"small\"\nversion = \"0.1.0\"\n",
        "src/main.rs": RUST,
    },
}


def say(text):
    print(text, file=sys.stderr, flush=True)


def git(*words, cwd=None):
    env = {"PATH": PATH, "HOME": "/nonexistent", "GIT_CONFIG_NOSYSTEM": "1", "GIT_TERMINAL_PROMPT": "0"}
    env |= {f"GIT_{who}_{what}": "bench@example.com" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
    return subprocess.run(["git", *words], env=env, cwd=cwd, check=True, capture_output=True, text=True).stdout


class GitHost(http.server.BaseHTTPRequestHandler):
    """Git's own program for hosts, behind a few lines of HTTP."""

    root = None
    protocol_version = "HTTP/1.1"

    def serve(self):
        path, _, query = self.path.partition("?")
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        env = {"PATH": os.environ["PATH"], "GIT_PROJECT_ROOT": str(self.root), "GIT_HTTP_EXPORT_ALL": "1"}
        env |= {"PATH_INFO": path, "QUERY_STRING": query, "REQUEST_METHOD": self.command}
        env |= {"CONTENT_LENGTH": str(len(body)), "CONTENT_TYPE": self.headers.get("Content-Type") or ""}
        env |= {"GIT_PROTOCOL": self.headers.get("Git-Protocol") or "", "GIT_CONFIG_NOSYSTEM": "1"}
        env |= {"HTTP_CONTENT_ENCODING": self.headers.get("Content-Encoding") or "", "HOME": "/nonexistent"}
        out = subprocess.run(["git", "http-backend"], input=body, env=env, capture_output=True).stdout
        head, _, rest = out.partition(b"\r\n\r\n")
        lines = [line.split(": ", 1) for line in head.decode().split("\r\n")]
        status = next((int(value.split()[0]) for name, value in lines if name == "Status"), 200)
        self.send_response(status)
        for name, value in lines:
            if name != "Status":
                self.send_header(name, value)
        self.send_header("Content-Length", str(len(rest)))
        self.end_headers()
        self.wfile.write(rest)

    do_GET = do_POST = serve

    def log_message(self, *_):
        pass


class Bench:
    def __init__(self, directory, program, more=(), user=None):
        self.directory = directory
        self.work, self.bare = directory / "work", directory / "hosted" / "app.git"
        self.commits = 0
        git("init", "-q", "-b", "main", str(self.work))
        self.work.joinpath("main.py").write_text(MAIN)
        self.work.joinpath("Procfile").write_text("web: python3 -u main.py\n")
        git("init", "-q", "--bare", "-b", "main", str(self.bare))
        GitHost.root = self.bare.parent
        host = http.server.ThreadingHTTPServer(("127.0.0.1", 0), GitHost)
        threading.Thread(target=host.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{host.server_address[1]}/app.git"
        env = {"PATH": os.environ["PATH"], "HOME": str(directory), "LISTEN_ADDR": "127.0.0.1:0",
               "ROUTER": "off"} | dict(more)
        env |= {"DATA_DIR": str(directory / "data"), "ADMIN_TOKEN": TOKEN}
        self.log = open(directory / "log", "wb")
        who = {"user": user, "group": user, "extra_groups": []} if user else {}
        self.server = subprocess.Popen(
            [program], env=env, cwd=directory, stdin=subprocess.DEVNULL, stdout=self.log, stderr=self.log, **who
        )
        self.port = self.wait(lambda: self.logged_port(), "the server listens")

    def logged_port(self):
        found = re.search(rb"listening on http://127\.0\.0\.1:(\d+)", (self.directory / "log").read_bytes())
        return found and int(found[1])

    @staticmethod
    def wait(look, what, limit=60, pause=0.005):
        until = time.monotonic() + limit
        while time.monotonic() < until:
            if value := look():
                return value
            time.sleep(pause)
        raise SystemExit(f"not within {limit} s: {what}")

    def api(self, method, path, body=None):
        c = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        headers = {"Authorization": f"Bearer {TOKEN}", "Content-Type": "application/json"}
        c.request(method, path, json.dumps(body) if body is not None else None, headers)
        answer = c.getresponse()
        text = answer.read()
        c.close()
        if answer.status >= 300:
            raise SystemExit(f"{method} {path}: {answer.status} {text[:300]!r}")
        return json.loads(text) if text else None

    def commit(self):
        self.commits += 1
        self.work.joinpath("version").write_text(f"{self.commits}\n")
        git("add", "--all", cwd=self.work)
        git("commit", "-q", "-m", f"Commit {self.commits}", cwd=self.work)
        git("push", "-q", str(self.bare), "HEAD:main", cwd=self.work)

    def app(self, name):
        app = {"name": name, "gitRepo": self.url, "healthPath": "/", "buildCommand": BUILD}
        return self.api("POST", "/api/apps", app)["id"]

    def kind(self, number, files):
        """An app of some language: its first deploy, its second with a new commit, and its memory when idle."""
        work, bare = self.directory / f"kind-{number}", self.bare.parent / f"kind-{number}.git"
        git("init", "-q", "-b", "main", str(work))
        git("init", "-q", "--bare", "-b", "main", str(bare))
        app = {"name": f"kind-{number}", "gitRepo": self.url.replace("app.git", bare.name)}
        app = self.api("POST", "/api/apps", app)["id"]
        times = []
        for commit in "one", "two":
            for name, text in (files | {"version": commit}).items():
                work.joinpath(name).parent.mkdir(exist_ok=True)
                work.joinpath(name).write_text(text)
            git("add", "--all", cwd=work)
            git("commit", "-q", "-m", commit, cwd=work)
            git("push", "-q", str(bare), "HEAD:main", cwd=work)
            times.append(self.deployed(app))
        time.sleep(3)
        return (*times, self.memory_of(app))

    def ended(self, deploy):
        def look():
            now = self.api("GET", f"/api/deploys/{deploy}")
            if now["status"] == "failed":
                raise SystemExit(f"a deploy failed: {now['error']}")
            return now["status"] == "live"

        self.wait(look, "the deploy is live", 300)

    def deployed(self, app):
        """One deploy; the seconds until it is live."""
        begin = time.perf_counter()
        deploy = self.api("POST", f"/api/apps/{app}/deploys", {})["id"]
        self.ended(deploy)
        return time.perf_counter() - begin

    def by_hand(self, number):
        """The same steps without the platform; the seconds until the app answers."""
        cache, release = self.directory / "cache.git", self.directory / f"release-{number}"
        release.mkdir()
        port = free_port()
        begin = time.perf_counter()
        if not cache.exists():
            git("init", "-q", "--bare", str(cache))
        git("--git-dir", str(cache), "fetch", "-q", "--depth=1", "--no-tags", self.url, "+main:refs/fetched")
        git("--git-dir", str(cache), f"--work-tree={release}", "checkout", "-q", "-f", "refs/fetched", "--", ".")
        subprocess.run(["sh", "-c", BUILD], cwd=release, env={"PATH": PATH}, check=True, stdout=subprocess.DEVNULL)
        env = {"PATH": PATH, "PORT": str(port)}
        devnull = subprocess.DEVNULL
        app = subprocess.Popen(["sh", "-c", "exec python3 -u main.py"], cwd=release, env=env, stdout=devnull, stderr=devnull)
        try:
            self.wait(lambda: answers(port), "the app answers", pause=0.002)
            return time.perf_counter() - begin
        finally:
            app.kill()
            app.wait()

    def view(self, app, number):
        """A viewer of an app's log: a WebSocket that has had its first lines. Five share an address."""
        address = (f"127.0.1.{1 + number // 5}", 0)
        s = socket.create_connection(("127.0.0.1", self.port), timeout=30, source_address=address)
        key = base64.b64encode(secrets.token_bytes(16)).decode()
        s.sendall(
            f"GET /ws/apps/{app}/log?token={TOKEN} HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\n"
            f"Connection: Upgrade\r\nSec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n\r\n".encode()
        )
        answer = b""
        while b"lines" not in answer:
            piece = s.recv(65536)
            if not piece or b" 101 " not in (answer + piece)[:64]:
                raise SystemExit(f"no log to view: {(answer + piece)[:300]!r}")
            answer += piece
        return s

    def memory_of(self, app):
        """Megabytes of all processes of an app, what they share counted once."""
        place, total = str(self.directory / "data" / "apps" / app), 0
        pids = {int(e) for e in os.listdir("/proc") if e.isdigit()}
        parents = {}
        for pid in pids:
            try:
                parents[pid] = int(pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[1])
            except OSError:
                pass
        own = set()
        for pid in pids:
            try:
                if place in pathlib.Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace"):
                    own.add(pid)
            except OSError:
                pass
        while grown := {pid for pid, parent in parents.items() if parent in own} - own:
            own |= grown
        for pid in own:
            try:
                for line in pathlib.Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
                    total += int(line.split()[1]) if line.startswith("Pss:") else 0
            except OSError:
                pass
        return total / 1000

    def memory_mb(self):
        return int(pathlib.Path(f"/proc/{self.server.pid}/statm").read_text().split()[1]) * PAGE / 1e6

    def stop(self):
        for app in self.api("GET", "/api/apps")["apps"]:
            self.api("DELETE", f"/api/apps/{app['id']}")
        # Files of apps can belong to other users; only the server may remove them.
        apps = self.directory / "data" / "apps"
        gone = lambda: not self.apps_left() and not any(apps.iterdir())
        self.wait(gone, "the apps and their files are gone")
        self.server.terminate()
        self.server.wait(15)

    def apps_left(self):
        """Processes that the server has started for apps."""
        place = str(self.directory / "data" / "apps")
        left = []
        for entry in pathlib.Path("/proc").iterdir():
            try:
                if entry.name.isdigit() and place in (entry / "cmdline").read_bytes().decode(errors="replace"):
                    left.append(entry.name)
            except OSError:
                pass
        return left


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def answers(port):
    try:
        c = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
        c.request("GET", "/")
        return c.getresponse().status == 200
    except OSError:
        return False


def measure(bench):
    say("deploys ...")
    app = bench.app("trivial")
    bench.commit()
    bench.deployed(app)
    bench.by_hand(0)
    ours, theirs = [], []
    for number in range(1, DEPLOYS + 1):
        bench.commit()
        theirs.append(bench.by_hand(number))
        ours.append(bench.deployed(app))
    say(f"  {statistics.median(ours):.2f} s, by hand {statistics.median(theirs):.2f} s")
    say(f"{APPS} apps ...")
    idle = bench.memory_mb()
    apps = [app] + [bench.app(f"app-{n}") for n in range(1, APPS)]
    for deploy in [bench.api("POST", f"/api/apps/{one}/deploys", {})["id"] for one in apps[1:]]:
        bench.ended(deploy)
    time.sleep(3)
    running = bench.memory_mb()
    viewers = [bench.view(apps[n % APPS], n) for n in range(VIEWERS)]
    time.sleep(3)
    viewed = bench.memory_mb()
    for viewer in viewers:
        viewer.close()
    return ours, theirs, idle, running, viewed


def main():
    program = pathlib.Path(sys.argv[1]).resolve() / "server"
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    with tempfile.TemporaryDirectory(prefix="better-paas-bench-") as name:
        bench = Bench(pathlib.Path(name), program)
        try:
            ours, theirs, idle, running, viewed = measure(bench)
            kinds = {}
            for number, (name, files) in enumerate(KINDS.items()):
                say(f"{name} ...")
                kinds[name] = bench.kind(number, files)
        finally:
            if bench.server.poll() is None:
                bench.stop()
    ours, theirs = statistics.median(ours), statistics.median(theirs)
    print(f"A trivial app, a new commit each time, medians of {DEPLOYS} deploys; {os.cpu_count()} cores.\n")
    print("| | |\n| --- | ---: |")
    print(f"| a deploy: fetch, build, start, check, switch | {ours:.2f} s |")
    print(f"| the same fetch, build command and start by hand | {theirs:.2f} s |")
    print(f"| what the platform adds | {ours - theirs:.2f} s |")
    print(f"| memory of the server after these deploys | {idle:.1f} MB |")
    print(f"| with {APPS} apps running | {running:.1f} MB |")
    print(f"| with {VIEWERS} viewers of their logs too | {viewed:.1f} MB |")
    print("\n| an app without settings | first deploy | second | its memory, idle |\n| --- | ---: | ---: | ---: |")
    for name, (first, second, memory) in kinds.items():
        print(f"| {name} | {first:.1f} s | {second:.1f} s | {memory:.0f} MB |")


if __name__ == "__main__":
    main()
