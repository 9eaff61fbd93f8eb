// Numbers with units as the page writes them, and the windows that it offers by name.

const MINUS = "\u2212";

// Digits that a reader needs: whole from 1000 on, one decimal from 10 on, below that three significant digits.
function digitsOf(size) {
  if (size >= 1000) return { maximumFractionDigits: 0 };
  if (size >= 10) return { maximumFractionDigits: 1 };
  return { maximumSignificantDigits: 3 };
}

export function number(value) {
  if (!Number.isFinite(value)) return "none";
  const digits = digitsOf(Math.abs(value));
  const text = new Intl.NumberFormat("en", { useGrouping: false, ...digits }).format(value);
  return text === "-0" ? "0" : text.replace("-", MINUS);
}

export function withUnit(value, unit) {
  return unit ? `${number(value)} ${unit}` : number(value);
}

/** Windows in Hounsfield units, as reading rooms use them: [name, darkest, brightest]. */
const HOUNSFIELD = [
  ["Soft tissue", -160, 240],
  ["Brain", 0, 80],
  ["Bone", -450, 1050],
  ["Lung", -1350, 150],
];

/** Windows for an image: the proposed one, the whole range, and those that its unit has names for. */
export function windowsOf(image, smallest, largest) {
  const named = image.unit === "HU" ? HOUNSFIELD : [];
  return [["Proposed", image.low, image.high], ["Whole range", smallest, largest], ...named];
}

/** The window of an image in colours over another one: bone of a CT, else the brighter half of its greys. */
export function fusedWindow({ unit, low, high }) {
  return unit === "HU" ? [150, 1000] : [(low + high) / 2, high];
}

// The extremes of all voxels in the image's unit; NiiVue's own are those of the brightness that it proposes.
export function extremesOf(volume) {
  let least = Infinity;
  let most = -Infinity;
  for (const value of volume.img) {
    if (value < least) least = value;
    if (value > most) most = value;
  }
  const { scl_slope: slope, scl_inter: intercept } = volume.hdr;
  return [(slope || 1) * least + (intercept || 0), (slope || 1) * most + (intercept || 0)];
}
