// The room in which pictures are drawn beside a run: a device of its own, so that nothing that goes wrong here (an error of the
// device, no memory for one more model) is anything that the run notices. Requests go one after another. After an error of its
// device the next request gets a new one.

import type { FileStore } from "../../base/files.ts";
import type { Gpu } from "../../gpu/device.ts";
import type { DrawnPicture, DrawRequest } from "../protocol.ts";
import { DrawDesk, type PausedRuns } from "./draw_desk.ts";
import type { Lookout } from "./onlooker.ts";

export interface RoomParts {
  /** Opens a device that nobody else uses. */
  open: () => Promise<Gpu>;
  paused: PausedRuns;
  lookout: Lookout;
}

export class DrawRoom {
  private readonly files: FileStore;
  private readonly parts: RoomParts;
  private gpu: Gpu | null = null;
  private desk: DrawDesk | null = null;
  private last: Promise<unknown> = Promise.resolve();

  constructor(files: FileStore, parts: RoomParts) {
    this.files = files;
    this.parts = parts;
  }

  draw(request: DrawRequest): Promise<DrawnPicture[]> {
    return this.alone(async () => {
      // What the device reported after the last picture was done is no matter of this one.
      if (!this.isSound()) await this.leave();
      this.gpu ??= await this.parts.open();
      this.desk ??= new DrawDesk(this.files, this.gpu, this.parts);
      try {
        return await this.desk.draw(request);
      } catch (error) {
        if (!this.isSound()) await this.leave();
        throw error;
      }
    });
  }

  /** Gives the memory of models back when all that was asked for is drawn. */
  rest(): Promise<void> {
    // What cannot be closed any more is the next request's concern.
    return this.alone(async () => void (await this.desk?.close().catch(() => {})));
  }

  private alone<T>(work: () => Promise<T>): Promise<T> {
    const next = this.last.then(work, work);
    this.last = next;
    return next;
  }

  /** Whether the device has reported no error, the loss of it included. */
  private isSound(): boolean {
    try {
      this.gpu?.check();
      return true;
    } catch {
      return false;
    }
  }

  private async leave(): Promise<void> {
    const { desk, gpu } = this;
    this.desk = this.gpu = null;
    await desk?.close().catch(() => {});
    gpu?.close();
  }
}
