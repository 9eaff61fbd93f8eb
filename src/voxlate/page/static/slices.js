// Slices of one image, or of two stacked ones, on one canvas, drawn by NiiVue.
//
// The lower layer is drawn on its own voxels; an upper one on another grid is resampled to it by NiiVue, for the display
// only. NiiVue's own mouse, wheel and key handling is switched off (interactive: false), because its keys are not written
// anywhere and a screen reader could not follow them, and because two panes must move together; picture.js does it.

import "./niivue.umd.js";

const { Niivue, NVImage, SLICE_TYPE } = globalThis.niivue;

export const VIEWS = {
  axial: { type: SLICE_TYPE.AXIAL, axis: 2 },
  coronal: { type: SLICE_TYPE.CORONAL, axis: 1 },
  sagittal: { type: SLICE_TYPE.SAGITTAL, axis: 0 },
  all: { type: SLICE_TYPE.MULTIPLANAR, axis: 2 },
};
// By axis of the slices: the axes across and down the picture.
export const IN_PLANE = [[1, 2], [0, 2], [0, 1]];

export const COLOURS = { grey: "voxlate-grey", fused: "voxlate-fused", map: "voxlate-map" };
// Per cent of the width of the volume, so that a line is a pixel wide or two; three views are half as large each.
const CROSSHAIR_WIDTH = { one: 0.4, all: 0.7 };
const SLAB = 0.5; // height beside the sides of its slices
const LAYOUT_OF_SLAB = [ // shares of the canvas: left, top, width, height
  { sliceType: SLICE_TYPE.AXIAL, position: [0, 0, 0.5, 1] },
  { sliceType: SLICE_TYPE.CORONAL, position: [0.5, 0, 0.5, 0.5] },
  { sliceType: SLICE_TYPE.SAGITTAL, position: [0.5, 0.5, 0.5, 0.5] },
];
const [LEAST_ZOOM, MOST_ZOOM] = [0.5, 20];
const OPTIONS = {
  interactive: false,
  dragAndDropEnabled: false,
  logLevel: "error",
  loadingText: "",
  backColor: [0, 0, 0, 1],
  crosshairColor: [1, 0.78, 0.2, 0.9],
  crosshairWidth: CROSSHAIR_WIDTH.one,
  crosshairWidthUnit: "percent",
  crosshairGap: 6,
  fontColor: [1, 1, 1, 1],
  isRadiologicalConvention: true,
  sagittalNoseLeft: true,
  multiplanarShowRender: 0,
};

/** A read volume, without a place on the screen. */
export function readVolume(image) {
  return NVImage.loadFromUrl({ url: image.url, name: `${image.name}.nii.gz` });
}

/**
 * NiiVue's lookup tables start transparent. Grey and the map of the uncertainty are opaque throughout; in a fusion, low
 * values are transparent and the rest is opaque soon, so that the source is seen beside what is coloured.
 */
function addColours(nv) {
  const steps = Array.from({ length: 256 }, (_, step) => step);
  const inferno = nv.colormap("inferno");
  const channel = (offset) => steps.map((step) => inferno[4 * step + offset]);
  nv.addColormap(COLOURS.grey, { R: [0, 255], G: [0, 255], B: [0, 255], A: [255, 255], I: [0, 255] });
  nv.addColormap(COLOURS.map, { R: channel(0), G: channel(1), B: channel(2), A: steps.map(() => 255), I: steps });
  nv.addColormap(COLOURS.fused, { R: [130, 255, 255], G: [20, 120, 245], B: [0, 0, 150], A: [0, 255, 255], I: [0, 96, 255] });
}

/** The voxel of a point in millimetres: fractional where `exact` is true. */
export function voxelAt(volume, millimetres, exact = false) {
  return Array.from(volume.mm2vox(millimetres, exact)).slice(0, 3);
}

/** The value of a volume at a point in millimetres, or not a number outside the volume. */
export function valueAt(volume, millimetres) {
  const voxel = voxelAt(volume, millimetres);
  const inside = voxel.every((index, axis) => index >= 0 && index < volume.dimsRAS[axis + 1]);
  return inside ? volume.getValue(...voxel) : NaN;
}

