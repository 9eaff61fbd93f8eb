// Distances, regions and histograms of slices, the scale bar, and how they are drawn over the pictures.

import { number } from "./numbers.js";
import { IN_PLANE, voxelAt } from "./slices.js";

const BINS = 64;
const BARS_MM = [100, 50, 20, 10, 5, 2, 1];
const [LINE, HALO] = ["#ffe28a", "#000000"];

export function distance(from, to) {
  return Math.hypot(...from.map((value, axis) => to[axis] - value));
}

/**
 * The values of a slice of a volume: [], or of the voxels whose centres are inside the ellipse that fills the rectangle
 * between two points in millimetres, with sides along the axes of the volume that they were drawn on. Nothing where the
 * slice is oblique in this volume, or turned.
 */
export function valuesIn(volume, axis, from, to = null, drawnOn = volume) {
  const size = volume.dimsRAS.slice(1, 4);
  const slice = Math.round(voxelAt(volume, from, true)[axis]);
  if (slice < 0 || slice >= size[axis]) return [];
  let [low, high, middle, radius] = [[0, 0], IN_PLANE[axis].map((side) => size[side] - 1), null, null];
  if (to !== null) {
    const ends = [from, to].map((point) => voxelAt(volume, point, true));
    if (Math.abs(ends[0][axis] - ends[1][axis]) > 0.5 || isTurned(volume, drawnOn, axis, from, to)) return [];
    const sides = IN_PLANE[axis].map((side) => ends.map((end) => end[side]).sort((a, b) => a - b));
    middle = sides.map(([first, last]) => (first + last) / 2);
    radius = sides.map(([first, last]) => Math.max((last - first) / 2, 1e-6));
    low = sides.map(([first], k) => Math.max(low[k], Math.ceil(first)));
    high = sides.map(([, last], k) => Math.min(high[k], Math.floor(last)));
  }
  const found = [];
  const voxel = [slice, slice, slice];
  const [across, down] = IN_PLANE[axis];
  for (let row = low[1]; row <= high[1]; row += 1) {
    for (let column = low[0]; column <= high[0]; column += 1) {
      const outside = middle && ((column - middle[0]) / radius[0]) ** 2 + ((row - middle[1]) / radius[1]) ** 2 > 1;
      if (outside) continue;
      voxel[across] = column;
      voxel[down] = row;
      found.push(volume.getValue(...voxel));
    }
  }
  return found;
}

/** Whether the rectangle between two points on one volume has sides along other axes in another one. */
function isTurned(volume, drawnOn, axis, from, to) {
  const [across, down] = IN_PLANE[axis];
  const corner = (of, first, last) => Object.assign(voxelAt(of, first, true), { [down]: voxelAt(of, last, true)[down] });
  const drawn = voxelAt(volume, drawnOn.vox2mm(corner(drawnOn, from, to), drawnOn.matRAS), true);
  const own = corner(volume, from, to);
  return [across, down].some((side) => Math.abs(drawn[side] - own[side]) > 0.5);
}

/** Mean and standard deviation of all of them (divided by their number). */
export function statistics(values) {
  const mean = values.reduce((sum, value) => sum + value, 0) / values.length;
  const variance = values.reduce((sum, value) => sum + (value - mean) ** 2, 0) / values.length;
  return { count: values.length, mean, deviation: Math.sqrt(variance) };
}

/** Counts of values in equal bins from the least to the largest. */
export function histogram(values, bins = BINS) {
  const counts = new Array(bins).fill(0);
  let [low, high] = [Infinity, -Infinity];
  for (const value of values) {
    low = Math.min(low, value);
    high = Math.max(high, value);
  }
  const scale = high > low ? bins / (high - low) : 0;
  for (const value of values) counts[Math.min(bins - 1, Math.floor((value - low) * scale))] += 1;
  return { counts, low, high };
}

/** Bars with logarithmic heights, because the air around a body is most of a slice; lines where the window ends. */
export function drawHistogram(canvas, { counts, low, high }, window) {
  const { width, height } = canvas;
  const context = canvas.getContext("2d");
  const styles = getComputedStyle(canvas);
  const most = Math.log1p(Math.max(...counts));
  context.clearRect(0, 0, width, height);
  context.fillStyle = styles.color;
  counts.forEach((count, bin) => {
    const tall = most > 0 ? (Math.log1p(count) / most) * height : 0;
    context.fillRect((bin * width) / counts.length, height - tall, width / counts.length - 1, tall);
  });
  context.fillStyle = styles.borderColor;
  for (const end of window) context.fillRect(((end - low) / (high - low)) * width - 1, 0, 2, height);
}

function widthOf(context, words, unit) {
  context.font = `${Math.round(13 * unit)}px sans-serif`;
  return context.measureText(words).width;
}

