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
// Per cent of the width of the volume, so that a line is a pixel wide or two; three views are half as large each.
const CROSSHAIR_WIDTH = { one: 0.25, all: 0.4 };
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
  let crosshairShown = true;
  let asked = null;
  const opacities = new Map();

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

  // NiiVue composes all upper layers into one. Where at most one of them can be seen, it is composed opaque, and its
  // opacity is that of the drawing, so that moving the slider composes nothing.
  function compose() {
    const upper = nv.volumes.slice(1);
    const seen = upper.filter((volume) => opacities.get(volume) > 0);
    let changed = false;
    if (seen.length > 0) {
      for (const volume of upper) {
        const own = opacities.get(volume);
        const composed = seen.length === 1 ? Math.ceil(own) : own;
        changed ||= volume.opacity !== composed;
        volume.opacity = composed;
      }
    }
    nv.overlayAlphaShader = seen.length > 1 ? 1 : opacities.get(seen[0]) ?? 0;
    redraw(changed ? "layers" : "slices");
  }

  function drawCrosshair() {
    const width = view === "all" ? CROSSHAIR_WIDTH.all : CROSSHAIR_WIDTH.one;
    nv.setCrosshairWidth(crosshairShown ? width : 0);
  }

  async function addLayer(image, position, opacity) {
    const volume = await readVolume(image);
    volume.colormap = ["width", "spread"].includes(image.role) ? MAP : GREY;
    volume.cal_min = image.low;
    volume.cal_max = image.high;
    opacities.set(volume, opacity);
    nv.addVolume(volume);
    if (nv.volumes.indexOf(volume) !== position) nv.setVolume(volume, position);
    nv.volumes[0].opacity = 1;
    compose();
    return volume;
  }

  return {
    addLayer,
    removeLayer(volume) {
      opacities.delete(volume);
      nv.removeVolume(volume);
      compose();
    },
    setOpacity(volume, opacity) {
      opacities.set(volume, opacity);
      compose();
    },
    setWindow(volume, low, high) {
      volume.cal_min = low;
      volume.cal_max = high;
      redraw("layers");
    },
    setView(name) {
      view = name;
      nv.setSliceType(VIEWS[name].type);
      drawCrosshair();
    },
    setSmooth: (smooth) => nv.setInterpolation(!smooth),
    setCrosshair(shown) {
      crosshairShown = shown;
      drawCrosshair();
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
