// The middle slices of an image on plain canvases, where the browser has no WebGL2.

import { readVolume } from "./slices.js";
import { withUnit } from "./numbers.js";

// For each view: the axis that is cut, the axis to the right and the axis downwards of the picture. Axes run to the
// patient's right, front and head, and all pictures run against them: the right is on the left, front and head are on top.
const CUTS = [
  { name: "axial", cut: 2, across: 0, down: 1 },
  { name: "coronal", cut: 1, across: 0, down: 2 },
  { name: "sagittal", cut: 0, across: 1, down: 2 },
];

function drawCut(canvas, volume, image, { cut, across, down }) {
  const size = volume.dimsRAS.slice(1, 4);
  const spacing = volume.pixDimsRAS.slice(1, 4);
  canvas.width = size[across];
  canvas.height = size[down];
  canvas.style.aspectRatio = `${size[across] * spacing[across]} / ${size[down] * spacing[down]}`;
  const context = canvas.getContext("2d");
  const picture = context.createImageData(size[across], size[down]);
  const voxel = [0, 0, 0];
  voxel[cut] = Math.floor(size[cut] / 2);
  for (let row = 0; row < size[down]; row += 1) {
    voxel[down] = size[down] - 1 - row;
    for (let column = 0; column < size[across]; column += 1) {
      voxel[across] = size[across] - 1 - column;
      const value = volume.getValue(voxel[0], voxel[1], voxel[2]);
      const grey = (255 * (value - image.low)) / (image.high - image.low);
      picture.data.fill(grey, 4 * (row * size[across] + column), 4 * (row * size[across] + column) + 3);
      picture.data[4 * (row * size[across] + column) + 3] = 255;
    }
  }
  context.putImageData(picture, 0, 0);
}

/** Appends a figure with the three middle slices of each image to the element. */
export async function showMiddleSlices(element, images) {
  for (const image of images) {
    const volume = await readVolume(image);
    const figure = document.createElement("figure");
    figure.className = "middle";
    for (const cut of CUTS) {
      const canvas = document.createElement("canvas");
      canvas.setAttribute("role", "img");
      canvas.setAttribute("aria-label", `${image.label}, middle ${cut.name} slice`);
      drawCut(canvas, volume, image, cut);
      figure.append(canvas);
    }
    const caption = document.createElement("figcaption");
    caption.textContent = `${image.label}, middle slices, black is ${withUnit(image.low, image.unit)} and white is ${withUnit(image.high, image.unit)}`;
    figure.append(caption);
    element.append(figure);
  }
}
