// Numbers with units as the page writes them, and the brightness windows that it offers by name.

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