/** afterDrawing is called after every drawing, also after those that NiiVue does by itself when the size changes. */
export async function openSlices(canvas, afterDrawing) {
  const nv = new Niivue(OPTIONS);
  await nv.attachToCanvas(canvas, false);
  addColours(nv);
  const drawScene = nv.drawScene.bind(nv);
  nv.drawScene = () => {
    drawScene();
    afterDrawing();
  };
  let view = "axial";
  let crosshairShown = true;
  let asked = null;

  // Several changes between two frames cost one rendering. Composing the layers anew ("layers") takes a pass over all
  // voxels, which is slow without a graphics card; drawing the slices ("slices") is fast everywhere.
  function redraw(what) {
    if (asked === null) requestAnimationFrame(render);
    asked = asked === "layers" ? asked : what;
  }

  function render() {
    const layers = asked === "layers";
    asked = null;
    if (nv.volumes.length === 0) return;
    if (layers) nv.updateGLVolume();
    else nv.drawScene();
  }

  function drawCrosshair() {
    const width = view === "all" && !nv.customLayout ? CROSSHAIR_WIDTH.all : CROSSHAIR_WIDTH.one;
    nv.setCrosshairWidth(crosshairShown ? width / nv.scene.pan2Dxyzmm[3] : 0); // as wide on the screen at any zoom
  }

  // A point of the screen in pixels of the canvas, which differ from those of the page on fine screens.
  function onCanvas(event) {
    const box = canvas.getBoundingClientRect();
    const scale = canvas.width / box.width;
    return [(event.clientX - box.left) * scale, (event.clientY - box.top) * scale];
  }

  const fraction = () => nv.scene.crosshairPos;
  const millimetres = (point = fraction()) => Array.from(nv.frac2mm(point, 0, true)).slice(0, 3);

  return {
    canvas,
    // Layers from below: {volume, colours, window: [low, high]}; the second is drawn with the opacity.
    show(layers, opacity) {
      for (const { volume, colours, window } of layers) {
        Object.assign(volume, { colormap: colours, opacity: 1, cal_min: window[0], cal_max: window[1] });
      }
      nv.overlayAlphaShader = opacity;
      nv.volumes = layers.map(({ volume }) => volume);
      nv.setVolume(nv.volumes[0], 0);
    },
    setOpacity(opacity) {
      nv.overlayAlphaShader = opacity;
      redraw("slices");
    },
    setWindow(volume, [low, high]) {
      volume.cal_min = low;
      volume.cal_max = high;
      redraw("layers");
    },
    setView(name) {
      view = name;
      // The columns of a slab are low: its axial slice takes the left half, and the other two share the right one.
      const [width, depth, height] = [1, 2, 3].map((axis) => nv.volumes[0].dimsRAS[axis] * nv.volumes[0].pixDimsRAS[axis]);
      const isSlab = name === "all" && height < SLAB * Math.min(width, depth);
      nv.customLayout = isSlab ? LAYOUT_OF_SLAB : null;
      nv.setSliceType(VIEWS[name].type);
      drawCrosshair();
    },
    setSmooth: (smooth) => nv.setInterpolation(!smooth),
    setCrosshair(shown) {
      crosshairShown = shown;
      drawCrosshair();
    },
    coloursOf: (name) => nv.colormap(name),
    drawNow: () => nv.drawScene(),
    view: () => view,
    axis: () => VIEWS[view].axis,
    lower: () => nv.volumes[0],
    count: (axis) => nv.volumes[0].dimsRAS[axis + 1],
    voxel: () => Array.from(nv.frac2vox(fraction())),
    millimetres,
    // The middle of the voxel at this place: a voxel of the lower layer, or a point in millimetres.
    moveTo(voxel) {
      nv.scene.crosshairPos = nv.vox2frac(voxel);
      nv.drawScene();
    },
    moveToMillimetres(point) {
      this.moveTo(nv.frac2vox(nv.mm2frac(point, 0, true)));
    },
    // Zoom and place of the picture, which another pane may take over: [x, y, z, zoom].
    frame: () => Array.from(nv.scene.pan2Dxyzmm),
    setFrame(frame) {
      nv.scene.pan2Dxyzmm = [...frame];
      drawCrosshair();
      redraw("slices");
    },
    /** The frame after zooming about a point, which stays where it is on the screen. */
    zoomed(factor, about = fraction()) {
      const [x, y, z, zoom] = nv.scene.pan2Dxyzmm;
      const next = Math.min(MOST_ZOOM, Math.max(LEAST_ZOOM, zoom * factor));
      const at = nv.frac2mm(about);
      return [...[x, y, z].map((pan, axis) => pan + (zoom - next) * at[axis]), next];
    },
    /** The frame after the point `from` was dragged to where `to` is: fractions of the volume. */
    panned(from, to) {
      const [x, y, z, zoom] = nv.scene.pan2Dxyzmm;
      const [start, end] = [nv.frac2mm(from), nv.frac2mm(to)];
      return [...[x, y, z].map((pan, axis) => pan + zoom * (end[axis] - start[axis])), zoom];
    },
    // The point of the volume under a point of the screen: {fraction, axis of its slice}, or null outside.
    under(event) {
      const place = onCanvas(event);
      const point = nv.canvasPos2frac(place);
      if (!Array.from(point).every((part) => part >= 0 && part <= 1)) return null;
      const tile = nv.tileIndex(...place);
      const slice = tile >= 0 ? nv.screenSlices[tile].axCorSag : VIEWS[view].type;
      return { fraction: Array.from(point), axis: 2 - slice };
    },
    // The slices on the canvas: axis, place {left, top, width, height}, pixels a millimetre, and the pixel of a point.
    tiles() {
      return nv.screenSlices.filter(({ axCorSag }) => axCorSag <= SLICE_TYPE.SAGITTAL).map((tile) => {
        const [left, top, width, height] = tile.leftTopWidthHeight;
        const axis = 2 - tile.axCorSag;
        const at = (part, size, place) => place + part * size;
        return {
          axis,
          left: Math.min(left, left + width),
          top,
          width: Math.abs(width),
          height,
          pixelsPerMillimetre: Math.abs(width / tile.fovMM[0]),
          place(point) {
            const here = nv.frac2mm(nv.mm2frac(point, 0, true));
            const [across, down] = IN_PLANE[axis].map((number, k) => (here[number] - tile.leftTopMM[k]) / tile.fovMM[k]);
            return [at(across, width, left), at(1 - down, height, top)];
          },
        };
      });
    },
  };
}
