// The map of concepts: a canvas that is turned by dragging, zoomed by wheel or pinch, and steered by keys. It is drawn only
// when something changed. What it shows is also in the list beside it, which is the way for screen readers.

import { effect } from "@preact/signals";
import { useEffect, useRef, useState } from "preact/hooks";
import { between, type Camera, orbited, START, type Viewport, zoomed } from "./camera.ts";
import type { Concept } from "./catalogue.ts";
import { MapDrawing } from "./map_drawing.ts";
import * as state from "./state.ts";

/** Pointer moves of fewer CSS pixels are a click. */
const CLICK = 5;
const KEY_TURN = 46;
const HINT =
  "Arrow keys turn the map, plus and minus zoom, Home shows all of it, F goes to the concept in the card, Enter picks it.";

const stillness = () => matchMedia("(prefers-reduced-motion: reduce)").matches;

/** Moves the camera over some frames; with reduced motion at once. */
class Motion {
  private readonly set: (camera: Camera) => void;
  private frame = 0;

  constructor(set: (camera: Camera) => void) {
    this.set = set;
  }

  stop(): void {
    cancelAnimationFrame(this.frame);
  }

  to(from: Camera, to: Camera, ms: number): void {
    this.stop();
    if (stillness()) {
      this.set(to);
      return;
    }
    const began = performance.now();
    const tick = () => {
      const share = Math.min(1, (performance.now() - began) / ms);
      this.set(between(from, to, 1 - (1 - share) ** 3));
      if (share < 1) this.frame = requestAnimationFrame(tick);
    };
    this.frame = requestAnimationFrame(tick);
  }

  /** Goes on turning as the pointer did, ever slower. */
  coast(turn: (dx: number, dy: number) => void, speed: { x: number; y: number }): void {
    this.stop();
    if (stillness() || Math.hypot(speed.x, speed.y) < 1) return;
    let { x, y } = speed;
    const tick = () => {
      turn(x, y);
      x *= 0.9;
      y *= 0.9;
      if (Math.hypot(x, y) > 0.2) this.frame = requestAnimationFrame(tick);
    };
    this.frame = requestAnimationFrame(tick);
  }
}

export function ConceptMap({ concepts }: { concepts: readonly Concept[] }) {
  const box = useRef<HTMLDivElement>(null);
  const [renderer, setRenderer] = useState<string | null>(null);
  const steer = useRef<Steering | null>(null);

  useEffect(() => {
    if (!box.current) return;
    const steering = new Steering(box.current, concepts, setRenderer);
    steer.current = steering;
    return () => steering.close();
  }, [concepts]);

  return (
    <div class="lt-map-frame">
      <div
        ref={box}
        class="lt-map"
        role="application"
        aria-roledescription="map of concepts"
        aria-label={`${concepts.length} concepts in three dimensions. ${HINT} The list of concepts holds the same.`}
        // biome-ignore lint/a11y/noNoninteractiveTabindex: it takes keys
        tabIndex={0}
        data-renderer={renderer ?? "none"}
      />
      <div class="lt-map-tools">
        <button
          type="button"
          class="button button-small"
          onClick={() => steer.current?.zoom(0.75)}
          aria-label="Zoom in"
        >
          +
        </button>
        <button
          type="button"
          class="button button-small"
          onClick={() => steer.current?.zoom(1.33)}
          aria-label="Zoom out"
        >
          −
        </button>
        <button type="button" class="button button-small" onClick={() => steer.current?.home()}>
          All
        </button>
      </div>
      <ul class="lt-legend" aria-label="Legend">
        <li>
          <i class="lt-key lt-key-head" /> head, common in pretraining
        </li>
        <li>
          <i class="lt-key lt-key-tail" /> tail, rare
        </li>
        <li>
          <i class="lt-key lt-key-picked" /> picked
        </li>
      </ul>
    </div>
  );
}

/** Turns input into camera moves, and camera and state into drawings. */
class Steering {
  private camera: Camera = START;
  private readonly drawing: MapDrawing;
  private readonly motion = new Motion((camera) => this.look(camera));
  private readonly pointers = new Map<number, { x: number; y: number }>();
  private readonly undo: (() => void)[] = [];
  private travelled = 0;
  private spread = 0;
  private speed = { x: 0, y: 0 };
  private readonly concepts: readonly Concept[];
  private readonly box: HTMLDivElement;

  constructor(box: HTMLDivElement, concepts: readonly Concept[], onRenderer: (kind: string) => void) {
    this.box = box;
    this.concepts = concepts;
    this.drawing = new MapDrawing(box, concepts, onRenderer);
    const on = <K extends keyof HTMLElementEventMap>(
      name: K,
      handler: (event: HTMLElementEventMap[K]) => void,
      options?: AddEventListenerOptions,
    ) => {
      box.addEventListener(name, handler, options);
      this.undo.push(() => box.removeEventListener(name, handler, options));
    };
    on("pointerdown", (event) => this.down(event));
    on("pointermove", (event) => this.move(event));
    on("pointerup", (event) => this.up(event, true));
    on("pointercancel", (event) => this.up(event, false));
    on("pointerleave", () => {
      state.hovered.value = null;
    });
    on("wheel", (event) => this.wheel(event), { passive: false });
    on("keydown", (event) => this.key(event));
    on("dblclick", () => this.flyTo(state.focused.value));
    this.undo.push(
      effect(() => {
        const { picked, shown, hovered, focused, sheet } = state;
        if (sheet.value) void this.drawing.useSheet(sheet.value);
        this.drawing.state = {
          picked: picked.value,
          shown: shown.value,
          hovered: hovered.value,
          focused: focused.value,
        };
        this.drawing.request();
      }),
    );
    // A short turn shows that the cloud has depth; it does not go on.
    this.motion.to({ ...START, yaw: START.yaw - 0.5, distance: START.distance * 1.12 }, START, 1400);
    this.look(stillness() ? START : { ...START, yaw: START.yaw - 0.5 });
  }

