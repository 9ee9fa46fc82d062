"use strict";
for (const holder of document.querySelectorAll("[data-filter]")) {
  const table = holder.querySelector("table"), rows = [...table.tBodies[0].rows];
  const name = holder.dataset.filter, label = document.createElement("label"), box = document.createElement("input");
  const count = document.createElement("output");
  label.textContent = name === "map" ? "Filter keys" : "Filter units";
  box.type = "search";
  box.id = name + "-filter";
  box.autocomplete = "off";
  box.spellcheck = false;
  label.htmlFor = box.id;
  count.htmlFor = box.id;
  const texts = rows.map(row => row.textContent.toLowerCase());
  const apply = () => {
    const words = box.value.toLowerCase().split(/\s+/).filter(Boolean);
    let left = 0;
    rows.forEach((row, i) => {
      row.hidden = !words.every(word => texts[i].includes(word));
      left += !row.hidden;
    });
    count.textContent = left + " of " + rows.length;
  };
  box.addEventListener("input", apply);
  const bar = document.createElement("div");
  bar.className = "filter";
  bar.append(label, box, count);
  holder.prepend(bar);
  apply();
}
for (const table of document.querySelectorAll("[data-sortable]")) {
  const body = table.tBodies[0], first = [...body.rows];
  const heads = [...table.tHead.rows[0].cells];
  const value = (row, i) => {
    const cell = row.cells[i];
    if (!cell.classList.contains("n")) return cell.textContent;
    const number = cell.dataset.value === "" ? -1 : Number(cell.dataset.value);
    return Number.isNaN(number) ? Infinity : number;
  };
  heads.forEach((head, i) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => {
      const numeric = head.classList.contains("n");
      const steps = numeric ? ["descending", "ascending", ""] : ["ascending", "descending", ""];
      const next = steps[(steps.indexOf(head.getAttribute("aria-sort") || "") + 1) % 3];
      heads.forEach(one => one.removeAttribute("aria-sort"));
      if (!next) return body.append(...first);
      head.setAttribute("aria-sort", next);
      const sign = next === "ascending" ? 1 : -1;
      const sorted = [...first].sort((a, b) => {
        const x = value(a, i), y = value(b, i);
        return sign * (numeric ? (x > y) - (x < y) : x.localeCompare(y, "en", { numeric: true }));
      });
      body.append(...sorted);
    });
  });
}
const opened = [];
addEventListener("beforeprint", () => {
  for (const one of document.querySelectorAll("details:not([open])")) {
    one.open = true;
    opened.push(one);
  }
});
addEventListener("afterprint", () => {
  for (const one of opened.splice(0)) one.open = false;
});
