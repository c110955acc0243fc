// The table of all trials: sorted by a click on a heading, filtered, and taken home as CSV or JSON.
(() => {
  const table = document.getElementById("all-trials");
  if (!table) return;
  const body = table.tBodies[0];
  const rows = [...body.rows].map((element) => ({ element, trial: Number(element.cells[0].textContent), text: element.textContent.toLowerCase() }));
  const names = [...table.tHead.rows[0].cells].map((header) => header.dataset.name);

  function key(row, name) {
    const record = numbers.byTrial.get(row.trial);
    if (name === "student") return numbers.student(row.trial);
    return numbers.cell(record, name);
  }
  function sort(header) {
    const name = names[header.cellIndex];
    const descending = header.getAttribute("aria-sort") === "ascending";
    const compare = (a, b) => (typeof a === "string" ? a.localeCompare(b, "en") : a - b);
    const keyed = rows.map((row) => [key(row, name), row]);
    keyed.sort(([a], [b]) => {
      if (a === null || b === null) return (a === null) - (b === null);
      return descending ? compare(b, a) : compare(a, b);
    });
    for (const other of header.parentNode.cells) other.removeAttribute("aria-sort");
    header.setAttribute("aria-sort", descending ? "descending" : "ascending");
    body.append(...keyed.map(([, row]) => row.element));
  }
  for (const header of table.tHead.rows[0].cells) {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...header.childNodes);
    header.append(button);
    button.addEventListener("click", () => sort(header));
  }

  const form = document.getElementById("trials-filter");
  function filter() {
    const wanted = form.elements.text.value.trim().toLowerCase(), state = form.elements.state.value;
    let shown = 0;
    for (const { element, trial, text } of rows) {
      const row = numbers.byTrial.get(trial);
      const is = [numbers.group(row), numbers.cell(row, "state")];
      const visible = text.includes(wanted) && (!state || is.includes(state));
      element.hidden = !visible;
      shown += visible;
    }
    document.getElementById("trials-shown").textContent = `${shown} of ${rows.length} trials`;
  }
  form.addEventListener("input", filter);
  form.addEventListener("submit", (event) => event.preventDefault());
  filter();

  // A spreadsheet would run a text that starts like a formula.
  function quoted(value) {
    if (value === null) return "";
    const text = typeof value === "string" && /^[=+\-@\t\r]/.test(value) ? `'${value}` : String(value);
    return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
  }
  function save(name, type, content) {
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([content], { type }));
    link.download = name;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 1000);
  }
  document.getElementById("save-csv").addEventListener("click", () => {
    const { columns, rows: records } = numbers.data.table;
    save("trials.csv", "text/csv", [columns, ...records].map((row) => row.map(quoted).join(",")).join("\r\n") + "\r\n");
  });
  document.getElementById("save-json").addEventListener("click", () => {
    save("study.json", "application/json", document.getElementById("numbers").textContent);
  });
})();
