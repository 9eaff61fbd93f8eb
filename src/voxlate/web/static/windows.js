// The controls for the brightness of one image: named windows, the darkest and the brightest value.

import { number, windowsOf } from "./numbers.js";

let serial = 0;

function labelled(text, control) {
  const row = document.createElement("div");
  row.className = "control";
  const label = document.createElement("label");
  serial += 1;
  control.id = `viewer-window-${serial}`;
  label.htmlFor = control.id;
  label.textContent = text;
  row.append(label, control);
  return row;
}

// The ends of a range of 32-bit numbers have more digits than anybody reads.
function shortest(value) {
  return String(Number(value.toPrecision(6)));
}

function numberField(value) {
  const field = document.createElement("input");
  field.type = "number";
  field.step = "any";
  field.value = shortest(value);
  return field;
}

// The extremes of all voxels in the image's unit; NiiVue's own are those of the brightness that it proposes.
function extremesOf(volume) {
  let least = Infinity;
  let most = -Infinity;
  for (const value of volume.img) {
    if (value < least) least = value;
    if (value > most) most = value;
  }
  const { scl_slope: slope, scl_inter: intercept } = volume.hdr;
  return [(slope || 1) * least + (intercept || 0), (slope || 1) * most + (intercept || 0)];
}

/** Fills a fieldset with the controls of an image; onChange(low, high) is called with every valid window. */
export function showWindow(fieldset, image, volume, onChange) {
  const legend = fieldset.querySelector("legend");
  const windows = windowsOf(image, ...extremesOf(volume));
  const choice = document.createElement("select");
  for (const [name, low, high] of windows) {
    choice.add(new Option(`${name}: ${number(low)} to ${number(high)}`, name));
  }
  choice.add(new Option("Own values", "own"));
  const unit = image.unit ? ` (${image.unit})` : "";
  const darkest = numberField(image.low);
  const brightest = numberField(image.high);
  const problem = document.createElement("p");
  problem.className = "error";
  problem.setAttribute("role", "alert");
  problem.hidden = true;

  function apply() {
    const low = darkest.valueAsNumber;
    const high = brightest.valueAsNumber;
    const valid = Number.isFinite(low) && Number.isFinite(high) && low < high;
    problem.hidden = valid;
    problem.textContent = valid ? "" : "The value shown as black must be below the value shown as white.";
    if (valid) onChange(low, high);
  }

  choice.addEventListener("change", () => {
    const chosen = windows.find(([name]) => name === choice.value);
    if (chosen === undefined) return;
    darkest.value = shortest(chosen[1]);
    brightest.value = shortest(chosen[2]);
    apply();
  });
  for (const field of [darkest, brightest]) {
    field.addEventListener("input", () => {
      choice.value = "own";
      apply();
    });
  }
  fieldset.replaceChildren(
    legend,
    labelled("Window", choice),
    labelled(`Shown as black${unit}`, darkest),
    labelled(`Shown as white${unit}`, brightest),
    problem,
  );
  fieldset.hidden = false;
}
