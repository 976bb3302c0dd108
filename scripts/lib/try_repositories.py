"""Deploys real repositories without settings, twice each, and says what came of it.

Usage: try_repositories.py DIRECTORY-OF-THE-BUILD LIST [NAME ...]. A line of the list: a name, the path of a Git
repository on this machine and, optional, settings as JSON, apart by tabs. Prints a Markdown table to standard
output, logs of deploys into ./try-logs. Variables TRY_ENV_X of the caller become X in each app's environment; TRY_USER is who
runs the server.
"""

import http.client
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time

import bench_deploys
from bench_deploys import TOKEN, Bench, git, say


class Try(Bench):
    def __init__(self, directory, program):
        self.router, user = bench_deploys.free_port(), os.environ.get("TRY_USER")
        if user:
            directory.chmod(0o755)
            shutil.chown(directory, user, user)
        super().__init__(directory, program, {
            "ROUTER": "on", "HTTP_PORT": str(self.router), "BASE_DOMAIN": "apps.localhost", "HTTPS_PORT": str(bench_deploys.free_port()),
        }, user)
        if user:
            self.firewall(user)
            # The Git host alone is on this machine.
            hole = f"insert rule inet better_paas from_apps ip daddr 127.0.0.1 tcp dport {self.url.split(':')[2].split('/')[0]} accept"
            subprocess.run(["nft", *hole.split()], check=True)
        self.base = self.url.rsplit("/", 1)[0]

    @staticmethod
    def firewall(word):
        subprocess.run([pathlib.Path(__file__).parent.parent / "firewall", word], check=True)

    def host(self, name, path):
        """Puts the newest commit of a repository where the server can fetch it. Files that a
        partial copy of it lacks are left out."""
        work, bare = self.directory / "tried" / name, self.bare.parent / f"{name}.git"
        git("init", "-q", "-b", "main", str(work))
        git("init", "-q", "--bare", "-b", "main", str(bare))
        for entry in git("--git-dir", path, "ls-tree", "-r", "-z", "HEAD").split("\0"):
            head, _, file = entry.partition("\t")
            if not file or head.split()[1] != "blob":
                continue
            found = subprocess.run(["git", "--git-dir", path, "cat-file", "blob", head.split()[2]], capture_output=True)
            place = work / file
            if found.returncode == 0:
                place.parent.mkdir(parents=True, exist_ok=True)
                if head.startswith("120000"):
                    place.symlink_to(found.stdout.decode())
                else:
                    place.write_bytes(found.stdout)
                    place.chmod(0o755 if head.startswith("100755") else 0o644)
        git("add", "--all", "--force", cwd=work)
        git("commit", "-q", "-m", f"The newest of {name}", cwd=work)
        git("push", "-q", str(bare), "HEAD:main", cwd=work)

    def deploy(self, app, log):
        begin = time.monotonic()
        deploy = self.api("POST", f"/api/apps/{app}/deploys", {})["id"]
        while True:
            now = self.api("GET", f"/api/deploys/{deploy}")
            if now["status"] in ("live", "failed"):
                break
            time.sleep(0.1)
        seconds = time.monotonic() - begin
        log.write_text(self.text(f"/api/deploys/{deploy}/log"), errors="replace")
        return now, seconds

    def text(self, path):
        c = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        c.request("GET", path, None, {"Authorization": f"Bearer {TOKEN}"})
        return c.getresponse().read().decode(errors="replace")

    def visit(self, name):
        c = http.client.HTTPConnection("127.0.0.1", self.router, timeout=30)
        c.request("GET", "/", None, {"Host": f"{name}.apps.localhost", "Accept": "text/html"})
        answer = c.getresponse()
        body = answer.read()
        return f"{answer.status}, {len(body)} B, {answer.getheader('Content-Type')}"

    def one(self, name, path, settings):
        logs = pathlib.Path("try-logs")
        logs.mkdir(exist_ok=True)
        self.host(name, path)
        app = self.api("POST", "/api/apps", {"name": name, "gitRepo": f"{self.base}/{name}.git"} | settings)["id"]
        env = [{"name": k[8:], "value": v, "secret": False} for k, v in os.environ.items() if k.startswith("TRY_ENV_")]
        if env:
            self.api("PUT", f"/api/apps/{app}/env", {"env": env})
        first, seconds = self.deploy(app, logs / f"{name}.log")
        again, memory, seen = "", "", ""
        if first["status"] == "live":
            second, took = self.deploy(app, logs / f"{name}-2.log")
            again = f"{took:.1f}" if second["status"] == "live" else f"failed: {second['error'][:80]}"
            time.sleep(1)
            seen, memory = self.visit(name), f"{self.memory_of(app):.0f}"
        row = [name, first["status"], f"{seconds:.1f}", again, memory, seen or first["error"].replace("\n", " ")]
        print("| " + " | ".join(cell.replace("|", "/") for cell in row) + " |", flush=True)
        (logs / f"{name}-app.log").write_text(self.text(f"/api/apps/{app}/log"))
        self.api("DELETE", f"/api/apps/{app}")
        return first["status"] == "live"


def main():
    program = pathlib.Path(sys.argv[1]).resolve() / "server"
    rows = [line.rstrip("\n").split("\t") for line in open(sys.argv[2]) if line.strip()]
    wanted = set(sys.argv[3:])
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    print("| repository | | first, s | second, s | memory, MB | a visitor sees, or the sentence |\n|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory(prefix="better-paas-try-") as name:
        tried = Try(pathlib.Path(name), program)
        live = 0
        try:
            rows = [row for row in rows if not wanted or row[0] in wanted]
            for row in rows:
                settings = next((json.loads(cell) for cell in row[2:] if cell.startswith("{")), {})
                try:
                    live += tried.one(row[0], row[1], settings)
                except (Exception, SystemExit) as error:
                    if tried.server.poll() is not None or getattr(error, "code", None) == 143:
                        raise
                    print(f"| {row[0]} | not tried: {error} |", flush=True)
            say(f"{live} of {len(rows)} live")
        finally:
            if tried.server.poll() is None:
                tried.stop()
            if os.environ.get("TRY_USER"):
                tried.firewall("remove")


if __name__ == "__main__":
    main()
