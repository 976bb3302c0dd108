"""The measurements behind `scripts/bench dashboard`: how the dashboard loads, and how it shows a long log.

Usage: bench_dashboard.py DIRECTORY-OF-THE-BUILD. Drives a headless Chromium through its DevTools protocol and prints
a Markdown table to standard output. The log is written straight into the data directory, as fast as it is said here,
so that the numbers are those of the server's readers and of the page.
"""

import base64
import http.client
import json
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time

from bench import TOKEN, Server, free_port, say

LINES = 100_000
RATE = 2_000
FOLLOWED = 8
AWAY = 10
# So slow that what came before, during and after is shown together.
SLOW_RATE = 100
WIDTH, HEIGHT = 1280, 900


class Browser:
    """A headless Chromium with one page."""

    def __init__(self, profile):
        program = next(filter(None, map(shutil.which, ["chromium", "chromium-browser", "google-chrome"])))
        flags = ["--headless=new", "--remote-debugging-port=0", "--no-first-run", "--disable-gpu", "--hide-scrollbars"]
        flags += ["--disable-background-networking", "--disable-component-update", f"--user-data-dir={profile}"]
        flags += ["--no-sandbox"] if os.getuid() == 0 else []
        quiet = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        self.child = subprocess.Popen([program, *flags, "about:blank"], start_new_session=True, **quiet)
        file = pathlib.Path(profile) / "DevToolsActivePort"
        port, path = wait_for(lambda: file.exists() and "\n" in file.read_text() and file.read_text().split("\n"))[:2]
        self.socket = socket.create_connection(("127.0.0.1", int(port)))
        key = base64.b64encode(os.urandom(16)).decode()
        self.socket.sendall(
            f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            f"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\n\r\n".encode()
        )
        self.reader = self.socket.makefile("rb")
        while self.reader.readline().strip():
            pass
        self.session, self.last, self.events = None, 0, []
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self.session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ["Page", "Runtime", "Network", "Performance"]:
            self.call(f"{domain}.enable")
        self.call("Emulation.setDeviceMetricsOverride", width=WIDTH, height=HEIGHT, deviceScaleFactor=1, mobile=False)

    def send(self, text):
        """One frame, masked as a client's must be (RFC 6455, 5.3)."""
        data, mask = text.encode(), os.urandom(4)
        size = len(data)
        length = bytes([0x80 | size]) if size < 126 else bytes([0xFE]) + size.to_bytes(2, "big")
        if size > 65_535:
            length = bytes([0xFF]) + size.to_bytes(8, "big")
        masked = bytes(byte ^ mask[place % 4] for place, byte in enumerate(data))
        self.socket.sendall(b"\x81" + length + mask + masked)

    def receive(self):
        """One message, of as many frames as it has."""
        message = b""
        while True:
            first, second = self.reader.read(2)
            size = second & 0x7F
            if size >= 126:
                size = int.from_bytes(self.reader.read(2 if size == 126 else 8), "big")
            message += self.reader.read(size)
            if first & 0x80:
                return json.loads(message)

    def call(self, method, **parameters):
        self.last += 1
        command = {"id": self.last, "method": method, "params": parameters}
        if self.session:
            command["sessionId"] = self.session
        self.send(json.dumps(command))
        while True:
            message = self.receive()
            if message.get("id") == self.last:
                if "error" in message:
                    raise SystemExit(f"{method}: {message['error']}")
                return message["result"]
            self.events.append(message)

    def evaluate(self, expression):
        found = self.call("Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True)
        return found["result"].get("value")

    def until(self, condition, limit=30):
        wait_for(lambda: self.evaluate(f"!!({condition})"), limit, condition)

    def traffic(self):
        """Requests and bytes over the network since the last call."""
        self.evaluate("1")
        events, self.events = self.events, []
        asked = {}
        for event in events:
            of = event.get("params", {})
            if event.get("method") == "Network.requestWillBeSent":
                asked[of["requestId"]] = of["request"]["url"]
        over = {key: url for key, url in asked.items() if url.startswith("http")}
        sizes = [
            event["params"]["encodedDataLength"]
            for event in events
            if event.get("method") == "Network.loadingFinished" and event["params"]["requestId"] in over
        ]
        frames = [
            len(event["params"]["response"]["payloadData"])
            for event in events
            if event.get("method") == "Network.webSocketFrameReceived"
        ]
        kept = {e["params"]["requestId"] for e in events if e.get("method") == "Network.requestServedFromCache"}
        return len(over.keys() - kept), sum(sizes) + sum(frames)

    def busy_seconds(self):
        metrics = self.call("Performance.getMetrics")["metrics"]
        return next(metric["value"] for metric in metrics if metric["name"] == "TaskDuration")

    def close(self):
        os.killpg(self.child.pid, signal.SIGKILL)
        self.child.wait()


def wait_for(found, limit=30, what="it"):
    deadline = time.monotonic() + limit
    while time.monotonic() < deadline:
        if value := found():
            return value
        time.sleep(0.02)
    raise SystemExit(f"never came: {what}")


class Writer(threading.Thread):
    """Writes numbered lines into a log at a steady rate."""

    def __init__(self, file, number, rate):
        super().__init__()
        self.file, self.number, self.rate, self.over = file, number, rate, threading.Event()

    def run(self):
        begin, first = time.monotonic(), self.number
        while not self.over.wait(0.01):
            until = first + int((time.monotonic() - begin) * self.rate)
            self.file.write("".join(line(number) for number in range(self.number, until)))
            self.file.flush()
            self.number = until

    def stop(self):
        self.over.set()
        self.join()


def line(number):
    return f"{number:08} GET /products/{number % 997}?page={number % 13} 200 in {number % 89} ms, 127.0.0.1 -\n"


def make_app(port):
    c = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    app = json.dumps({"name": "shop", "gitRepo": "https://git.example.com/shop.git"})
    c.request("POST", "/api/apps", app, {"Authorization": f"Bearer {TOKEN}", "Content-Type": "application/json"})
    return json.loads(c.getresponse().read())["id"]


LOG = "document.querySelector('[data-test=app-log]')"
# The number of the last line that is shown.
NEWEST = f"Number({LOG}?.textContent.trimEnd().split('\\n').at(-1).slice(0, 8))"
FRAMES = "window.frames_ = 0; (function count() { frames_ += 1; requestAnimationFrame(count); })()"


def loading(browser, url):
    browser.call("Page.navigate", url=url)
    browser.until("document.querySelector('[data-test=token-input]')?.checkVisibility()")
    time.sleep(0.5)
    first = browser.traffic()
    reload(browser, "token-input")
    again = browser.traffic()
    browser.evaluate("document.querySelector('[data-test=token-input]').focus()")
    browser.call("Input.insertText", text=TOKEN)
    browser.evaluate("document.querySelector('[data-test=sign-in-button]').click()")
    browser.until("document.querySelector('[data-test=add-app]')?.checkVisibility()")
    time.sleep(0.5)
    browser.traffic()
    reload(browser, "add-app")
    return first, again, browser.traffic()


def reload(browser, element):
    browser.evaluate("window.old = true")
    browser.call("Page.reload")
    browser.until(f"!window.old && document.querySelector('[data-test={element}]')?.checkVisibility()")
    time.sleep(0.2)


def opening(browser, app):
    """Opens the log of so many lines; then goes to its first line."""
    browser.traffic()
    begin = time.perf_counter()
    browser.evaluate(f"location.hash = '#/apps/{app}/log'")
    wait_for(lambda: browser.evaluate(NEWEST) == LINES - 1)
    took = time.perf_counter() - begin
    time.sleep(0.5)
    size = browser.traffic()[1]
    browser.evaluate(f"{LOG}.focus()")
    begin = time.perf_counter()
    for kind in ["rawKeyDown", "keyUp"]:
        browser.call("Input.dispatchKeyEvent", type=kind, key="Home", code="Home", windowsVirtualKeyCode=36)
    wait_for(lambda: browser.evaluate(f"{LOG}.textContent.startsWith('00000000 ')"))
    first = time.perf_counter() - begin
    browser.evaluate("location.hash = '#/apps'")
    browser.until("document.querySelector('[data-test=add-app]')")
    return took, size, first


def following(browser, app, writer):
    browser.evaluate(f"location.hash = '#/apps/{app}/log'")
    browser.until(f"{NEWEST} >= {LINES - 1}")
    writer.start()
    time.sleep(1)
    browser.evaluate(FRAMES)
    frames, busy, begin = browser.evaluate("frames_"), browser.busy_seconds(), time.monotonic()
    behind = []
    while time.monotonic() - begin < FOLLOWED:
        time.sleep(0.5)
        behind.append((writer.number - browser.evaluate(NEWEST)) / RATE)
    spent = time.monotonic() - begin
    rate = (browser.evaluate("frames_") - frames) / spent
    share = (browser.busy_seconds() - busy) / spent
    place = browser.evaluate(f"(() => {{ const r = {LOG}.getBoundingClientRect(); return [r.x + 50, r.y + 50]; }})()")
    wheel = {"type": "mouseWheel", "x": place[0], "y": place[1], "deltaX": 0, "deltaY": -300}
    browser.call("Input.dispatchMouseEvent", **wheel)
    time.sleep(1)
    before = browser.evaluate(f"{LOG}.scrollTop")
    time.sleep(1)
    stays = before == browser.evaluate(f"{LOG}.scrollTop") and browser.evaluate(
        f"{LOG}.scrollHeight - {LOG}.scrollTop - {LOG}.clientHeight > 200"
    )
    return rate, share, max(behind), stays


def away(browser, server, app, writer):
    """The server goes and comes back while the log is written; gives the numbers of the lines that are shown then."""
    browser.evaluate("location.hash = '#/apps'")
    browser.until("document.querySelector('[data-test=add-app]')")
    browser.evaluate(f"location.hash = '#/apps/{app}/log'")
    writer.start()
    browser.until(f"{NEWEST} > {writer.number + SLOW_RATE}")
    server.process.kill()
    server.process.wait()
    time.sleep(AWAY)
    server.start()
    time.sleep(5)
    writer.stop()
    wait_for(lambda: browser.evaluate(NEWEST) == writer.number - 1, 60)
    texts = f"{LOG}.textContent.trimEnd().split('\\n')"
    return browser.evaluate(f"{texts}.map((text) => Number(text.slice(0, 8)))")


def main():
    binaries = pathlib.Path(sys.argv[1]).resolve()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    with tempfile.TemporaryDirectory(prefix="better-paas-bench-") as name:
        data = pathlib.Path(name) / "data"
        port = free_port()
        env = {"PATH": os.environ["PATH"], "HOME": name, "LISTEN_ADDR": f"127.0.0.1:{port}", "ROUTER": "off"}
        env |= {"DATA_DIR": str(data), "ADMIN_TOKEN": TOKEN}
        server = Server("Better-PaaS", binaries / "server", [], env=env)
        server.start()
        browser = Browser(pathlib.Path(name) / "profile")
        writer = None
        try:
            app = make_app(port)
            log = open(data / "logs" / "apps" / f"{app}.log", "w")
            log.write("0000000000000001\n" + "".join(map(line, range(LINES))))
            log.flush()
            # What was made at start is there.
            time.sleep(1)
            say("loading ...")
            first, again, signed_in = loading(browser, f"http://127.0.0.1:{port}/")
            say("a long log ...")
            opened, size, beginning = opening(browser, app)
            say("a log that is written ...")
            writer = Writer(log, LINES, RATE)
            rate, share, behind, stays = following(browser, app, writer)
            say("the server goes away ...")
            writer.stop()
            writer = Writer(log, writer.number, SLOW_RATE)
            numbers = away(browser, server, app, writer)
            wrong = sum(after != before + 1 for before, after in zip(numbers, numbers[1:]))
        finally:
            if writer and writer.is_alive():
                writer.stop()
            browser.close()
            server.stop()
    rows = [
        ("first visit", "16 requests, 114 kB", "≤ 4, < 40 kB", f"{first[0]} requests, {first[1] / 1e3:.1f} kB"),
        ("reload", "all of it again", "< 3 kB", f"{again[1] / 1e3:.1f} kB"),
        ("reload, signed in, with what the API says", "", "", f"{signed_in[1] / 1e3:.1f} kB"),
        (f"a log of {RATE:,} lines/s", "7 frames/s", "≥ 50", f"{rate:.0f} frames/s"),
        ("main thread busy", "99 %", "< 50 %", f"{share:.0%}"),
        ("behind the log by", "6 s", "a frame", f"{behind * 1e3:.0f} ms at most"),
        ("the wheel leaves it", "no", "yes", "yes" if stays else "no"),
        (f"a log of {LINES:,} lines opens in", "8.5 MB", "< 0.5 s, < 200 kB", f"{opened:.2f} s, {size / 1e3:.0f} kB"),
        ("its first line", "not reachable", "reachable", f"in {beginning:.2f} s"),
        (f"server away for {AWAY} s", "70 lines lost", "0", f"{wrong} lost or twice of {len(numbers):,} shown"),
    ]
    print("| | was | must be | is |\n| --- | --- | --- | --- |")
    for row in rows:
        print("| " + " | ".join(row) + " |")


if __name__ == "__main__":
    main()
