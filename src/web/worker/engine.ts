// The worker's side of the page: opens files and device, starts and steers the run, draws, keeps pictures, tells what is stored.
// One run at a time trains in a tab; a Web Lock keeps other tabs from writing the same one. A lost device is opened again once
// for a run, which then goes on from its last checkpoint. What trains and draws is loaded when it is first asked for.

import { transfer } from "comlink";
import { LongtailError } from "../../base/errors.ts";
import type { FileStore } from "../../base/files.ts";
import { type Gpu, openDevice } from "../../gpu/device.ts";
import { setProgramFolder } from "../../runs/project.ts";
import { AssetFiles } from "../files/assets.ts";
import { alone, withRunLock } from "../files/locks.ts";
import { MemoryFiles } from "../files/memory.ts";
import { OpfsFiles } from "../files/opfs.ts";
import { RoutedFiles } from "../files/routed.ts";
import type {
  DeviceFacts,
  DrawnPicture,
  DrawRequest,
  Engine,
  EngineEvent,
  IncomingFile,
  PictureSetFacts,
  PlanFacts,
  StartRequest,
  StorageFacts,
} from "../protocol.ts";
import type { DrawRoom } from "./draw_room.ts";
import type { Lookout } from "./onlooker.ts";
import type { PictureShelf } from "./pictures.ts";
import type { RunJob } from "./run_job.ts";
import { storageFacts } from "./storage.ts";
import { wireError } from "./wire_error.ts";

/** Runs that lost their device this often are not taken up again. */
const MOST_RECOVERIES = 1;

interface Stores {
  files: FileStore;
  assets: AssetFiles;
  /** Null where the browser gives no storage: then everything lies in memory and is gone with the tab. */
  opfs: OpfsFiles | null;
}

function offeredGpu(): GPU {
  if (navigator.gpu) return navigator.gpu;
  throw new LongtailError("E-ENV-012", {
    what: "this browser offers no WebGPU to a worker",
    why: "navigator.gpu is missing there",
    fix: "update the browser; Chrome, Edge, Safari 26 and Firefox 141 have it",
  });
}

export class PageEngine implements Engine {
  private readonly base: string;
  private port: MessagePort | null = null;
  private seq = 0;
  private opening: Promise<Stores> | null = null;
  private gpu: Promise<Gpu> | null = null;
  private room: DrawRoom | null = null;
  private wantsPreviews = false;
  private watch: Lookout | null = null;
  private job: RunJob | null = null;
  /** Settles when the last run's lock and files are given back, a moment after it told its end. */
  private ended: Promise<void> = Promise.resolve();
  private shelf: PictureShelf | null = null;

  /** @param base address of the page's folder, ending in "/" */
  constructor(base: string) {
    this.base = base;
    // Models and presets are files of the page, by paths like models/embedded.
    setProgramFolder("");
  }

  connect(port: MessagePort): void {
    this.port = port;
  }

  private readonly post = (event: EngineEvent): void => {
    this.port?.postMessage({ ...event, seq: ++this.seq });
  };

  private stores(): Promise<Stores> {
    this.opening ??= this.openStores().catch((error) => {
      this.opening = null;
      throw error;
    });
    return this.opening;
  }

  private async openStores(): Promise<Stores> {
    // Without storage the page works from memory; storage that is there and fails must not be passed over in silence.
    const opfs = await OpfsFiles.open().catch((error) => {
      if (error instanceof LongtailError && error.code === "E-ENV-023") return null;
      throw error;
    });
    const assets = new AssetFiles({
      base: this.base,
      store: opfs,
      alone,
      onDownload: (progress) => this.post({ kind: "download", ...progress }),
      onWarning: (warning) => this.post({ kind: "warning", ...warning }),
    });
    // Weights of an older version of the page; without a network there is no new list to tell them by.
    void assets.prune().catch(() => {});
    return { files: new RoutedFiles(assets, opfs ?? new MemoryFiles()), assets, opfs };
  }

  private async device(): Promise<Gpu> {
    this.gpu ??= this.openGpu().catch((error) => {
      this.gpu = null;
      throw error;
    });
    return await this.gpu;
  }

  private async openGpu(): Promise<Gpu> {
    const gpu = await openDevice(offeredGpu());
    void gpu.lost.then((error) => {
      this.gpu = null;
      if (this.job) return;
      this.post({ kind: "device-lost", run: null, why: error.parts.why ?? "", recovering: true, step: 0 });
    });
    return gpu;
  }

  async open(): Promise<DeviceFacts> {
    return await this.answer(async () => {
      const { facts, limits } = await this.device();
      const { name, software, f16, subgroups } = facts;
      return { name, software, f16, subgroups, maxBindingBytes: limits["maxStorageBufferBindingSize"] ?? 0 };
    });
  }

  async warm(): Promise<void> {
    await this.answer(async () => (await this.stores()).assets.warm("draw"));
  }

  async plan(request: StartRequest): Promise<PlanFacts> {
    return await this.answer(async () => {
      const { planOf } = await import("./plan_request.ts");
      return await planOf((await this.stores()).files, await this.device(), request);
    });
  }

