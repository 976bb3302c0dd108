// A log of any length: the box holds a part of it, gets more at either edge, and follows the end.
//
// Lines lie in pieces of some hundred, each an element of its own, so that new ones cost the
// browser the layout of one piece and not of all; and only so many pieces are kept. Places between
// lines, by which the server names them, say where a piece begins and where it ends.

import { copy, copyText, download, get, LiveSocket, onClick, part, say } from "./core.js";

const PAGE = 500, LARGEST_PAGE = 1_000;
// Lines in the box. Beyond them the far end goes, and comes again when its reader does.
const MOST = 5_000;
// Lines in one piece of what comes live.
const PIECE = 200;
const BEGINNING = "0-0";
const LEAVING_KEYS = ["ArrowUp", "PageUp", "Home"];

/**
 * A box with the log at `path`, which is followed at `live`, if that is there. `ended` gets what
 * the live log says last, and returns true when nothing more will come; `poll` asks for it where
 * live logs do not get through.
 */
export function logBox({ label, hook, name, signal, path, live, ended = () => true, poll }) {
  const root = copy("log-box");
  const lines = part(root, "lines"), newest = part(root, "newest"), form = part(root, "log-bar");
  lines.ariaLabel = label;
  lines.dataset.test = hook;
  // What is shown: its pieces, whether the last of them ends with the log, what is looked for.
  let pieces = [], atEnd = false, finding = "", loading = false, showing = new AbortController();
  let following = true, width = 0, top = 0;
  // What has come live: messages for the next frame, and lines behind the last place of a message.
  let queue = [], unsure = [];

  const load = (where, limit = PAGE) => {
    const find = finding && `&find=${encodeURIComponent(finding)}`;
    return get(`${path}?limit=${limit}${where}${find}`);
  };
  const count = () => pieces.reduce((sum, piece) => sum + piece.count, 0);
  const toEnd = () => scrollBy(lines.scrollHeight);
  function scrollBy(pixels) {
    lines.scrollTop += pixels;
    // So that what comes of it is not taken for its reader's doing.
    top = lines.scrollTop;
  }
  const isAtBottom = () => lines.scrollHeight - lines.scrollTop - lines.clientHeight < 24;
  function follow(does) {
    following = does;
    newest.hidden = does || finding !== "";
  }
  /** What is read stays where it is, whatever comes. */
  const leave = () => lines.scrollTop > 0 && follow(false);

  function pieceOf(page, from) {
    const element = document.createElement("div");
    if (finding) {
      element.append(...page.lines.map((line, place) => matchOf(line, page.places[place])));
    } else {
      element.textContent = page.lines.map((line) => `${line}\n`).join("");
    }
    return { element, from, at: page.at, count: page.lines.length };
  }

  /** A line that was found; a click shows it among its neighbours. */
  function matchOf(line, place) {
    const match = document.createElement("button");
    match.type = "button";
    match.textContent = `${line}\n`;
    match.addEventListener("click", () => attempt(() => openAt(place)));
    return match;
  }

  /** Forgets what is shown; what is still under way for it comes to nothing. */
  function reset(find = "") {
    showing.abort();
    showing = new AbortController();
    [pieces, queue, unsure, atEnd, loading, finding] = [[], [], [], false, false, find];
    lines.replaceChildren();
    say(root, { found: "" });
    return showing.signal;
  }

  async function openEnd() {
    const shown = reset();
    follow(true);
    let page = null;
    try {
      page = await load("");
    } finally {
      // Without a page the live log begins where the server likes.
      if (!shown.aborted) {
        if (page) prepend(page);
        listen(page?.at ?? null);
        toEnd();
      }
    }
  }

  async function openAt(place) {
    const shown = reset();
    follow(false);
    const page = await load(place === BEGINNING ? `&after=${place}` : `&before=${place}`);
    if (shown.aborted) return;
    const hit = document.createElement("mark");
    if (place === BEGINNING) {
      append(pieceOf(page, null));
    } else {
      hit.textContent = `${page.lines.pop()}\n`;
      prepend(page);
      pieces[0].element.append(hit);
      pieces[0].count += 1;
    }
    await more("after");
    if (hit.isConnected) hit.scrollIntoView({ block: "center", behavior: "instant" });
    lines.focus({ preventScroll: true });
  }

  async function openFound(text) {
    const shown = reset(text);
    follow(false);
    say(root, { found: "Searching…" });
    const page = await load("");
    if (shown.aborted) return;
    prepend(page);
    toEnd();
    await more("before");
  }

  function append(piece) {
    pieces.push(piece);
    lines.append(piece.element);
  }

  /** Shows a page above all others, which stay where their reader sees them. */
  function prepend(page) {
    const piece = pieceOf(page, page.from), height = lines.scrollHeight;
    if (pieces.length > 0) piece.at = pieces[0].from;
    pieces.unshift(piece);
    lines.prepend(piece.element);
    scrollBy(lines.scrollHeight - height);
  }

  /** Gets what comes before or after what is shown, if that is near and there is any. */
  async function more(side) {
    const { signal: shown } = showing;
    const isNear = () => side === "before"
      ? pieces[0]?.from && lines.scrollTop < lines.clientHeight
      : pieces.length > 0 && !atEnd && !finding
        && lines.scrollHeight - lines.scrollTop < 2 * lines.clientHeight;
    if (loading) return;
    loading = true;
    try {
      while (!shown.aborted && isNear()) {
        const place = side === "before" ? pieces[0].from : pieces.at(-1).at;
        const page = await load(`&${side}=${place}`);
        if (shown.aborted) return;
        if (side === "before") {
          prepend(page);
          trimEnd();
        } else if (page.lines.length === 0) {
          listen(place);
          if (isAtBottom()) follow(true);
        } else {
          append(pieceOf(page, place));
          trimStart();
        }
      }
      if (finding) tellFound();
    } finally {
      if (!shown.aborted) loading = false;
    }
  }

  function tellFound() {
    const all = count(), rest = pieces[0].from ? " so far; scroll up for older ones" : "";
    say(root, { found: `${all === 1 ? "One line" : `${all} lines`} found${rest}.` });
  }

  function trimStart() {
    const place = lines.scrollTop, height = lines.scrollHeight;
    while (count() - pieces[0].count >= MOST) pieces.shift().element.remove();
    // The browser may have moved it, where less is below than is seen at once.
    if (!following) scrollBy(place - (height - lines.scrollHeight) - lines.scrollTop);
  }

  function trimEnd() {
    if (finding || count() - pieces.at(-1).count < MOST) return;
    // What is live goes on behind what goes, so it ends; it is taken up at the place that is left.
    stopListening();
    while (count() - pieces.at(-1).count >= MOST) pieces.pop().element.remove();
  }

  let listening = new AbortController();
  function stopListening() {
    listening.abort();
    dropUnsure();
    queue = [];
    atEnd = false;
  }

  function listen(place) {
    atEnd = true;
    if (!live) return;
    listening = new AbortController();
    append({ element: document.createElement("div"), from: place, at: place, count: 0 });
    new LiveSocket(() => live + (pieces.at(-1).at ? `?from=${pieces.at(-1).at}` : ""), {
      signal: AbortSignal.any([signal, showing.signal, listening.signal]),
      start() {
        draw();
        dropUnsure();
      },
      message({ end, ...message }) {
        if (message.lines) enqueue(message);
        return end ? ended(end) : false;
      },
      async poll() {
        dropUnsure();
        for (;;) {
          draw();
          const page = await load(`&after=${pieces.at(-1).at ?? BEGINNING}`);
          if (page.lines.length === 0) return poll ? ended(await poll()) : false;
          enqueue(page);
        }
      },
    });
  }

  /** Lines that the server sends again from the last place on. */
  function dropUnsure() {
    for (const { node, piece, count } of unsure) {
      node.remove();
      piece.count -= count;
    }
    unsure = [];
  }

  function enqueue(message) {
    queue.push(message);
    if (queue.length === 1) requestAnimationFrame(draw);
    // In a tab that nobody sees there are no frames.
    if (document.hidden) draw();
  }

  function draw() {
    if (queue.length === 0) return;
    for (const message of queue) add(message);
    queue = [];
    if (following) {
      trimStart();
      toEnd();
    } else if (count() > 2 * MOST) {
      stopListening();
    }
  }

  function add({ lines: texts, at }) {
    let piece = pieces.at(-1);
    if (piece.count >= PIECE && unsure.length === 0) {
      piece = { element: document.createElement("div"), from: piece.at, at: piece.at, count: 0 };
      append(piece);
    }
    const node = document.createTextNode(texts.map((text) => `${text}\n`).join(""));
    piece.element.append(node);
    piece.count += texts.length;
    if (at) [piece.at, unsure] = [at, []];
    else unsure.push({ node, piece, count: texts.length });
  }

  const attempt = async (work) => {
    try {
      await work();
    } catch (failure) {
      say(root, { found: failure.message });
    }
  };

  // Also when the box is put on the page: before that it has no height.
  const sizes = new ResizeObserver(() => {
    width = lines.clientWidth;
    if (following) toEnd();
  });
  sizes.observe(lines);
  lines.addEventListener("scroll", () => {
    const down = lines.scrollTop > top;
    top = lines.scrollTop;
    // Lines that wrap anew move by themselves; that is nobody reading.
    if (lines.clientWidth !== width) return;
    if (!isAtBottom()) follow(false);
    else if (down && atEnd) follow(true);
    attempt(async () => {
      await more("before");
      await more("after");
    });
  });
  lines.addEventListener("wheel", ({ deltaY }) => deltaY < 0 && leave(), { passive: true });
  lines.addEventListener("keydown", (event) => {
    if (LEAVING_KEYS.includes(event.key)) leave();
    const isFar = event.key === "Home" ? pieces[0]?.from : event.key === "End" && !atEnd;
    if (!isFar || finding) return;
    event.preventDefault();
    attempt(() => (event.key === "Home" ? openAt(BEGINNING) : openEnd()));
  });
  document.addEventListener("selectionchange", () => {
    const selection = getSelection();
    if (!selection.isCollapsed && lines.contains(selection.anchorNode)) leave();
  }, { signal });
  newest.addEventListener("click", () => {
    if (!atEnd) return attempt(openEnd);
    follow(true);
    toEnd();
    lines.focus();
  });
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    const text = form.find.value.trim();
    attempt(() => (text === "" ? openEnd() : openFound(text)));
  });
  form.find.addEventListener("input", () => {
    if (form.find.value === "" && finding) attempt(openEnd);
  });
  form.wrap.addEventListener("change", () => {
    lines.classList.toggle("unwrapped", !form.wrap.checked);
  });
  part(root, "copy-log").addEventListener("click", () => copyText(lines, part(root, "found")));
  onClick(part(root, "download"), part(root, "found"), async () => {
    let text = "", place = BEGINNING;
    for (;;) {
      const page = await get(`${path}?limit=${LARGEST_PAGE}&after=${place}`);
      if (page.lines.length === 0) return download(`${name}.log`, text);
      text += page.lines.map((line) => `${line}\n`).join("");
      place = page.at;
    }
  });
  attempt(openEnd);
  return root;
}

/** The tab with the log of an app. */
export async function logTab(page) {
  const root = copy("tab-log");
  part(root, "log").replaceWith(logBox({
    label: "Log of the app", hook: "app-log", name: page.app.name, signal: page.signal,
    path: `${page.path}/log`, live: `/ws/apps/${page.id}/log`,
  }));
  return { root };
}
