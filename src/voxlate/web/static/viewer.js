// The viewer of one result: source, synthesis, a blend between them, and a map of the uncertainty in colour.
//
// NiiVue 0.69 needs no more of a content security policy than
//   script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'
// (data: is the picture of its font; there is no eval, no WebAssembly, no worker, no blob and no inline style or script).

import { showMiddleSlices } from "./middle.js";
import { number, withUnit } from "./numbers.js";
import { clamp, listenToPicture } from "./picture.js";
import { openSlices, readVolume, valueAt } from "./slices.js";
import { showWindow } from "./windows.js";

const MAPS = ["width", "spread"];
const SIDES = {
  axial: "The patient\u2019s right is on the left of the picture and the front on top.",
  coronal: "The patient\u2019s right is on the left of the picture and the head on top.",
  sagittal: "The patient\u2019s front is on the left of the picture and the head on top.",
  all: "The patient\u2019s right is on the left of the axial and coronal pictures; the front is on the left of the sagittal one.",
};
// By axis: the name of its slices, and its positive and negative end.
const AXES = [["Sagittal", "right", "left"], ["Coronal", "front", "back"], ["Axial", "head", "feet"]];

function imagesOf(root) {
  return Array.from(root.querySelectorAll("[data-images] li"), ({ dataset }) => ({
    name: dataset.name,
    label: dataset.label,
    url: dataset.url,
    role: dataset.role,
    unit: dataset.unit,
    low: Number(dataset.low),
    high: Number(dataset.high),
  }));
}

function hasWebGl2() {
  return document.createElement("canvas").getContext("webgl2") !== null;
}

function blendText(percent) {
  if (percent === 0) return "Source only";
  if (percent === 100) return "Synthesis only";
  return `${percent} % synthesis`;
}

class Viewer {
  constructor(root, images) {
    this.root = root;
    this.images = images;
    this.volumes = new Map();
    this.blend = 100;
    this.map = null;
    this.announcing = 0;
    this.pending = Promise.resolve();
  }

  find(name) {
    return this.root.querySelector(`[data-${name}]`);
  }

  withRole(...roles) {
    return this.images.filter((image) => roles.includes(image.role));
  }

  async open() {
    this.canvas = this.find("canvas");
    this.find("body").hidden = false;
    this.slices = await openSlices(this.canvas);
    this.synthesis = this.withRole("synthesis")[0] ?? null;
    this.source = this.withRole("source")[0] ?? null;
    for (const image of [this.synthesis, this.source]) {
      if (image === null) continue;
      const position = this.volumes.size;
      const volume = await this.slices.addLayer(image, position, position === 0 ? 1 : 0);
      this.volumes.set(image, volume);
      this.showWindowOf(image);
    }
    this.centre();
    this.setUpViews();
    this.setUpBlend();
    this.setUpMap();
    listenToPicture(this);
    this.setView("axial");
  }

  centre() {
    this.slices.moveTo([0, 1, 2].map((axis) => Math.floor(this.slices.count(axis) / 2)));
  }

  showWindowOf(image) {
    const volume = this.volumes.get(image);
    const fieldset = this.root.querySelector(`[data-window="${image.role}"]`);
    showWindow(fieldset, image, volume, (low, high) => this.slices.setWindow(volume, low, high));
  }

  // Views and slices

  setUpViews() {
    for (const radio of this.root.querySelectorAll('[name="view"]')) {
      radio.addEventListener("change", () => this.setView(radio.value));
    }
    this.find("slice").addEventListener("input", (event) => this.goTo(event.target.valueAsNumber - 1));
    this.find("smooth").addEventListener("change", (event) => this.slices.setSmooth(event.target.checked));
    this.find("crosshair").addEventListener("change", (event) => this.slices.setCrosshair(event.target.checked));
  }

  setView(name) {
    this.root.querySelector(`[name="view"][value="${name}"]`).checked = true;
    this.find("sides").textContent = SIDES[name];
    this.slices.setView(name);
    this.showSlice();
  }

  goTo(index, axis = this.slices.axis()) {
    const voxel = this.slices.voxel();
    voxel[axis] = clamp(index, 0, this.slices.count(axis) - 1);
    this.slices.moveTo(voxel);
    this.showSlice();
  }

  step(slices, axis = this.slices.axis()) {
    this.goTo(this.slices.voxel()[axis] + slices, axis);
  }