  async start(request: StartRequest): Promise<void> {
    await this.answer(async () => {
      const { files, opfs } = await this.stores();
      const { RunJob } = await import("./run_job.ts");
      const lookout = await this.lookout();
      while (this.job?.isOver) await this.ended;
      // From here to the new job nothing is waited for: of two starts at once one is refused.
      if (this.job) {
        throw new LongtailError("E-RUN-016", {
          what: "this tab trains a run already",
          where: this.job.request.name,
          fix: "stop it first, or open another tab",
        });
      }
      const make = (wanted: StartRequest) => new RunJob({ files, request: wanted, post: this.post, lookout });
      const job = make(request);
      this.job = job;
      job.tell("starting");
      await new Promise<void>((begun, refused) => {
        this.ended = withRunLock(request.name, async () => {
          begun();
          await this.room?.rest();
          await this.follow(job, make);
          // Another tab that goes on with the run writes its log; what can fail here is the disk, after the run's end.
          await opfs?.letGo(`runs/${request.name}`).catch(() => {});
        })
          .catch(refused)
          .finally(() => {
            this.job = null;
          });
      });
    });
  }

  /** Runs a job, and takes it up again where its device went away. */
  private async follow(job: RunJob, make: (request: StartRequest) => RunJob): Promise<void> {
    let current = job;
    for (let recoveries = 0; ; recoveries++) {
      const gpu = await this.device().catch(async (error) => {
        await current.refuse(error);
        return null;
      });
      if (!gpu) return;
      const recoverable = recoveries < MOST_RECOVERIES;
      const error = await current.run(gpu, recoverable);
      const lost = error instanceof LongtailError && error.code === "E-MEM-002";
      if (!lost) return;
      // The buttons work on `this.job`, so nothing is waited for until the next job has their state.
      const { request, step, control, stopping } = current;
      const recovering = recoverable && !stopping;
      this.post({ kind: "device-lost", run: request.name, why: error.parts.why ?? "", recovering, step });
      if (!recovering) return;
      current = make({ ...request, resume: true });
      if (control.holds) current.control.hold();
      this.job = current;
      current.tell("starting");
    }
  }

  private running(): RunJob {
    if (this.job) return this.job;
    throw new LongtailError("E-RUN-017", { what: "no run is under way in this tab", fix: "start one" });
  }

  async pause(): Promise<void> {
    await this.answer(() => this.running().control.hold());
  }

  async resume(): Promise<void> {
    await this.answer(() => this.running().control.resume());
  }

  async step(updates: number): Promise<void> {
    await this.answer(() => this.running().control.step(Math.max(1, Math.floor(updates))));
  }

  async stop(): Promise<void> {
    await this.answer(() => this.running().stop());
  }

  async sampleNow(): Promise<void> {
    await this.answer(() => this.running().control.say("sample"));
  }

  async saveNow(): Promise<void> {
    await this.answer(() => this.running().control.say("save"));
  }

  async previews(on: boolean): Promise<void> {
    this.wantsPreviews = on;
    if (this.watch) this.watch.on = on;
  }

  private async lookout(): Promise<Lookout> {
    const { Lookout } = await import("./onlooker.ts");
    this.watch ??= new Lookout(this.post);
    this.watch.on = this.wantsPreviews;
    return this.watch;
  }

  async draw(request: DrawRequest): Promise<DrawnPicture[]> {
    const drawn = await this.answer(async () => {
      const { files } = await this.stores();
      const { DrawRoom } = await import("./draw_room.ts");
      this.room ??= new DrawRoom(files, {
        open: () => openDevice(offeredGpu()),
        lookout: await this.lookout(),
        paused: (run) => (this.job?.request.name === run ? this.job.paused() : null),
      });
      return await this.room.draw(request);
    });
    return transfer(
      drawn,
      drawn.map((picture) => picture.rgba.buffer),
    );
  }

  private async pictures(): Promise<PictureShelf> {
    const { files } = await this.stores();
    const [{ PictureShelf }, { browserDecoder }] = await Promise.all([
      import("./pictures.ts"),
      import("./foreign_pictures.ts"),
    ]);
    this.shelf ??= new PictureShelf(files, { decoder: browserDecoder });
    return this.shelf;
  }

  async addPictures(set: string, files: IncomingFile[]): Promise<PictureSetFacts> {
    return await this.answer(async () => (await this.pictures()).add(set, files));
  }

  async pictureSet(set: string): Promise<PictureSetFacts> {
    return await this.answer(async () => (await this.pictures()).facts(set));
  }

  async setCaption(path: string, caption: string): Promise<void> {
    await this.answer(async () => (await this.pictures()).setCaption(path, caption));
  }

  async removePicture(path: string): Promise<void> {
    await this.answer(async () => (await this.pictures()).removePicture(path));
  }

  async storage(): Promise<StorageFacts> {
    return await this.answer(async () => {
      const { files, opfs } = await this.stores();
      return await storageFacts(files, opfs !== null);
    });
  }

  async removeRun(name: string): Promise<void> {
    await this.answer(async () => {
      const { files } = await this.stores();
      await withRunLock(name, () => files.remove(`runs/${name}`));
    });
  }

  async removeSet(name: string): Promise<void> {
    await this.answer(async () => (await this.pictures()).removeSet(name));
  }

  async removeWeights(): Promise<void> {
    await this.answer(async () => (await this.stores()).assets.clear());
  }

  async loseDevice(): Promise<void> {
    await this.answer(async () => (await this.device()).device.destroy());
  }

  /** Errors do not cross as classes: what is thrown here is a `WireError`. */
  private async answer<T>(work: () => T | Promise<T>): Promise<T> {
    try {
      return await work();
    } catch (error) {
      throw wireError(error);
    }
  }
}
