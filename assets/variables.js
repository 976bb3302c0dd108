// An environment as a list, without any screen: what differs between two, and how two edits become one.
// An entry has a name, whether it is secret, and its value; one without a value keeps the stored one.

const byName = (list) => new Map(list.map((entry) => [entry.name, entry]));
const same = (one, other) => one?.value === other?.value && one?.secret === other?.secret && !one === !other;

/** What leads from one list to another: names that are Added, Changed or Removed. */
export function changes(before, after) {
  const [was, is] = [byName(before), byName(after)];
  const one = (what) => ({ name }) => ({ what, name });
  return [
    ...after.filter(({ name }) => !was.has(name)).map(one("Added")),
    ...after.filter(({ name }) => was.has(name) && !same(was.get(name), is.get(name))).map(one("Changed")),
    ...before.filter(({ name }) => !is.has(name)).map(one("Removed")),
  ];
}

/**
 * One list of two edits of `base`, and the names that both have changed, each differently: what `choices`
 * does not give to "theirs" is mine. A secret that is given anew here is asked for, since what became of it
 * elsewhere is not to be seen.
 */
export function merge(base, mine, theirs, choices = new Map()) {
  const lists = [base, mine, theirs].map(byName);
  const list = [], conflicts = [];
  for (const name of new Set([...theirs, ...mine, ...base].map((entry) => entry.name))) {
    const [was, own, other] = lists.map((one) => one.get(name));
    const hidden = was && own && other && other.value === undefined;
    const changed = !same(was, own);
    if (changed && (hidden || !same(was, other)) && !same(own, other)) conflicts.push({ name, own, other });
    const taken = changed && choices.get(name) !== "theirs" ? own : other;
    if (taken) list.push(taken);
  }
  return { list, conflicts };
}

const BETWEEN = /[ \t]*(?:#[^\n]*)?(?:\n|$)/y;
const NAME = /[ \t]*(?:export[ \t]+)?([A-Za-z_]\w*)[ \t]*=[ \t]*/y;
const QUOTED = /"((?:[^"\\]|\\[^])*)"|'([^']*)'|`([^`]*)`/y;
const BARE = /[^\n]*/y;
const ESCAPED = { n: "\n", r: "\r", t: "\t", "\\": "\\", '"': '"', $: "$", "`": "`" };
const unescape = (text) => text.replace(/\\([^])/g, (whole, mark) => ESCAPED[mark] ?? whole);

/** The names and values of a `.env`; of a name that stands there twice the later. Says which line is none of one. */
export function parseDotenv(file) {
  const text = file.replace(/^\uFEFF/, "").replace(/\r\n?/g, "\n"), values = new Map();
  let at = 0;
  const next = (pattern) => {
    pattern.lastIndex = at;
    const found = pattern.exec(text);
    if (found) at = pattern.lastIndex;
    return found;
  };
  while (at < text.length) {
    if (next(BETWEEN)) continue;
    const begun = at, name = next(NAME)?.[1];
    const line = () => text.slice(0, begun).split("\n").length;
    if (name === undefined) throw new Error(`Line ${line()} is not NAME=value, so nothing was taken.`);
    if (/["'`]/.test(text[at] ?? "")) {
      const [, double, ...others] = next(QUOTED) ?? [];
      const value = double === undefined ? others.find((one) => one !== undefined) : unescape(double);
      if (value === undefined || !next(BETWEEN)) {
        throw new Error(`Line ${line()}: the quotes of ${name} do not end as they should, so nothing was taken.`);
      }
      values.set(name, value);
    } else {
      values.set(name, next(BARE)[0].replace(/(^|[ \t])#.*/, "").trim());
    }
  }
  return [...values].map(([name, value]) => ({ name, value }));
}
