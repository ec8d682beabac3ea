// Sorts a table by the column whose heading is pressed. Everything else works without a script.
const makeSortable = (part) => {
  for (const table of part.querySelectorAll(".scroll table")) {
    const heads = [...table.querySelectorAll("thead th")];
    const body = table.tBodies[0];
    if (!body || body.rows.length < 3 || table.querySelector("[rowspan]") || "unsorted" in table.dataset) continue;
    heads.forEach((head, column) => {
      const button = document.createElement("button");
      button.type = "button";
      button.append(...head.childNodes);
      head.append(button);
      button.addEventListener("click", () => {
        const descending = head.getAttribute("aria-sort") !== "descending";
        heads.forEach((other) => other.removeAttribute("aria-sort"));
        head.setAttribute("aria-sort", descending ? "descending" : "ascending");
        const text = (row) => (row.cells[column]?.textContent ?? "").trim();
        const number = (value) => parseFloat(value.replace(/[,\s]/g, "").replace("−", "-"));
        const compare = (one, other) => {
          const [a, b] = [number(text(one)), number(text(other))];
          if (!Number.isNaN(a) && !Number.isNaN(b)) return a - b;
          return text(one).localeCompare(text(other), "en", { numeric: true });
        };
        const rows = [...body.rows].sort(compare);
        body.append(...(descending ? rows.reverse() : rows));
      });
    });
  }
};
makeSortable(document);
