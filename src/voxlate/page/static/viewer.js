// The viewer of one result: source, synthesis, both fused or side by side, and a map of the uncertainty in colour.
//
// NiiVue 0.69 needs no more of a content security policy than
//   script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'
// (data: is the picture of its font; there is no eval, no WebAssembly, no worker, no blob and no inline style or script).

import { distance, drawHistogram, drawOver, histogram, pictureOf, regionText, statistics, valuesIn } from "./measure.js";
import { extremesOf, fusedWindow, number, windowsOf, withUnit } from "./numbers.js";
import { clamp, listenToPicture } from "./picture.js";
import { COLOURS, openSlices, readVolume, valueAt, voxelAt } from "./slices.js";

const MAPS = ["width", "spread"];
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

// The ends of a range of 32-bit numbers have more digits than anybody reads.
function shortest(value) {
  return String(Number(value.toPrecision(6)));
}

function rowOf(head, text) {
  const row = document.createElement("tr");
  const cells = [document.createElement("th"), document.createElement("td")];
  cells[0].scope = "row";
  cells[0].textContent = head;
  cells[1].textContent = text;
  row.append(...cells);
  return row;
}

class Viewer {
  constructor(root, images) {
    this.root = root;
    this.images = images;
    this.volumes = new Map();
    this.panes = [];
    this.windows = { false: new Map(), true: new Map() }; // by whether the image is in colours over another one
    this.measures = [];
    this.view = "axial";
    this.tool = matchMedia("(pointer: coarse)").matches ? "slices" : "window";
    this.strength = 75;
    this.mapShown = false;
    this.pending = Promise.resolve();
  }

  find(name) {
    return this.root.querySelector(`[data-${name}]`);
  }

  withRole(...roles) {
    return this.images.filter((image) => roles.includes(image.role));
  }

  // Images of these roles that belong to the shown synthesis; names are those of its modality.
  ofSynthesis(...roles) {
    return this.withRole(...roles).filter(({ name }) => !this.synthesis || name === this.synthesis.name);
  }

  async open() {
    this.find("body").hidden = false;
    this.synthesis = this.withRole("synthesis")[0] ?? null;
    this.source = this.withRole("source")[0] ?? null;
    this.mode = this.synthesis ? "synthesis" : "source";
    const isAlone = !this.synthesis || !this.source;
    for (const radio of this.radios("mode")) radio.closest("label").hidden = isAlone && radio.value !== this.mode;
    this.setUpControls();
    this.chooseMaps();
    await this.refresh();
    await this.reading(async () => {
      if (this.source) await this.read(this.source); // after the first view: the values beside those of the synthesis
      this.showSlice();
    });
  }

  radios(name) {
    return this.root.querySelectorAll(`[name="${name}"]`);
  }

  check(name, value) {
    this.root.querySelector(`[name="${name}"][value="${value}"]`).checked = true;
  }

  setUpControls() {
    const on = (name, event, work) => this.find(name).addEventListener(event, work);
    const choices = { mode: (name) => this.setMode(name), view: (name) => this.setView(name), tool: (name) => { this.tool = name; } };
    for (const [name, choose] of Object.entries(choices)) {
      this.check(name, this[name]);
      for (const radio of this.radios(name)) radio.addEventListener("change", () => choose(radio.value));
    }
    on("slice", "input", ({ target }) => this.goTo(target.valueAsNumber - 1));
    on("strength", "input", ({ target }) => this.setStrength(target.valueAsNumber));
    on("map-button", "click", () => this.toggleMap());
    on("map", "change", ({ target }) => this.setMap(this.ofSynthesis(...MAPS)[target.selectedIndex]));
    on("smooth", "change", ({ target }) => this.panes.forEach(({ slices }) => slices.setSmooth(target.checked)));
    on("crosshair", "change", ({ target }) => this.panes.forEach(({ slices }) => slices.setCrosshair(target.checked)));
    on("reset", "click", () => this.reset());
    on("clear", "click", () => this.clearMeasures());
    on("save", "click", () => this.savePicture());
    on("histogram", "toggle", () => this.showHistogram());
    on("target", "change", () => this.showWindow());
    on("preset", "change", ({ target }) => this.setWindow(this.target.image, this.target.fused, JSON.parse(target.value)));
    for (const end of ["black", "white"]) on(end, "input", () => this.readWindow());
    this.setUpChoice("source", this.withRole("source"), (image) => { this.source = image; });
    this.setUpChoice("synthesis", this.withRole("synthesis"), (image) => {
      this.synthesis = image;
      this.chooseMaps();
    });
  }

