// The one JSON of the page, read by name. A key is a trial's number, or "reference-0", "reference-1", ...
const numbers = (() => {
  const data = JSON.parse(document.getElementById("numbers").textContent);
  const { columns, rows, settings } = data.table;
  const column = new Map(columns.map((name, i) => [name, i]));
  const byTrial = new Map(rows.map((row) => [row[0], row]));
  const axes = new Map(data.axes.map((axis) => [axis.name, axis]));
  const onFront = new Set(data.front);
  const outside = new Set(data.outside);

  const cell = (row, name) => (column.has(name) ? row[column.get(name)] : null);
  const reference = (key) => data.references[Number(key.slice("reference-".length))];
  function value(key, name) {
    if (typeof key === "number") return cell(byTrial.get(key), name);
    const { metrics, costs } = reference(key);
    return metrics[name] ?? costs[name] ?? null;
  }
  function bounds(key, name) {
    const found = typeof key === "number"
      ? [value(key, `${name}_low`), value(key, `${name}_high`)]
      : reference(key).intervals[name] ?? [null, null];
    return found.includes(null) ? null : found;
  }
  const members = { front: [], outside: [], complete: [], infeasible: [], pruned: [] };
  const group = (row) => (onFront.has(row[0]) ? "front" : outside.has(row[0]) ? "outside" : cell(row, "state"));
  for (const row of rows) members[group(row)]?.push(row[0]);
  members.front = data.front;
  for (const name of ["chosen", "knee"]) members[name] = data[name] === null ? [] : [data[name]];
  data.references.forEach((_, i) => { members[`reference-${i}`] = [`reference-${i}`]; });

  function text(name, number) {
    if (number === null) return "–";
    if (axes.get(name)?.kind === "cost") return number.toLocaleString("en", Number.isInteger(number) ? {} : { maximumSignificantDigits: 4 });
    if (name.startsWith("accuracy")) return `${(100 * number).toFixed(2)} %`;
    return number !== 0 && (Math.abs(number) < 1e-3 || Math.abs(number) >= 1e4) ? number.toPrecision(3) : number.toFixed(4);
  }
  function student(trial) {
    const row = byTrial.get(trial);
    const isOff = (name) => name === "group_penalty" && cell(row, name) === 0;
    const shown = settings.filter((name) => name !== "family" && cell(row, name) !== null && !isOff(name));
    return `${cell(row, "family") ?? "student"}(${shown.map((name) => `${name}=${cell(row, name)}`).join(", ")})`;
  }
  const title = (key) => (typeof key === "number" ? `trial ${key}` : reference(key).label);
  return { data, axes, members, onFront, group, byTrial, cell, value, bounds, text, student, title };
})();