/** Words in as many lines as a width needs. */
function linesOf(context, words, width, unit) {
  const lines = [""];
  for (const word of words.split(" ")) {
    const longer = `${lines.at(-1)} ${word}`.trim();
    if (widthOf(context, longer, unit) <= width) lines[lines.length - 1] = longer;
    else lines.push(word);
  }
  return lines;
}

function text(context, words, x, y, unit) {
  context.font = `${Math.round(13 * unit)}px sans-serif`;
  context.lineWidth = 3 * unit;
  context.strokeStyle = HALO;
  context.strokeText(words, x, y);
  context.fillText(words, x, y);
}

function outline(context, unit, path) {
  for (const [style, width] of [[HALO, 3.5], [LINE, 1.5]]) {
    context.strokeStyle = style;
    context.lineWidth = width * unit;
    context.beginPath();
    path();
    context.stroke();
  }
}

function drawMeasure(context, { kind, from, to, label }, tile, unit) {
  const [[x, y], [u, v]] = [tile.place(from), tile.place(to)];
  outline(context, unit, () => {
    if (kind === "region") {
      context.ellipse((x + u) / 2, (y + v) / 2, Math.abs(u - x) / 2, Math.abs(v - y) / 2, 0, 0, 2 * Math.PI);
      return;
    }
    context.moveTo(x, y);
    context.lineTo(u, v);
  });
  context.fillStyle = LINE;
  const last = tile.left + tile.width - widthOf(context, label, unit) - 5 * unit; // where the label still ends in the slice
  text(context, label, Math.max(tile.left, Math.min(Math.max(x, u) + 5 * unit, last)), Math.max(y, v), unit);
}

/** A bar of the longest round length that takes at most a third of the slice. */
function drawScaleBar(context, tile, unit) {
  const millimetres = BARS_MM.find((length) => length * tile.pixelsPerMillimetre <= tile.width / 3) ?? BARS_MM.at(-1);
  const length = millimetres * tile.pixelsPerMillimetre;
  const [right, bottom] = [tile.left + tile.width - 10 * unit, tile.top + tile.height - 10 * unit];
  outline(context, unit, () => {
    context.moveTo(right, bottom - 6 * unit);
    context.lineTo(right, bottom);
    context.lineTo(right - length, bottom);
    context.lineTo(right - length, bottom - 6 * unit);
  });
  context.fillStyle = LINE;
  context.textAlign = "right";
  text(context, millimetres < 10 ? `${millimetres} mm` : `${millimetres / 10} cm`, right, bottom - 9 * unit, unit);
  context.textAlign = "left";
}

/** Draws over a pane what is measured on its slices, a scale bar, and lines of text at the upper left. */
export function drawOver(canvas, slices, measures, lines) {
  const { canvas: below } = slices;
  const unit = below.width / below.getBoundingClientRect().width;
  [canvas.width, canvas.height] = [below.width, below.height];
  const context = canvas.getContext("2d");
  const tiles = slices.tiles();
  for (const tile of tiles) {
    context.save();
    context.beginPath();
    context.rect(tile.left, tile.top, tile.width, tile.height);
    context.clip();
    for (const measure of measures.filter(({ axis }) => axis === tile.axis)) drawMeasure(context, measure, tile, unit);
    if (tile === tiles[0]) drawScaleBar(context, tile, unit);
    context.restore();
  }
  context.fillStyle = "#ffffff";
  lines.forEach((line, row) => text(context, line, 8 * unit, (18 + 17 * row) * unit, unit));
}

/** The pictures of the panes beside each other, with what is drawn over them, and a line below: a canvas. */
export function pictureOf(panes, line) {
  const [{ slices: { canvas: first } }] = panes;
  const unit = first.width / first.getBoundingClientRect().width;
  const picture = document.createElement("canvas");
  const width = panes.reduce((sum, { slices }) => sum + slices.canvas.width, 0);
  const context = picture.getContext("2d");
  const lines = linesOf(context, line, width - 16 * unit, unit);
  [picture.width, picture.height] = [width, first.height + Math.round((9 + 17 * lines.length) * unit)];
  context.fillRect(0, 0, picture.width, picture.height);
  let left = 0;
  for (const { slices, drawn } of panes) {
    slices.drawNow(); // a browser keeps the pixels of WebGL until the end of the task that drew them
    context.drawImage(slices.canvas, left, 0);
    context.drawImage(drawn, left, 0);
    left += slices.canvas.width;
  }
  context.fillStyle = "#ffffff";
  lines.forEach((words, row) => text(context, words, 8 * unit, first.height + (18 + 17 * row) * unit, unit));
  return picture;
}

export function regionText({ count, mean, deviation }, unit) {
  return count ? `${number(mean)} \u00b1 ${number(deviation)}${unit ? ` ${unit}` : ""}` : "none on this grid";
}