  // A list of images to choose from, hidden where there is no choice.
  setUpChoice(name, images, choose) {
    const choice = this.find(name);
    choice.replaceChildren(...images.map((image) => new Option(image.label)));
    this.find(`${name}-choice`).hidden = images.length < 2;
    choice.addEventListener("change", () => {
      choose(images[choice.selectedIndex]);
      this.refresh();
    });
  }

  // What is shown: the panes from the left, each with its layers from below

  layers() {
    const grey = (image) => ({ image, colours: COLOURS.grey, fused: false });
    const map = this.mapShown ? [{ image: this.map, colours: COLOURS.map, fused: false }] : [];
    if (this.mode === "fusion") return [[grey(this.source), { image: this.synthesis, colours: COLOURS.fused, fused: true }]];
    if (this.mode === "both") return [[grey(this.source)], [grey(this.synthesis), ...map]];
    return [[grey(this[this.mode]), ...map]];
  }

  refresh() {
    return this.reading(async () => {
      const place = this.panes.length ? this.millimetres() : null;
      const all = this.layers();
      for (const { image } of all.flat()) await this.read(image);
      if (this.mapShown) for (const bound of this.ofSynthesis("lower", "upper")) await this.read(bound);
      this.root.querySelectorAll("[data-pane]").forEach((pane, index) => { pane.hidden = index >= all.length; });
      for (const [index, layers] of all.entries()) await this.fill(index, layers, place);
      this.showOverlay(all.flat().find(({ colours }) => colours !== COLOURS.grey));
      this.setView(this.view);
      this.offerWindows();
    });
  }

  async read(image) {
    if (!this.volumes.has(image)) this.volumes.set(image, await readVolume(image));
  }

  async fill(index, layers, place) {
    const stage = this.root.querySelectorAll("[data-pane]")[index];
    if (this.panes.length <= index) {
      const pane = { slices: null, drawn: stage.querySelector("[data-drawn]"), layers };
      pane.slices = await openSlices(stage.querySelector("canvas"), () => this.drawOver(pane));
      this.panes.push(pane);
      listenToPicture(this, pane);
    }
    const pane = this.panes[index];
    pane.layers = layers;
    pane.slices.setSmooth(this.find("smooth").checked);
    pane.slices.setCrosshair(this.find("crosshair").checked);
    pane.slices.show(layers.map(({ image, colours, fused }) => (
      { volume: this.volumes.get(image), colours, window: this.windowOf(image, fused) }
    )), this.strength / 100);
    if (index > 0) pane.slices.setFrame(this.panes[0].slices.frame());
    if (place) pane.slices.moveToMillimetres(place);
    else pane.slices.moveTo([0, 1, 2].map((axis) => Math.floor(pane.slices.count(axis) / 2)));
  }

  shown() {
    return this.panes.slice(0, this.layers().length);
  }

  get slices() {
    return this.panes[0].slices;
  }

  millimetres() {
    return this.slices.millimetres();
  }

  setMode(name) {
    if (!this.synthesis || !this.source) return;
    this.mode = name;
    this.check("mode", name);
    if (name === "fusion") this.mapShown = false;
    this.refresh();
  }

  setView(name) {
    this.view = name;
    this.check("view", name);
    for (const { slices } of this.shown()) slices.setView(name);
    this.showSlice();
  }

  setFrame(frame) {
    for (const { slices } of this.shown()) slices.setFrame(frame);
  }

  reset() {
    this.setFrame([0, 0, 0, 1]);
    for (const windows of Object.values(this.windows)) windows.clear();
    this.refresh();
  }

