// The manual of the version that runs. Its pages are Markdown, shown as text in elements, never as HTML.

import { copy, getText, part } from "./core.js";

export async function helpView({ params: [page = "index", heading] }) {
  const root = copy("view-help"), text = await getText(`/assets/manual/${page}.md`);
  const body = part(root, "page");
  body.replaceChildren(...blocks(text.split("\n"), page));
  const title = body.querySelector("h1");
  title.tabIndex = -1;
  part(root, "contents").hidden = page === "index";
  const wanted = heading && [...body.querySelectorAll("h2, h3")].find(({ id }) => id === `help-${heading}`);
  if (wanted) {
    wanted.tabIndex = -1;
    wanted.dataset.focus = "";
  }
  return { root, title: `${title.textContent} · Help` };
}

function element(name, ...children) {
  const made = document.createElement(name);
  made.append(...children);
  return made;
}

/** What a heading is called in an address. */
const anchor = (text) => text.trim().toLowerCase().replace(/[^\p{L}\p{N} _-]/gu, "").replaceAll(" ", "-");

const FENCE = /^```/, HEADING = /^(#{1,3}) (.*)/, ITEM = /^(-|\d+\.) +/, ROW = /^\|/;
const starts = (line) => [FENCE, HEADING, ITEM, ROW].some((kind) => kind.test(line));

/** The elements for some lines. */
function blocks(lines, page) {
  const made = [];
  let at = 0;
  const takeWhile = (holds) => {
    const from = at;
    while (at < lines.length && holds(lines[at])) at += 1;
    return lines.slice(from, at);
  };
  while (at < lines.length) {
    const line = lines[at];
    const [, signs, title] = HEADING.exec(line) ?? [];
    if (line.trim() === "") {
      at += 1;
    } else if (FENCE.test(line)) {
      at += 1;
      const code = takeWhile((next) => !FENCE.test(next));
      at += 1;
      made.push(element("pre", element("code", code.join("\n"))));
      made.at(-1).tabIndex = 0;
    } else if (signs) {
      at += 1;
      made.push(element(`h${signs.length}`, ...inline(title, page)));
      made.at(-1).id = `help-${anchor(title)}`;
    } else if (ROW.test(line)) {
      made.push(table(takeWhile((next) => ROW.test(next)), page));
    } else if (ITEM.test(line)) {
      const list = element(line.startsWith("-") ? "ul" : "ol");
      while (at < lines.length && ITEM.test(lines[at])) {
        const [sign] = ITEM.exec(lines[at]), indent = " ".repeat(sign.length);
        const first = lines[at].slice(sign.length);
        at += 1;
        // An indented line after an empty one still belongs to it.
        const more = takeWhile((next) => {
          if (next.trim() === "") return lines[at + 1]?.startsWith("  ");
          return next.startsWith("  ") || !starts(next);
        });
        const own = more.map((next) => (next.startsWith(indent) ? next.slice(indent.length) : next.trimStart()));
        list.append(element("li", ...blocks([first, ...own], page)));
        if (lines[at]?.trim() === "" && ITEM.test(lines[at + 1] ?? "")) at += 1;
      }
      made.push(list);
    } else {
      at += 1;
      const rest = takeWhile((next) => next.trim() !== "" && !starts(next));
      made.push(element("p", ...inline([line, ...rest].join(" "), page)));
    }
  }
  return made;
}

function table([head, , ...rows], page) {
  // A stroke inside of code is written with a backslash.
  const cells = (row) => row.trim().slice(1, -1).split(/(?<!\\)\|/).map((cell) => cell.trim().replaceAll("\\|", "|"));
  const line = (row, kind) => element("tr", ...cells(row).map((cell) => element(kind, ...inline(cell, page))));
  const body = element("tbody", ...rows.map((row) => line(row, "td")));
  const frame = element("div", element("table", element("thead", line(head, "th")), body));
  frame.className = "scroll";
  frame.tabIndex = 0;
  return frame;
}

const INLINE = /(`[^`]+`|!?\[[^\]]*\]\([^)]+\)|\*\*[^*]+\*\*|\*[^*\s][^*]*\*)/;

/** Words with code, emphasis and links in them. */
function inline(text, page) {
  return text.split(INLINE).filter(Boolean).map((piece) => {
    if (!INLINE.test(piece)) return document.createTextNode(piece);
    if (piece.startsWith("`")) return element("code", piece.slice(1, -1));
    if (piece.startsWith("**")) return element("strong", ...inline(piece.slice(2, -2), page));
    if (piece.startsWith("*")) return element("em", ...inline(piece.slice(1, -1), page));
    const [, isImage, words, to] = /^(!?)\[([^\]]*)\]\(([^)]+)\)$/.exec(piece);
    return isImage ? element("em", words) : link(words, to, page);
  });
}

/** Leads to a page of the manual, or elsewhere; what the program does not hold is text. */
function link(words, to, page) {
  const made = element("a", ...inline(words, page));
  if (/^https:\/\//.test(to)) {
    made.href = to;
    made.rel = "noreferrer";
    return made;
  }
  const [, file, heading] = /^([^#]*)#?(.*)$/.exec(to);
  const name = file === "" ? page : /([\w-]+)\.md$/.exec(file)?.[1];
  if (!name) return element("span", ...made.childNodes);
  made.href = `#/help/${name}${heading && `/${heading}`}`;
  return made;
}
