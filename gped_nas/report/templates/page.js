(() => {
  "use strict";
  const root = document.documentElement;
  const { charts, config } = JSON.parse(document.getElementById("charts").textContent);
  const specification = JSON.stringify(charts);
  root.classList.add("js");

  // Pure black stands for ink in the figures; the style sheet knows which ink suits the background.
  function draw(ink) {
    const colored = JSON.parse(specification.replaceAll('"#000000"', JSON.stringify(ink)));
    for (const [id, { data, layout }] of Object.entries(colored)) {
      Plotly.react(document.getElementById(id), data, { ...layout, autosize: true }, config);
    }
  }
  const drawInTheme = () => draw(getComputedStyle(root).getPropertyValue("--chart-ink").trim());
  drawInTheme();
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", drawInTheme);

  let opened = [];
  addEventListener("beforeprint", () => {
    opened = [...document.querySelectorAll("details:not([open])")];
    opened.forEach((details) => { details.open = true; });
    draw("#000");
  });
  addEventListener("afterprint", () => {
    opened.forEach((details) => { details.open = false; });
    drawInTheme();
  });
  function reveal() {
    const target = location.hash && document.getElementById(location.hash.slice(1));
    if (target instanceof HTMLDetailsElement) target.open = true;
  }
  addEventListener("hashchange", reveal);
  reveal();

  function sort(table, header) {
    const column = header.cellIndex;
    const descending = header.getAttribute("aria-sort") === "ascending";
    const key = (row) => {
      const { sort } = row.cells[column].dataset;
      return sort === undefined ? row.cells[column].textContent.trim() : sort === "" ? null : Number(sort);
    };
    const compare = (a, b) => (typeof a === "string" ? a.localeCompare(b, "en") : a - b);
    const rows = [...table.tBodies[0].rows].map((row) => [key(row), row]);
    rows.sort(([a], [b]) => {
      if (a === null || b === null) return (a === null) - (b === null);
      return descending ? compare(b, a) : compare(a, b);
    });
    for (const other of header.parentNode.cells) other.removeAttribute("aria-sort");
    header.setAttribute("aria-sort", descending ? "descending" : "ascending");
    table.tBodies[0].append(...rows.map(([, row]) => row));
  }
  for (const table of document.querySelectorAll("table.sortable")) {
    for (const header of table.tHead.rows[0].cells) {
      const button = document.createElement("button");
      button.type = "button";
      button.append(...header.childNodes);
      header.append(button);
      button.addEventListener("click", () => sort(table, header));
    }
  }
})();
