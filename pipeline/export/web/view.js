// Everything that is written into the page, apart from pictures.

const TOP = 5;
const LEAST = 0.0005; // what is less would be shown as 0.0 %

export const $ = (id) => document.getElementById(id);

/** Write the most probable labels as bars; colours are those of a mask's classes. */
export function showBars(ranking, colours) {
  $("nothing").hidden = true;
  const shown = ranking.slice(0, TOP).filter(({ share }, place) => place === 0 || share >= LEAST);
  $("bars").replaceChildren(...shown.map((entry) => bar(entry, colours)));
}

function bar({ index, label, share }, colours) {
  const fill = element("div", { className: "fill" });
  fill.style.setProperty("--share", `${100 * share}%`);
  const name = element("span", {}, label);
  if (colours) {
    const swatch = element("span", { className: "swatch" });
    swatch.style.background = `rgb(${colours[index]})`;
    name.prepend(swatch);
  }
  const value = element("span", { className: "value" }, percent(share));
  return element("li", {}, name, value, element("div", { className: "track" }, fill));
}

/** Write one row per variant: those that the runtime refused with its reason, the others to choose from. */
export function showVariants(facts, models, chosen, choose) {
  $("variants").replaceChildren(
    ...facts.map((fact) => {
      const model = models.get(fact.name);
      return typeof model === "string" ? refusedRow(fact, model) : takenRow(fact, fact.name === chosen, choose);
    }),
  );
}

function takenRow(fact, chosen, choose) {
  const radio = element("input", { type: "radio", name: "variant", value: fact.name, checked: chosen });
  radio.addEventListener("change", () => choose(fact.name));
  const row = variantRow(fact, radio);
  row.append(...["answer", "share number", "distance number", "time number"].map((name) => cell(name, "–")));
  row.classList.toggle("chosen", chosen);
  return row;
}

function refusedRow(fact, reason) {
  const row = variantRow(fact, element("input", { type: "radio", name: "variant", disabled: true }));
  const why = cell("answer", `not taken by the browser's runtime: ${reason}`);
  why.colSpan = 4;
  row.append(why);
  row.className = "refused";
  return row;
}

function variantRow(fact, radio) {
  const row = element("tr", {}, element("th", { scope: "row" }, element("label", {}, radio, fact.name)));
  row.dataset.variant = fact.name;
  row.append(cell("number size", Math.round(fact.bytes / 1024).toLocaleString("en")));
  return row;
}

/** Mark the chosen row, and empty the comparison where it is of another picture. */
export function markChosen(name) {
  for (const row of $("variants").rows) {
    row.classList.toggle("chosen", row.dataset.variant === name);
    if (!row.classList.contains("refused")) fillRow(row.dataset.variant, {});
  }
}

/** Write what a variant answered into its row. */
export function fillRow(name, { best, distance, milliseconds }) {
  const row = [...$("variants").rows].find((candidate) => candidate.dataset.variant === name);
  const texts = {
    answer: best?.label,
    share: best && percent(best.share),
    distance,
    time: milliseconds === undefined ? undefined : time(milliseconds),
  };
  for (const [column, text] of Object.entries(texts)) row.querySelector(`.${column}`).textContent = text ?? "–";
}

/** Tell what went wrong, or nothing. */
export function showProblem(text) {
  $("problem").textContent = text ?? "";
  $("problem").hidden = !text;
}

/** Say it to those who listen; the same words twice are said once. */
export function announce(text) {
  if ($("status").textContent !== text) $("status").textContent = text;
}

export function percent(share) {
  return `${(100 * share).toFixed(1)} %`;
}

export function time(milliseconds) {
  return milliseconds >= 100 ? milliseconds.toFixed(0) : milliseconds.toPrecision(2);
}

/** Write a small difference shortly. */
export function small(value) {
  if (value === 0) return "0";
  return value < 1e-3 ? value.toExponential(1) : value.toPrecision(2);
}

/** Make an element with properties and children. */
export function element(tag, properties = {}, ...children) {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
}

function cell(className, text) {
  return element("td", { className }, text);
}