  // Slices

  moveTo(millimetres) {
    for (const { slices } of this.shown()) slices.moveToMillimetres(millimetres);
    this.showSlice();
  }

  goTo(index, axis = this.slices.axis()) {
    const voxel = this.slices.voxel();
    voxel[axis] = clamp(index, 0, this.slices.count(axis) - 1);
    this.slices.moveTo(voxel);
    this.moveTo(this.millimetres());
  }

  step(slices, axis = this.slices.axis()) {
    this.goTo(this.slices.voxel()[axis] + slices, axis);
  }

  showSlice() {
    const axis = this.slices.axis();
    const millimetres = this.millimetres()[axis];
    const [name, positive, negative] = AXES[axis];
    const side = millimetres < 0 ? negative : positive;
    const slider = this.find("slice");
    const index = this.slices.voxel()[axis] + 1;
    const text = `${index} of ${this.slices.count(axis)}, ${Math.abs(millimetres).toFixed(1)} mm towards the ${side}`;
    slider.max = String(this.slices.count(axis));
    slider.value = String(index);
    slider.setAttribute("aria-valuetext", text);
    this.find("slice-name").textContent = `${name} slice`;
    this.find("slice-text").textContent = text;
    this.showValues(this.millimetres(), "Values at the crosshair");
    this.showHistogram();
    this.announce();
  }

  // Values

  rows(millimetres) {
    const at = (image) => valueAt(this.volumes.get(image), millimetres);
    const isRead = (image) => this.volumes.has(image);
    const pair = [this.source, this.synthesis].filter((image) => image && isRead(image));
    const rows = pair.map((image) => [image.label, withUnit(at(image), image.unit)]);
    const [lower, upper] = [...this.ofSynthesis("lower"), ...this.ofSynthesis("upper")];
    if (upper && isRead(lower) && isRead(upper)) {
      rows.push(["Interval", `${number(at(lower))} to ${withUnit(at(upper), upper.unit)}`]);
    }
    if (this.mapShown && isRead(this.map)) rows.push([this.map.label, withUnit(at(this.map), this.map.unit)]);
    return rows;
  }

  showValues(millimetres, caption) {
    this.find("place").textContent = caption;
    this.find("values").replaceChildren(...this.rows(millimetres).map((row) => rowOf(...row)));
  }

  // A screen reader hears the values once the keys are at rest.
  announce() {
    clearTimeout(this.announcing);
    this.announcing = setTimeout(() => {
      const values = this.rows(this.millimetres()).map((row) => row.join(" "));
      this.find("announce").textContent = `${this.find("slice-name").textContent} ${this.find("slice-text").textContent}; ${values.join("; ")}`;
    }, 600);
  }

  // What lies in colours over an image: the synthesis of a fusion, or a map of the uncertainty

  setStrength(percent) {
    this.strength = clamp(percent, 0, 100);
    const slider = this.find("strength");
    slider.value = String(this.strength);
    slider.setAttribute("aria-valuetext", `${this.strength} %`);
    this.find("strength-text").textContent = `${this.strength} %`;
    for (const { slices } of this.shown()) slices.setOpacity(this.strength / 100);
  }

  chooseMaps() {
    const maps = this.ofSynthesis(...MAPS);
    this.map = maps[0] ?? null;
    this.mapShown = false;
    this.find("map-button").hidden = maps.length === 0;
    this.find("map").replaceChildren(...maps.map(({ label }) => new Option(label)));
  }

  toggleMap() {
    if (this.map === null) return;
    this.mapShown = !this.mapShown;
    if (this.mapShown && this.mode === "fusion") this.setMode("synthesis");
    else this.refresh();
  }

  setMap(image) {
    this.map = image;
    this.refresh();
  }

