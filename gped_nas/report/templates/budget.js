// Names the best front student within the bounds that sliders set: what `gped-search pick --within` would pick.
(() => {
  const form = document.getElementById("budget");
  if (!form || !explorer) return;
  const { front } = numbers.data;
  const answer = document.getElementById("budget-answer");
  const sliders = [...form.querySelectorAll("input[type=range]")].map((input) => {
    const { name } = input.dataset;
    const atLeast = numbers.axes.get(name).direction === "maximize";
    const known = front.map((trial) => numbers.value(trial, name)).filter((value) => value !== null);
    const values = [...new Set(known)].sort((a, b) => a - b);
    input.max = values.length - 1;
    input.value = atLeast ? 0 : values.length - 1;
    return { input, name, atLeast, values, loose: Number(input.value) };
  });
  const bound = ({ input, values }) => values[Number(input.value)];
  const isSet = (slider) => Number(slider.input.value) !== slider.loose;

  // Numbers here have six digits: a bound that is not a whole number is written a little looser, to hold its student.
  function written({ atLeast }, value) {
    if (Number.isInteger(value)) return String(value);
    return String(Number((value * (1 + (atLeast ? -2e-6 : 2e-6) * Math.sign(value))).toPrecision(7)));
  }
  function describe(trial) {
    const link = document.createElement("a");
    link.href = `#student-${trial}`;
    link.textContent = `Trial ${trial}`;
    link.addEventListener("click", (event) => { event.preventDefault(); reveal.trial(trial, true); });
    const numbersOf = sliders.map(({ name }) => `${numbers.axes.get(name).label} ${numbers.text(name, numbers.value(trial, name))}`);
    return [link, `: ${numbersOf.join(", ")}.`];
  }
  function update() {
    for (const slider of sliders) {
      const text = `${slider.atLeast ? "at least" : "at most"} ${numbers.text(slider.name, bound(slider))}`;
      slider.input.setAttribute("aria-valuetext", text);
      slider.input.nextElementSibling.textContent = isSet(slider) ? numbers.text(slider.name, bound(slider)) : "any";
    }
    const used = sliders.filter(isSet);
    const fits = front.filter((trial) => used.every((slider) => {
      const value = numbers.value(trial, slider.name);
      return value !== null && (slider.atLeast ? value >= bound(slider) : value <= bound(slider));
    }));
    const best = used.length ? fits[0] ?? null : numbers.data.chosen;
    answer.dataset.trial = best ?? "";
    if (best === null) answer.replaceChildren("No student on the front is within this budget: loosen a bound.");
    else answer.replaceChildren(...describe(best), used.length ? ` ${fits.length} of ${front.length} on the front fit.` : " No bound is set, so this is the chosen student.");
    document.getElementById("budget-command").textContent =
      [`gped-search pick ${form.dataset.study}`, ...used.map((slider) => `--within ${slider.name}=${written(slider, bound(slider))}`)].join(" ");
    explorer.mark(used.length ? best : null);
  }
  form.addEventListener("input", update);
  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("reset", () => {
    for (const slider of sliders) slider.input.defaultValue = slider.loose;
    setTimeout(update);
  });
  update();
})();