  showSlice() {
    const axis = this.slices.axis();
    const index = this.slices.voxel()[axis];
    const millimetres = this.slices.millimetres()[axis];
    const [name, positive, negative] = AXES[axis];
    const side = millimetres < 0 ? negative : positive;
    const slider = this.find("slice");
    const text = `${index + 1} of ${this.slices.count(axis)}, ${Math.abs(millimetres).toFixed(1)} mm towards the ${side}`;
    slider.max = String(this.slices.count(axis));
    slider.value = String(index + 1);
    slider.setAttribute("aria-valuetext", text);
    this.find("slice-name").textContent = `${name} slice`;
    this.find("slice-text").textContent = text;
    this.showValues(this.slices.millimetres(), "Values at the crosshair");
    this.announce();
  }

  // Values

  rows(millimetres) {
    const at = (image) => valueAt(this.volumes.get(image), millimetres);
    const read = (image) => image !== undefined && this.volumes.has(image);
    const rows = this.withRole("source", "synthesis").filter(read)
      .map((image) => [image.label, withUnit(at(image), image.unit)]);
    const [lower] = this.ofSynthesis("lower");
    const [upper] = this.ofSynthesis("upper");
    if (read(lower) && read(upper)) {
      rows.push(["Interval", `${number(at(lower))} to ${withUnit(at(upper), upper.unit)}`]);
    }
    for (const image of this.withRole(...MAPS).filter(read)) {
      rows.push([image.label, withUnit(at(image), image.unit)]);
    }
    return rows;
  }

  showValues(millimetres, caption) {
    this.find("place").textContent = caption;
    const rows = this.rows(millimetres).map(([label, value]) => {
      const row = document.createElement("tr");
      const head = document.createElement("th");
      const cell = document.createElement("td");
      head.scope = "row";
      head.textContent = label;
      cell.textContent = value;
      row.append(head, cell);
      return row;
    });
    this.find("values").replaceChildren(...rows);
  }

  // A screen reader hears the values once the keys are at rest.
  announce() {
    clearTimeout(this.announcing);
    this.announcing = setTimeout(() => {
      const values = this.rows(this.slices.millimetres()).map((row) => row.join(" "));
      this.find("announce").textContent = `${this.find("slice-name").textContent} ${this.find("slice-text").textContent}; ${values.join("; ")}`;
    }, 600);
  }

  // Blend

  // A list of images to choose from, hidden where there is no choice.
  setUpChoice(name, images, onChoice) {
    const choice = this.find(name);
    images.forEach((image, index) => choice.add(new Option(image.label, String(index))));
    this.find(`${name}-choice`).hidden = images.length < 2;
    choice.addEventListener("change", () => onChoice(images[Number(choice.value)]));
  }

  setUpBlend() {
    const sources = this.withRole("source");
    if (this.synthesis === null || sources.length === 0) {
      this.find("blend-group").hidden = true;
      return;
    }
    this.setUpChoice("source", sources, (image) => this.setSource(image));
    this.setUpChoice("synthesis", this.withRole("synthesis"), (image) => this.setSynthesis(image));
    this.find("blend").addEventListener("input", (event) => this.setBlend(event.target.valueAsNumber));
    for (const button of this.root.querySelectorAll("[data-blend-to]")) {
      button.addEventListener("click", () => this.setBlend(Number(button.dataset.blendTo)));
    }
  }

  setBlend(percent) {
    if (this.synthesis === null || this.source === null) return;
    this.blend = clamp(percent, 0, 100);
    const slider = this.find("blend");
    slider.value = String(this.blend);
    slider.setAttribute("aria-valuetext", blendText(this.blend));
    this.find("blend-text").textContent = blendText(this.blend);
    this.slices.setOpacity(this.volumes.get(this.source), 1 - this.blend / 100);
  }

  setSource(image) {
    return this.reading(async () => {
      await this.exchange(this.source, image, 1, 1 - this.blend / 100);
      this.source = image;
      this.showSlice();
    });
  }

  // The maps and bounds of the former synthesis go with it.
  async setSynthesis(image) {
    await this.reading(async () => {
      this.dropMap();
      await this.exchange(this.synthesis, image, 0, 1);
      this.synthesis = image;
      this.showMaps();
      this.showSlice();
    });
    await this.showMap();
  }

  async exchange(former, image, position, opacity) {
    const volume = await this.slices.addLayer(image, position, opacity);
    this.slices.removeLayer(this.volumes.get(former));
    this.volumes.delete(former);
    this.volumes.set(image, volume);
    this.showWindowOf(image);
  }

  // Map of the uncertainty

