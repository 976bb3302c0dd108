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
