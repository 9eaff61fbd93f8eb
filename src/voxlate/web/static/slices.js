// Slices of stacked volumes on one canvas, drawn by NiiVue.
//
// The lowest layer is the synthesis, so that its voxels are shown as they are; a source on another grid is resampled to it
// by NiiVue, for the display only. NiiVue's own mouse, wheel and key handling is switched off (interactive: false), because
// its keys are not written anywhere and a screen reader could not follow them; viewer.js handles all of that.

import "./niivue.umd.js";

const { Niivue, NVImage, SLICE_TYPE } = globalThis.niivue;

export const VIEWS = {
  axial: { type: SLICE_TYPE.AXIAL, axis: 2 },
  coronal: { type: SLICE_TYPE.CORONAL, axis: 1 },
  sagittal: { type: SLICE_TYPE.SAGITTAL, axis: 0 },
  all: { type: SLICE_TYPE.MULTIPLANAR, axis: 2 },
};

const GREY = "voxlate-grey";
const MAP = "voxlate-map";
const CROSSHAIR_WIDTH = 0.4; // per cent of the width of the volume: less is thinner than a pixel where three views are shown
const OPTIONS = {
  interactive: false,
  dragAndDropEnabled: false,
  logLevel: "error",
  loadingText: "",
  backColor: [0, 0, 0, 1],
  crosshairColor: [1, 0.78, 0.2, 0.9],
  crosshairWidth: CROSSHAIR_WIDTH,
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

/** NiiVue's lookup tables start transparent, which is wrong for a blend; these are opaque throughout. */
function addOpaqueColours(nv) {
  nv.addColormap(GREY, { R: [0, 255], G: [0, 255], B: [0, 255], A: [255, 255], I: [0, 255] });
  const inferno = nv.colormap("inferno");
  const steps = Array.from({ length: 256 }, (_, step) => step);
  const channel = (offset) => steps.map((step) => inferno[4 * step + offset]);
  nv.addColormap(MAP, { R: channel(0), G: channel(1), B: channel(2), A: steps.map(() => 255), I: steps });
}

/** The volume of a point in millimetres there, or not a number outside the volume. */
export function valueAt(volume, millimetres) {
  const voxel = volume.mm2vox(millimetres);
  const inside = [0, 1, 2].every((axis) => voxel[axis] >= 0 && voxel[axis] < volume.dimsRAS[axis + 1]);
  return inside ? volume.getValue(voxel[0], voxel[1], voxel[2]) : NaN;
}

export async function openSlices(canvas) {
  const nv = new Niivue(OPTIONS);
  await nv.attachToCanvas(canvas, false);
  addOpaqueColours(nv);
  let view = "axial";
  let redrawAsked = false;

  // Several changes between two frames cost one rendering.
  function redraw() {
    if (redrawAsked) return;
    redrawAsked = true;
    requestAnimationFrame(() => {
      redrawAsked = false;
      if (nv.volumes.length > 0) nv.updateGLVolume();
    });
  }

  async function addLayer(image, position, opacity) {
    const volume = await readVolume(image);
    volume.colormap = ["width", "spread"].includes(image.role) ? MAP : GREY;
    volume.cal_min = image.low;
    volume.cal_max = image.high;
    volume.opacity = opacity;
    nv.addVolume(volume);
    if (nv.volumes.indexOf(volume) !== position) nv.setVolume(volume, position);
    return volume;
  }

  return {
    addLayer,
    redraw,
    removeLayer: (volume) => nv.removeVolume(volume),
    setOpacity(volume, opacity) {
      volume.opacity = opacity;
      redraw();
    },
    setWindow(volume, low, high) {
      volume.cal_min = low;
      volume.cal_max = high;
      redraw();
    },
    setView(name) {
      view = name;
      nv.setSliceType(VIEWS[name].type);
    },
    setSmooth: (smooth) => nv.setInterpolation(!smooth),
    setCrosshair(shown) {
      nv.setCrosshairWidth(shown ? CROSSHAIR_WIDTH : 0);
    },
    colours: () => nv.colormap(MAP),
    view: () => view,
    axis: () => VIEWS[view].axis,
    count: (axis) => nv.volumes[0].dimsRAS[axis + 1],
    voxel: () => Array.from(nv.frac2vox(nv.scene.crosshairPos)),
    millimetres: (fraction = nv.scene.crosshairPos) => Array.from(nv.frac2mm(fraction, 0, true)).slice(0, 3),
    moveTo(voxel) {
      nv.scene.crosshairPos = nv.vox2frac(voxel);
      nv.drawScene();
    },
    moveToFraction(fraction) {
      nv.scene.crosshairPos = nv.vox2frac(nv.frac2vox(fraction));
      nv.drawScene();
    },
    // The point of the volume under a point of the screen: {fraction, axis of its slice}, or null outside.
    under(event) {
      const box = canvas.getBoundingClientRect();
      const scale = canvas.width / box.width;
      const x = (event.clientX - box.left) * scale;
      const y = (event.clientY - box.top) * scale;
      const fraction = nv.canvasPos2frac([x, y]);
      if (fraction[0] < 0) return null;
      const tile = nv.tileIndex(x, y);
      const slice = tile >= 0 ? nv.screenSlices[tile].axCorSag : VIEWS[view].type;
      return { fraction, axis: 2 - slice };
    },
  };
}
