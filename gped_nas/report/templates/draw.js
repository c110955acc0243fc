// Draws the page's Plotly charts in the ink of its colour scheme, and in black on paper.
const root = document.documentElement;
const { charts, config, explorer: start } = JSON.parse(document.getElementById("charts").textContent);
root.classList.add("js");

const drawing = (() => {
  let ink = "";
  const schemeInk = () => getComputedStyle(root).getPropertyValue("--chart-ink").trim();

  // Pure black stands for ink in the figures; the style sheet knows which ink suits the background.
  function draw(id) {
    const element = document.getElementById(id);
    const { data, layout } = JSON.parse(JSON.stringify(charts[id]).replaceAll('"#000000"', JSON.stringify(ink)));
    element.querySelector(":scope > .still")?.remove();
    return Plotly.react(element, data, { ...layout, autosize: true }, config);
  }
  function drawAll(color) {
    ink = color;
    Object.keys(charts).forEach((id) => { if (!charts[id].waiting) draw(id); });
  }
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => drawAll(schemeInk()));
  addEventListener("beforeprint", () => drawAll("#000"));
  addEventListener("afterprint", () => drawAll(schemeInk()));
  if (start && charts["chart-front"]) charts["chart-front"].waiting = true; // until explorer.js has filled it
  ink = schemeInk();
  // one after the other, the page answering in between
  const left = Object.keys(charts).filter((id) => !charts[id].waiting);
  const next = () => {
    if (!left.length) return;
    draw(left.shift());
    setTimeout(next);
  };
  setTimeout(next);
  return { draw };
})();
