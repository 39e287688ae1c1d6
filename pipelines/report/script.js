// Tables can be sorted and show groups of columns; sheets are cut into samples. Without scripts, the page still shows
// all numbers and images.

const make = (tag, attributes = {}, ...children) => {
  const element = Object.assign(document.createElement(tag), attributes);
  element.append(...children);
  return element;
};

// A row of radio buttons; arrow keys move between them.
const choices = (legend, name, options, choose) => {
  const group = make("fieldset", { className: "choices" }, make("legend", { textContent: legend }));
  options.forEach(([value, text], i) => {
    const input = make("input", { type: "radio", name, value, checked: i === 0 });
    input.addEventListener("change", () => choose(value));
    group.append(make("label", {}, input, make("span", { textContent: text })));
  });
  return group;
};

// Clicking a heading of a sortable table sorts its rows; empty cells stay last.
for (const table of document.querySelectorAll("table.sortable")) {
  const body = table.tBodies[0];
  const headings = [...[...table.tHead.rows].at(-1).cells];
  headings.forEach((heading, column) => {
    heading.querySelector("button")?.addEventListener("click", () => {
      const descending = heading.getAttribute("aria-sort") !== "descending";
      const sign = descending ? -1 : 1;
      headings.forEach((other) => other.hasAttribute("aria-sort") && other.setAttribute("aria-sort", "none"));
      heading.setAttribute("aria-sort", descending ? "descending" : "ascending");
      const value = (row) => {
        const cell = row.cells[column];
        return column === 0 ? cell.textContent.trim() : "value" in cell.dataset ? Number(cell.dataset.value) : null;
      };
      const order = (a, b) => {
        const [left, right] = [value(a), value(b)];
        if (left === null || right === null) return (left === null) - (right === null);
        return sign * (left < right ? -1 : left > right ? 1 : 0);
      };
      body.append(...[...body.rows].sort(order));
    });
  });
}

// The leaderboard first shows its key columns; buttons above it show other groups of columns.
const board = document.getElementById("leaderboard");
const groups = [...board.querySelectorAll("th[scope=colgroup]")];
const show = (view) => {
  board.dataset.view = view;
  const shown = (cell) => view === "all" || cell.dataset.group === view || (view === "key" && "key" in cell.dataset);
  for (const cell of board.querySelectorAll("[data-group]:not([scope=colgroup])")) cell.hidden = !shown(cell);
  for (const group of groups) {
    const columns = board.querySelectorAll(`thead tr:last-child [data-group="${group.dataset.group}"]:not([hidden])`);
    group.hidden = columns.length === 0;
    group.colSpan = columns.length || 1;
  }
};
const views = [["key", "Overview"], ...groups.map((group) => [group.dataset.group, group.textContent]), ["all", "All"]];
board.closest(".scroll").before(choices("Columns", "columns", views, show));
show("key");

// The edges of a table that continues beyond its frame are shaded.
for (const place of document.querySelectorAll(".scroll")) {
  const frame = make("div", { className: "framed" });
  place.replaceWith(frame);
  frame.append(place);
  const look = () => {
    frame.classList.toggle("left", place.scrollLeft > 1);
    frame.classList.toggle("right", place.scrollWidth - place.clientWidth - place.scrollLeft > 1);
  };
  place.addEventListener("scroll", look, { passive: true });
  const sizes = new ResizeObserver(look);
  for (const part of [place, ...place.children]) sizes.observe(part);
}

// Copy a cell of a sheet to a new canvas.
const cut = (figure, sample, line, modality) => {
  const { side, steps, gap } = figure.sheet;
  const at = (axis) => sample * steps[0][axis] + line * steps[1][axis] + modality * steps[2][axis] + gap / 2;
  const canvas = make("canvas", { width: side, height: side });
  canvas.getContext("2d").drawImage(figure.image, at(0), at(1), side, side, 0, 0, side, side);
  return canvas;
};

const name = ({ sheet: { noun, labelName, labels } }, sample) =>
  `${noun} ${sample + 1}${labelName && labels[sample] && `, ${labelName} ${labels[sample]}`}`;

// Show all modalities that were decoded from one code.
const tuple = (figure, sample) => {
  const { lines, modalities, given } = figure.sheet;
  const head = make("p", { textContent: name(figure, sample) });
  const rows = lines.map((line, l) => {
    const cells = modalities.map((modality, m) => {
      const canvas = cut(figure, sample, l, m);
      canvas.setAttribute("role", "img");
      canvas.setAttribute("aria-label", [figure.name, name(figure, sample), line, modality].filter(Boolean).join(", "));
      canvas.classList.toggle("given", Boolean(given[sample]?.[l][m]));
      return make("span", { className: "cell" }, canvas, make("small", { textContent: modality, ariaHidden: true }));
    });
    const named = line ? [make("b", { textContent: line })] : [];
    const row = make("div", { className: "cells" }, ...cells);
    row.style.setProperty("--count", Math.min(cells.length, 6));
    return make("div", { className: "line" }, ...named, row);
  });
  figure.querySelector(".tuple").replaceChildren(head, ...rows);
};

// Show thumbnails of one modality, and below them the chosen sample in all modalities.
const thumbnails = (figure, number, modality) => {
  const { labels } = figure.sheet;
  const old = figure.querySelector(".thumbs");
  const chosen = Number(old?.querySelector(":checked")?.value ?? 0);
  const group = make("fieldset", { className: "thumbs" }, make("legend", { textContent: `Samples of ${figure.name}` }));
  labels.forEach((_, sample) => {
    const input = make("input", { type: "radio", name: `sheet-${number}`, value: sample, checked: sample === chosen });
    input.setAttribute("aria-label", name(figure, sample));
    input.addEventListener("change", () => tuple(figure, sample));
    group.append(make("label", {}, input, cut(figure, sample, 0, modality)));
  });
  old ? old.replaceWith(group) : figure.append(group, make("div", { className: "tuple", ariaLive: "polite" }));
  tuple(figure, chosen);
};

const ready = [...document.querySelectorAll("figure.gallery")].map(async (figure, number) => {
  figure.sheet = JSON.parse(figure.dataset.sheet);
  figure.name = figure.querySelector(".name").textContent;
  figure.image = figure.querySelector("img");
  await figure.image.decode();
  thumbnails(figure, number, 0);
  figure.classList.add("live");
});
Promise.all(ready).then(() => {
  for (const place of document.querySelectorAll(".galleries")) {
    const figures = [...place.querySelectorAll("figure.gallery")];
    const names = figures[0].sheet.modalities;
    const all = [...document.querySelectorAll("figure.gallery")];
    const choose = (m) => figures.forEach((figure) => thumbnails(figure, all.indexOf(figure), Number(m)));
    if (names.length > 1) place.before(choices("Thumbnails", place.id, names.map((name, m) => [m, name]), choose));
  }
  document.documentElement.dataset.ready = "";
});

// Open all folded parts for printing.
addEventListener("beforeprint", () => document.querySelectorAll("details").forEach((part) => (part.open = true)));
