// Opens what a link leads to, and everything on paper.
const reveal = (() => {
  function show(id) {
    const target = id && document.getElementById(id);
    if (!target) return false;
    if (target instanceof HTMLDetailsElement) target.open = true;
    target.scrollIntoView();
    requestAnimationFrame(() => target.scrollIntoView()); // what it came by is only now laid out in full
    (target.querySelector(":scope > summary") ?? target).focus({ preventScroll: true });
    return true;
  }
  const ofAddress = () => show(decodeURIComponent(location.hash.slice(1)));
  addEventListener("hashchange", ofAddress);
  ofAddress();

  let opened = [];
  addEventListener("beforeprint", () => {
    opened = [...document.querySelectorAll("details:not([open])")];
    opened.forEach((details) => { details.open = true; });
  });
  addEventListener("afterprint", () => opened.forEach((details) => { details.open = false; }));

  // The card of a front student, here or in the file beside the report; the row of any other trial.
  function trial(number, onFront) {
    if (document.getElementById(`student-${number}`)) location.hash = `student-${number}`;
    else if (onFront) location.href = `${start.more}#student-${number}`;
    else location.hash = `trial-${number}`;
  }
  return { show, trial };
})();
