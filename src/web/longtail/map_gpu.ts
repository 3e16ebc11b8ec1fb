// The map drawn with WebGPU: every concept an instance of one quad, its picture from a texture that holds the whole sheet
// with four sizes of each cell. Nothing runs between two draws; a training run keeps the device to itself.

import type { Viewport } from "./camera.ts";
import source from "./map.wgsl" with { type: "text" };
import type { MapRenderer, Palette, Rgb, Sheet } from "./map_paint.ts";
import type { Disc } from "./scene.ts";

/** Words of a disc and of the frame's uniforms, as map.wgsl lays them out. */
const DISC_WORDS = 12;
const FRAME_WORDS = 24;
/** 64, 32, 16 and 8 pixels a cell: smaller ones would mix neighbours. */
const LEVELS = 4;
const MOST_DISCS = 1024;

/** Null where there is no WebGPU; `onLost` is called when the device goes away later. */
export async function openGpuMap(
  canvas: HTMLCanvasElement,
  sheet: Sheet,
  onLost: () => void,
): Promise<MapRenderer | null> {
  try {
    const adapter = await navigator.gpu?.requestAdapter({ powerPreference: "low-power" });
    if (!adapter) return null;
    const device = await adapter.requestDevice();
    // A canvas that has given out a context of one kind never gives out another: ask only when a device is there.
    const context = canvas.getContext("webgpu");
    if (!context) return null;
    return await createMap(device, context, sheet, onLost);
  } catch {
    return null;
  }
}

async function createMap(
  device: GPUDevice,
  context: GPUCanvasContext,
  sheet: Sheet,
  onLost: () => void,
): Promise<MapRenderer> {
  let closed = false;
  void device.lost.then(() => {
    if (!closed) onLost();
  });
  const format = navigator.gpu.getPreferredCanvasFormat();
  context.configure({ device, format, alphaMode: "premultiplied" });
  const module = device.createShaderModule({ code: source });
  const blend: GPUBlendComponent = { srcFactor: "one", dstFactor: "one-minus-src-alpha" };
  const pipeline = await device.createRenderPipelineAsync({
    layout: "auto",
    vertex: { module },
    fragment: { module, targets: [{ format, blend: { color: blend, alpha: blend } }] },
    primitive: { topology: "triangle-strip" },
  });
  const texture = await sheetTexture(device, sheet);
  const frame = device.createBuffer({ size: FRAME_WORDS * 4, usage: GPUBufferUsage.UNIFORM | GPUBufferUsage.COPY_DST });
  const discs = device.createBuffer({
    size: MOST_DISCS * DISC_WORDS * 4,
    usage: GPUBufferUsage.STORAGE | GPUBufferUsage.COPY_DST,
  });
  const sampler = device.createSampler({ magFilter: "linear", minFilter: "linear", mipmapFilter: "linear" });
  const group = device.createBindGroup({
    layout: pipeline.getBindGroupLayout(0),
    entries: [
      { binding: 0, resource: { buffer: frame } },
      { binding: 1, resource: { buffer: discs } },
      { binding: 2, resource: texture.createView() },
      { binding: 3, resource: sampler },
    ],
  });
  const cells = [sheet.bitmap.width / sheet.cell, sheet.bitmap.height / sheet.cell];
  const words = new Float32Array(MOST_DISCS * DISC_WORDS);

  return {
    kind: "webgpu",
    draw(list: readonly Disc[], viewport: Viewport, palette: Palette) {
      const count = Math.min(MOST_DISCS, list.length);
      for (let i = 0; i < count; i++) words.set(discWords(list[i]!, sheet), i * DISC_WORDS);
      device.queue.writeBuffer(discs, 0, words, 0, count * DISC_WORDS);
      const soft = viewport.width / Math.max(1, context.canvas.width);
      const { background, ink, head, tail } = palette;
      const colours = [background, ink, head, tail].flatMap(unit);
      device.queue.writeBuffer(frame, 0, Float32Array.of(viewport.width, viewport.height, ...cells, ...colours, soft));
      const encoder = device.createCommandEncoder();
      const pass = encoder.beginRenderPass({
        colorAttachments: [
          {
            view: context.getCurrentTexture().createView(),
            clearValue: { r: 0, g: 0, b: 0, a: 0 },
            loadOp: "clear",
            storeOp: "store",
          },
        ],
      });
      pass.setPipeline(pipeline);
      pass.setBindGroup(0, group);
      pass.draw(4, count);
      pass.end();
      device.queue.submit([encoder.finish()]);
    },
    close() {
      closed = true;
      context.unconfigure();
      device.destroy();
    },
  };
}

function discWords(disc: Disc, sheet: Sheet): number[] {
  const { column, row } = sheet.cells[disc.index] ?? { column: 0, row: 0 };
  const { x, y, radius, picture, strength, tail, picked, lit } = disc;
  return [x, y, radius, picture, strength, Number(tail), Number(picked), Number(lit), column, row, 0, 0];
}

const unit = (colour: Rgb) => [...colour.map((value) => value / 255), 1];

/** The sheet with its smaller sizes; halving whole cells keeps neighbours apart. */
async function sheetTexture(device: GPUDevice, { bitmap }: Sheet): Promise<GPUTexture> {
  const texture = device.createTexture({
    size: [bitmap.width, bitmap.height],
    mipLevelCount: LEVELS,
    format: "rgba8unorm",
    usage: GPUTextureUsage.TEXTURE_BINDING | GPUTextureUsage.COPY_DST | GPUTextureUsage.RENDER_ATTACHMENT,
  });
  for (let mipLevel = 0; mipLevel < LEVELS; mipLevel++) {
    const [width, height] = [bitmap.width >> mipLevel, bitmap.height >> mipLevel];
    const level =
      mipLevel === 0
        ? bitmap
        : await createImageBitmap(bitmap, { resizeWidth: width, resizeHeight: height, resizeQuality: "medium" });
    device.queue.copyExternalImageToTexture({ source: level }, { texture, mipLevel }, [width, height]);
  }
  return texture;
}