  showOverlay(layer) {
    this.find("map-button").setAttribute("aria-pressed", String(this.mapShown));
    this.find("map-choice").hidden = !this.mapShown || this.ofSynthesis(...MAPS).length < 2;
    this.find("overlay").hidden = layer === undefined;
    if (layer === undefined) return;
    const { image, colours, fused } = layer;
    const [low, high] = this.windowOf(image, fused);
    this.find("overlay-name").textContent = image.label;
    const picture = new ImageData(new Uint8ClampedArray(this.slices.coloursOf(colours)), 256, 1);
    for (let step = 0; step < 256; step += 1) picture.data[4 * step + 3] = 255;
    this.find("legend-bar").getContext("2d").putImageData(picture, 0, 0);
    const ends = [withUnit(low, image.unit), withUnit((low + high) / 2, image.unit), `${withUnit(high, image.unit)} or more`];
    this.find("legend-text").replaceChildren(...ends.map((end) => Object.assign(document.createElement("span"), { textContent: end })));
  }

  // Windows

  windowOf(image, fused) {
    return this.windows[fused].get(image) ?? (fused ? fusedWindow(image) : [image.low, image.high]);
  }

  /** The layer whose window a drag on a pane changes: the chosen one if it is there. */
  windowIn(pane) {
    const { image, fused } = pane.layers.find((layer) => layer.image === this.target.image) ?? pane.layers[0];
    const [low, high] = this.windowOf(image, fused);
    return { image, fused, low, high };
  }

  // The layers with windows, the colours of a fusion first; the map keeps the colours of its legend.
  offerWindows() {
    const [former, choice] = [this.target?.image, this.find("target")];
    this.targets = this.layers().flat().filter(({ colours }) => colours !== COLOURS.map).reverse();
    choice.replaceChildren(...this.targets.map(({ image }) => new Option(image.label)));
    choice.selectedIndex = Math.max(0, this.mode === "fusion" ? 0 : this.targets.findIndex(({ image }) => image === former));
    this.find("target-choice").hidden = this.targets.length < 2;
    this.showWindow();
  }

  showWindow() {
    this.target = this.targets[this.find("target").selectedIndex];
    const { image, fused } = this.target;
    const volume = this.volumes.get(image);
    volume.extremes ??= extremesOf(volume);
    const windows = windowsOf(image, ...volume.extremes);
    if (fused) windows.unshift(["Fusion", ...fusedWindow(image)]);
    const options = windows.map(([name, ...ends]) => new Option(`${name}: ${number(ends[0])} to ${number(ends[1])}`, JSON.stringify(ends)));
    this.find("preset").replaceChildren(...options, Object.assign(new Option("Own values", "own"), { disabled: true }));
    this.find("window-unit").textContent = image.unit ? ` (${image.unit})` : "";
    this.fillWindow();
    this.showHistogram();
  }

  fillWindow() {
    const ends = this.windowOf(this.target.image, this.target.fused);
    const preset = this.find("preset");
    preset.value = JSON.stringify(ends);
    if (preset.selectedIndex < 0) preset.value = "own";
    this.find("black").value = shortest(ends[0]);
    this.find("white").value = shortest(ends[1]);
    this.find("window-problem").hidden = true;
  }

  readWindow() {
    const ends = ["black", "white"].map((end) => this.find(end).valueAsNumber);
    const isValid = ends.every(Number.isFinite) && ends[0] < ends[1];
    this.find("window-problem").hidden = isValid;
    if (isValid) this.setWindow(this.target.image, this.target.fused, ends, false);
  }

  setWindow(image, fused, ends, filled = true) {
    this.windows[fused].set(image, ends);
    for (const { slices, layers } of this.shown()) {
      if (layers.some((layer) => layer.image === image)) slices.setWindow(this.volumes.get(image), ends);
    }
    if (fused) this.showOverlay(this.layers().flat()[1]);
    if (image !== this.target.image) {
      this.find("target").selectedIndex = this.targets.findIndex((target) => target.image === image);
      this.showWindow();
    } else if (filled) this.fillWindow();
    else this.find("preset").value = "own";
    this.showHistogram();
  }

  // Measures

  addMeasure(kind, axis, from, drawnOn) {
    const measure = { kind, axis, from, to: from, drawnOn, number: (this.measures.at(-1)?.number ?? 0) + 1 };
    this.measures.push(measure);
    return measure;
  }