  close(): void {
    this.motion.stop();
    for (const undo of this.undo) undo();
    this.drawing.close();
  }

  zoom(factor: number): void {
    this.motion.to(this.camera, zoomed(this.camera, factor), 180);
  }

  home(): void {
    this.motion.to(this.camera, { ...START, yaw: this.camera.yaw }, 500);
  }

  /** Puts a concept in the middle, near enough to see its neighbours' pictures. */
  flyTo(index: number | null): void {
    if (index === null) return;
    const target = this.concepts[index]!.place;
    this.motion.to(this.camera, { ...this.camera, target, distance: Math.min(this.camera.distance, 1.1) }, 700);
  }

  private get viewport(): Viewport {
    return this.drawing.viewport;
  }

  private look(camera: Camera): void {
    this.camera = camera;
    this.drawing.camera = camera;
    this.drawing.request();
  }

  private at(event: { clientX: number; clientY: number }): { x: number; y: number } {
    const { left, top } = this.box.getBoundingClientRect();
    return { x: event.clientX - left, y: event.clientY - top };
  }

  private down(event: PointerEvent): void {
    this.motion.stop();
    this.box.setPointerCapture(event.pointerId);
    this.pointers.set(event.pointerId, this.at(event));
    this.travelled = this.pointers.size > 1 ? CLICK : 0;
    this.spread = this.distance();
    this.speed = { x: 0, y: 0 };
  }

  private move(event: PointerEvent): void {
    const at = this.at(event);
    const before = this.pointers.get(event.pointerId);
    if (!before) {
      const slack = event.pointerType === "mouse" ? 4 : 12;
      const found = this.drawing.pick(at.x, at.y, slack);
      state.hovered.value = found;
      this.box.classList.toggle("is-over", found !== null);
      return;
    }
    this.pointers.set(event.pointerId, at);
    const [dx, dy] = [at.x - before.x, at.y - before.y];
    this.travelled += Math.hypot(dx, dy);
    if (this.pointers.size === 1) {
      if (this.travelled < CLICK) return;
      this.look(orbited(this.camera, dx, dy, this.viewport));
      this.speed = { x: dx, y: dy };
      return;
    }
    const spread = this.distance();
    if (this.spread > 0 && spread > 0) this.look(zoomed(this.camera, this.spread / spread));
    this.spread = spread;
  }

  private up(event: PointerEvent, isHere: boolean): void {
    if (!this.pointers.delete(event.pointerId)) return;
    if (!isHere) return;
    if (this.travelled >= CLICK) {
      const { viewport } = this;
      if (this.pointers.size === 0)
        this.motion.coast((dx, dy) => this.look(orbited(this.camera, dx, dy, viewport)), this.speed);
      return;
    }
    const { x, y } = this.at(event);
    const found = this.drawing.pick(x, y, event.pointerType === "mouse" ? 4 : 14);
    if (found === null) return;
    // The first tap opens the card; a tap on the open one picks it.
    const concept = this.concepts[found]!;
    if (state.focused.value === found) state.togglePicked(concept);
    state.focused.value = found;
  }

  /** Two fingers' distance. */
  private distance(): number {
    const [a, b] = [...this.pointers.values()];
    return a && b ? Math.hypot(a.x - b.x, a.y - b.y) : 0;
  }

  private wheel(event: WheelEvent): void {
    // A page that is scrolled past the map goes on scrolling: the map takes the wheel once it has been clicked or tabbed to.
    if (document.activeElement !== this.box && !event.ctrlKey && !event.metaKey) return;
    event.preventDefault();
    this.motion.stop();
    const lines = event.deltaMode === WheelEvent.DOM_DELTA_LINE ? 30 : 1;
    this.look(zoomed(this.camera, Math.exp(event.deltaY * lines * (event.ctrlKey ? 0.01 : 0.0015))));
  }

  private key(event: KeyboardEvent): void {
    const turns: Record<string, [number, number]> = {
      ArrowLeft: [KEY_TURN, 0],
      ArrowRight: [-KEY_TURN, 0],
      ArrowUp: [0, KEY_TURN],
      ArrowDown: [0, -KEY_TURN],
    };
    const turn = turns[event.key];
    const { focused } = state;
    if (event.altKey || event.ctrlKey || event.metaKey) return;
    if (turn) this.motion.to(this.camera, orbited(this.camera, ...turn, this.viewport), 160);
    else if (event.key === "+" || event.key === "=") this.zoom(0.8);
    else if (event.key === "-" || event.key === "_") this.zoom(1.25);
    else if (event.key === "Home" || event.key === "0") this.home();
    else if (event.key === "Enter" && focused.value !== null) state.togglePicked(this.concepts[focused.value]!);
    else if (event.key === "f") this.flyTo(focused.value);
    else return;
    event.preventDefault();
  }
}
