"""A night in the life of a server's backups, and what they cost.

Usage: try_backup.py DIRECTORY-OF-THE-BUILD [RESTIC]. Prints a line for each thing that was seen; ends with an error when
one is not as promised. TRY_USER is who runs the server.
"""

import os
import pathlib
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time

from bench_deploys import TOKEN, Bench, say

GIB = 1 << 30
MOST_MEMORY = 16 << 20
BACKUPS = int(os.environ.get("TRY_BACKUPS", "100"))
WRITERS = 4


class Night(Bench):
    def __init__(self, directory, program, restic):
        user = os.environ.get("TRY_USER")
        self.away, self.program = directory / "away", directory / "server"
        shutil.copy(program, self.program)
        self.env = {"PATH": os.environ["PATH"], "DATA_DIR": str(directory / "data"), "ADMIN_TOKEN": TOKEN}
        self.who = {"user": user, "group": user, "extra_groups": []} if user else {}
        more = {}
        if restic:
            shutil.copy(restic, directory / "restic")
            (directory / "password").write_text("a password of restic's\n")
            self.restic = [str(directory / "restic"), "--repo", str(self.away), "--password-file",
                           str(directory / "password"), "--no-cache", "--quiet"]
            more["BACKUP_COMMAND"] = " ".join([*self.restic, "backup"])
        if user:
            directory.chmod(0o755)
            for path in [directory, *directory.iterdir()]:
                shutil.chown(path, user, user)
        if restic:
            subprocess.run([*self.restic, "init"], check=True, **self.who)
        super().__init__(directory, self.program, more, user)

    def command(self, *words, **more):
        return subprocess.run([self.program, *words], cwd=self.directory, env=self.env, **self.who, **more)

    def in_app(self, script):
        return self.command("run", "big", "--", "sh", "-ec", script, check=True, capture_output=True, text=True).stdout

    def memory(self, name):
        """A line of what the kernel says of the server's memory, in bytes."""
        status = pathlib.Path(f"/proc/{self.server.pid}/status").read_text()
        return int(next(line for line in status.splitlines() if line.startswith(name)).split()[1]) << 10

    def back_up(self):
        before = {backup["name"] for backup in self.api("GET", "/api/backups")["backups"]}
        self.api("POST", "/api/backups")

        def made():
            now = self.api("GET", "/api/backups")
            new = [backup for backup in now["backups"] if backup["name"] not in before]
            if now["lastError"]:
                raise SystemExit(now["lastError"])
            return not now["isBeingMade"] and new and new[0]

        return self.wait(made, "a backup", 900, 0.2)

    def large(self):
        self.in_app(f"head -c {GIB} /dev/urandom >/data/large; sync")
        before = self.memory("VmRSS")
        pathlib.Path(f"/proc/{self.server.pid}/clear_refs").write_text("5")
        begin = time.monotonic()
        made = self.back_up()
        took, more = time.monotonic() - begin, self.memory("VmHWM") - before
        assert made["size"] > GIB and made["error"] is None and made["commandError"] is None, made
        assert more < MOST_MEMORY, f"{more >> 20} MiB more"
        say(f"1 GiB of an app's data: made, read again and handed over in {took:.0f} s, with {more >> 20} MiB more memory")

    def beside_writers(self):
        self.in_app("rm /data/large")
        apps = [self.app(f"writer-{number}") for number in range(WRITERS)]
        done, writes = threading.Event(), [0] * WRITERS

        def write(number):
            while not done.is_set():
                value = str(writes[number])
                env = [{"name": name, "value": value, "secret": False} for name in ("A", "B")]
                self.api("PUT", f"/api/apps/{apps[number]}/env", {"env": env})
                writes[number] += 1

        threads = [threading.Thread(target=write, args=(number,)) for number in range(WRITERS)]
        for thread in threads:
            thread.start()
        key, new = self.directory / "data/secret.key", self.directory / "restored"
        try:
            for number in range(BACKUPS):
                backup = self.directory / "beside.tgz"
                self.command("backup", str(backup), check=True, capture_output=True)
                shutil.rmtree(new, ignore_errors=True)
                words = ["restore", str(backup), "--key-file", str(key)]
                subprocess.run([self.program, *words], check=True, capture_output=True, cwd=self.directory,
                               env=self.env | {"DATA_DIR": str(new)}, **self.who)
        finally:
            done.set()
            for thread in threads:
                thread.join()
        say(f"{BACKUPS} backups beside {sum(writes)} writes of {WRITERS}: each was proved by its restore")

    def elsewhere(self):
        listed = subprocess.run([*self.restic, "snapshots", "--json"], check=True, capture_output=True, text=True, **self.who)
        assert '"paths":["' in listed.stdout, listed.stdout
        subprocess.run([*self.restic, "check", "--read-data"], check=True, **self.who)
        back = self.directory / "back"
        subprocess.run([*self.restic, "restore", "latest", "--target", str(back)], check=True, **self.who)
        backup = next(back.rglob("*.tgz"))
        new = self.directory / "from-restic"
        words = ["restore", str(backup), "--key-file", str(self.directory / "data/secret.key")]
        subprocess.run([self.program, *words], check=True, cwd=self.directory, env=self.env | {"DATA_DIR": str(new)}, **self.who)
        say("restic has it, and what it gives back is restored")
        self.away.rename(self.directory / "gone")
        made = self.back_up()
        assert "repository" in made["commandError"] and made["error"] is None, made
        log = (self.directory / "log").read_text()
        assert "is on this machine alone: BACKUP_COMMAND failed" in log, log
        say(f"with its directory gone: {made['commandError']}")


def main():
    program = pathlib.Path(sys.argv[1]).resolve() / "server"
    restic = pathlib.Path(sys.argv[2]).resolve() if len(sys.argv) > 2 else None
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    with tempfile.TemporaryDirectory(prefix="better-paas-try-", ignore_cleanup_errors=True) as name:
        night = Night(pathlib.Path(name), program, restic)
        try:
            night.commit()
            night.deployed(night.app("big"))
            night.large()
            if restic:
                night.elsewhere()
            night.beside_writers()
        finally:
            if night.server.poll() is None:
                night.stop()


if __name__ == "__main__":
    main()
