# Turns poetry.lock, pdm.lock, Pipfile.lock, Pipfile or Poetry's pyproject.toml into what uv
# takes: top.txt names what the app asks for, locked.txt fixes everything to what was locked.
import json, re, sys
try:
    import tomllib
except ImportError:
    sys.exit("reading this lock file needs Python 3.11 or later: name one in .python-version")

def toml(name):
    try:
        with open(name, "rb") as file:
            return tomllib.load(file)
    except FileNotFoundError:
        return {}

def same(name):
    return re.sub(r"[-_.]+", "-", name).lower()

def caret(text):
    # Poetry's ^1.2 is >=1.2,<2 and its ~1.2 is >=1.2,<1.3; a bare version is that one.
    out = []
    for part in text.replace(" ", "").split(","):
        found = re.fullmatch(r"([\^~])(\d+(?:\.\d+)*)(.*)", part)
        if found and not part.startswith("~="):
            sign, number, _ = found.groups()
            parts = [int(p) for p in number.split(".")]
            at = next((i for i, p in enumerate(parts) if p), len(parts) - 1) if sign == "^" else min(1, len(parts) - 1)
            upper = parts[:at] + [parts[at] + 1]
            out.append(">=%s,<%s" % (number, ".".join(map(str, upper))))
        elif part not in ("", "*"):
            out.append("==" + part if part[0].isdigit() else part)
    return ",".join(out)

def asked(name, wish):
    if isinstance(wish, str):
        return name + caret(wish)
    if isinstance(wish, list):
        wish = wish[0]
    extras = "[%s]" % ",".join(wish["extras"]) if wish.get("extras") else ""
    marker = wish.get("markers") or wish.get("marker")
    after = " ; " + marker if marker else ""
    if wish.get("git"):
        ref = wish.get("rev") or wish.get("tag") or wish.get("branch") or wish.get("ref")
        return "%s%s @ git+%s%s%s" % (name, extras, wish["git"], "@" + ref if ref else "", after)
    if wish.get("url"):
        return "%s%s @ %s%s" % (name, extras, wish["url"], after)
    return name + extras + caret(wish.get("version", "*")) + after

lock = sys.argv[1]
project = toml("pyproject.toml")
top, locked = [], {}
if lock.startswith("Pipfile"):
    top = [asked(n, w) for n, w in toml("Pipfile").get("packages", {}).items()]
    if lock == "Pipfile.lock":
        for name, entry in json.load(open(lock)).get("default", {}).items():
            locked.setdefault(name, set()).add(entry.get("version", ""))
else:
    table = project.get("tool", {}).get("poetry", {}).get("dependencies", {})
    top = list(project.get("project", {}).get("dependencies", []))
    top += [asked(n, w) for n, w in table.items() if n != "python" and not (isinstance(w, dict) and w.get("optional"))]
    if lock.endswith(".lock"):
        for entry in toml(lock).get("package", []):
            if entry.get("source", {}).get("type") not in ("git", "url", "file", "directory") and not entry.get("git"):
                locked.setdefault(same(entry["name"]), set()).add("==" + entry["version"])
# A package that is locked twice, for other systems, is left to the solver.
locked = [name + next(iter(of)) for name, of in locked.items() if len(of) == 1 and any(of)]
open(".better-paas/top.txt", "w").write("\n".join(top) + "\n")
open(".better-paas/locked.txt", "w").write("\n".join(locked) + "\n")