  endMeasure(measure, to) {
    measure.to = to;
    this.showMeasures();
  }

  /** What a measure of an image says: a distance is the same in all. */
  textOf({ kind, axis, from, to, drawnOn }, image) {
    if (kind === "distance") return `${distance(from, to).toFixed(1)} mm`;
    return regionText(statistics(valuesIn(this.volumes.get(image), axis, from, to, drawnOn)), image.unit);
  }

  // A measure with its slice, on which alone it is drawn.
  rowsOf(measure) {
    const { kind, number: count, axis, from, to, drawnOn } = measure;
    const slice = rowOf("", `${AXES[axis][0]} slice ${voxelAt(drawnOn, from)[axis] + 1}`);
    if (kind === "distance") return [rowOf(`${count} distance`, this.textOf(measure)), slice];
    const images = [this.source, this.synthesis].filter((image) => this.volumes.has(image));
    const { length } = valuesIn(drawnOn, axis, from, to);
    return [rowOf(`${count} region`, `${length} voxels`), slice, ...images.map((image) => rowOf(image.label, this.textOf(measure, image)))];
  }

  clearMeasures() {
    this.measures = [];
    this.showMeasures();
  }

  showMeasures() {
    this.find("measures-group").hidden = this.measures.length === 0;
    this.find("measures").replaceChildren(...this.measures.flatMap((measure) => this.rowsOf(measure)));
    this.shown().forEach((pane) => this.drawOver(pane));
    this.showHistogram();
  }

  onSlice({ axis, from }) {
    return voxelAt(this.slices.lower(), from)[axis] === this.slices.voxel()[axis];
  }

  drawOver(pane) {
    if (pane.slices === null || this.shown().length === 0) return;
    const lines = pane.layers.flatMap(({ image, fused }) => {
      const [low, high] = this.windowOf(image, fused);
      return MAPS.includes(image.role) ? [image.label] : [image.label, `L ${number((low + high) / 2)} W ${number(high - low)}`];
    });
    const { image } = pane.layers.findLast(({ colours }) => colours !== COLOURS.map);
    const here = this.measures.filter((measure) => this.onSlice(measure));
    drawOver(pane.drawn, pane.slices, here.map((measure) => (
      { ...measure, label: `${measure.number}: ${this.textOf(measure, image)}` }
    )), lines);
  }

  // Of the last region on this slice, or else of the slice.
  showHistogram() {
    if (!this.find("histogram").open || !this.target) return;
    const { image, fused } = this.target;
    const region = this.measures.findLast((measure) => measure.kind === "region" && this.onSlice(measure));
    const volume = this.volumes.get(image);
    const values = region
      ? valuesIn(volume, region.axis, region.from, region.to, region.drawnOn)
      : valuesIn(volume, this.slices.axis(), this.millimetres());
    if (values.length === 0) return;
    const counts = histogram(values);
    drawHistogram(this.find("histogram-bars"), counts, this.windowOf(image, fused));
    this.find("histogram-text").replaceChildren(...[withUnit(counts.low, image.unit), withUnit(counts.high, image.unit)]
      .map((end) => Object.assign(document.createElement("span"), { textContent: end })));
    const of = region ? `region ${region.number}` : "the slice";
    this.find("histogram-of").textContent = `${image.label}, ${of}: ${regionText(statistics(values), image.unit)}, ${values.length} voxels`;
  }

  savePicture() {
    const place = `${this.find("slice-name").textContent} ${this.find("slice-text").textContent}`;
    pictureOf(this.shown(), `Synthesised by voxlate; not for diagnosis. ${place}`).toBlob((blob) => {
      const link = document.createElement("a");
      link.href = URL.createObjectURL(blob);
      link.download = `voxlate_${this.mode}_${this.view}_${this.find("slice").value}.png`;
      link.click();
      setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
    });
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
  if (hasWebGl2()) {
    await new Viewer(root, imagesOf(root)).open();
  } else {
    const message = root.querySelector("[data-message]");
    message.className = "warning";
    message.textContent = "This browser has no WebGL2, which the viewer needs. The downloads on this page work without it.";
  }
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