  // Images of these roles that belong to the shown synthesis; names are those of its modality.
  ofSynthesis(...roles) {
    return this.withRole(...roles).filter(({ name }) => this.synthesis === null || name === this.synthesis.name);
  }

  setUpMap() {
    this.find("map").addEventListener("change", (event) => {
      this.setMap(this.ofSynthesis(...MAPS)[Number(event.target.value)]);
    });
    this.find("map-shown").addEventListener("change", () => this.showMap());
    this.find("map-opacity").addEventListener("input", () => this.showMap());
    this.showMaps();
  }

  showMaps() {
    const maps = this.ofSynthesis(...MAPS);
    this.map = maps[0] ?? null;
    this.find("map-group").hidden = maps.length === 0;
    this.find("map").replaceChildren(...maps.map((image, index) => new Option(image.label, String(index))));
    this.find("map-choice").hidden = maps.length < 2;
    if (this.map !== null) this.drawLegend();
  }

  dropMap() {
    const volume = this.volumes.get(this.map);
    if (volume !== undefined) this.slices.removeLayer(volume);
    for (const image of this.withRole("lower", "upper", ...MAPS)) this.volumes.delete(image);
  }

  async setMap(image) {
    await this.reading(async () => {
      this.dropMap();
      this.map = image;
      this.drawLegend();
    });
    await this.showMap();
  }

  // The map, and the bounds for the values, are read after the image, when they are first wanted.
  async showMap() {
    if (this.map === null) return;
    const shown = this.find("map-shown");
    const strength = this.find("map-opacity");
    const text = `${strength.value} %`;
    this.find("map-opacity-text").textContent = text;
    strength.setAttribute("aria-valuetext", text);
    if (shown.checked && !this.volumes.has(this.map)) await this.reading(() => this.readMap());
    // Both controls may have changed while the map was read.
    const volume = this.volumes.get(this.map);
    if (volume !== undefined) this.slices.setOpacity(volume, shown.checked ? strength.valueAsNumber / 100 : 0);
  }

  toggleMap() {
    if (this.map !== null) this.find("map-shown").click();
  }

  async readMap() {
    const image = this.map;
    if (this.volumes.has(image)) return;
    const position = this.synthesis && this.source ? 2 : 1;
    this.volumes.set(image, await this.slices.addLayer(image, position, 0));
    for (const bound of this.ofSynthesis("lower", "upper")) {
      if (!this.volumes.has(bound)) this.volumes.set(bound, await readVolume(bound));
    }
    this.showSlice();
  }

  drawLegend() {
    const { label, unit, low, high } = this.map;
    this.find("map-name").textContent = label.charAt(0).toLowerCase() + label.slice(1);
    const bar = this.find("legend-bar");
    const context = bar.getContext("2d");
    const picture = context.createImageData(256, 1);
    picture.data.set(this.slices.colours());
    context.putImageData(picture, 0, 0);
    const ends = [withUnit(low, unit), withUnit((low + high) / 2, unit), `${withUnit(high, unit)} or more`];
    this.find("legend-text").replaceChildren(...ends.map((end) => {
      const tick = document.createElement("span");
      tick.textContent = end;
      return tick;
    }));
  }

  // One piece of reading after the other, so that the layers keep their order however quickly somebody clicks.
  reading(work) {
    this.pending = this.pending.then(() => this.readNow(work));
    return this.pending;
  }

  async readNow(work) {
    const message = this.find("message");
    message.textContent = "Reading an image.";
    message.hidden = false;
    try {
      await work();
      message.hidden = true;
    } catch (error) {
      message.className = "error";
      message.textContent = `An image cannot be shown (${error.message}); the downloads on this page work without the viewer.`;
    }
  }
}

async function start(root) {
  const images = imagesOf(root);
  const message = root.querySelector("[data-message]");
  const viewer = new Viewer(root, images);
  await viewer.reading(async () => {
    if (hasWebGl2()) {
      await viewer.open();
      return;
    }
    const note = document.createElement("p");
    note.className = "warning";
    note.textContent = "This browser has no WebGL2, which the viewer needs, so the page shows the middle slices only.";
    message.before(note);
    await showMiddleSlices(root, viewer.withRole("synthesis", "source"));
  });
  await viewer.showMap();
  root.dataset.ready = "true";
}

// The attribute that marks a started viewer keeps htmx from starting it twice when it swaps a part of the page.
function startAll() {
  for (const root of document.querySelectorAll("[data-viewer]:not([data-started])")) {
    root.dataset.started = "true";
    start(root);
  }
}

startAll();
document.addEventListener("htmx:load", startAll);
