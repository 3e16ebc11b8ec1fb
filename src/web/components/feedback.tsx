// What the page says back: progress, notices, errors with their code, short messages in the corner, and dialogs that ask.

import { signal } from "@preact/signals";
import type { ComponentChildren } from "preact";
import { useEffect, useId, useRef } from "preact/hooks";
import type { WireError } from "../protocol.ts";
import { Button, ICONS, Icon } from "./basic.tsx";

interface ProgressProps {
  label: string;
  done: number;
  total: number;
  /** To the right: `17/42`. */
  text?: string;
}

export function Progress({ label, done, total, text }: ProgressProps) {
  const share = total > 0 ? Math.min(1, done / total) : 0;
  const id = useId();
  return (
    <div class="progress">
      <div class="progress-text">
        <span id={id}>{label}</span>
        {text && <span>{text}</span>}
      </div>
      <div
        class="progress-track"
        role="progressbar"
        aria-labelledby={id}
        aria-valuemin={0}
        aria-valuemax={100}
        aria-valuenow={Math.round(100 * share)}
        aria-valuetext={text}
      >
        <div class="progress-bar" style={{ width: `${100 * share}%` }} />
      </div>
    </div>
  );
}

interface NoticeProps {
  kind?: "info" | "good" | "warn" | "bad";
  title: string;
  children?: ComponentChildren;
  /** Buttons. */
  actions?: ComponentChildren;
}

export function Notice({ kind = "info", title, children, actions }: NoticeProps) {
  return (
    <div class={`notice notice-${kind}`} role={kind === "bad" ? "alert" : undefined}>
      <h3>{title}</h3>
      {children}
      {actions && <div class="row">{actions}</div>}
    </div>
  );
}

/** The first letter as a capital: errors are written for the middle of a line. */
const sentence = (text: string) => text.charAt(0).toUpperCase() + text.slice(1);

/** An error of the engine: what, where, why, what to do, and the code to look it up by. */
export function ErrorNotice({ error, actions }: { error: WireError; actions?: ComponentChildren }) {
  const { code, what, where, why, fix } = error;
  return (
    <Notice kind="bad" title={sentence(what)} actions={actions}>
      <dl>
        {where && (
          <>
            <dt>Where</dt>
            <dd>{where}</dd>
          </>
        )}
        {why && (
          <>
            <dt>Why</dt>
            <dd>{sentence(why)}</dd>
          </>
        )}
        {fix && (
          <>
            <dt>What to do</dt>
            <dd>{sentence(fix)}</dd>
          </>
        )}
      </dl>
      <span class="notice-code">{code}</span>
    </Notice>
  );
}

export interface Toast {
  kind: "info" | "good" | "warn" | "bad";
  title: string;
  text?: string;
  /** Milliseconds; 0 stays until it is closed. */
  for?: number;
}

const toasts = signal<(Toast & { id: number })[]>([]);
let nextToast = 1;

/** Shows a short message in the corner. An error stays until it is closed. */
export function toast(message: Toast): void {
  const id = nextToast++;
  // More than four are a list that nobody reads.
  toasts.value = [...toasts.value.slice(-3), { ...message, id }];
  const time = message.for ?? (message.kind === "bad" ? 0 : 6000);
  if (time > 0) setTimeout(() => closeToast(id), time);
}

/** The same for an error of the engine. */
export function toastError(error: WireError): void {
  const text = [error.why, error.fix]
    .filter(Boolean)
    .map((part) => sentence(part!))
    .join(". ");
  toast({ kind: "bad", title: `${sentence(error.what)} (${error.code})`, ...(text ? { text } : {}) });
}

function closeToast(id: number): void {
  toasts.value = toasts.value.filter((one) => one.id !== id);
}

/** The corner; once on the page. */
export function Toasts() {
  return (
    <div class="toasts" role="status" aria-live="polite">
      {toasts.value.map(({ id, kind, title, text }) => (
        <div key={id} class={`toast toast-${kind}`}>
          <div>
            <strong>{title}</strong>
            {text && <p>{text}</p>}
          </div>
          <button type="button" class="link-button" aria-label="Close the message" onClick={() => closeToast(id)}>
            <Icon path={ICONS.close} />
          </button>
        </div>
      ))}
    </div>
  );
}

interface DialogProps {
  title: string;
  open: boolean;
  small?: boolean;
  onClose: () => void;
  children: ComponentChildren;
  actions?: ComponentChildren;
}

/** A modal dialog: the browser keeps the focus inside, and Escape closes it. */
export function Dialog({ title, open, small, onClose, children, actions }: DialogProps) {
  const element = useRef<HTMLDialogElement>(null);
  const id = useId();
  useEffect(() => {
    const dialog = element.current!;
    if (open && !dialog.open) dialog.showModal();
    if (!open && dialog.open) dialog.close();
  }, [open]);
  return (
    // biome-ignore lint/a11y/useKeyWithClickEvents: a click beside the dialog closes it, Escape is the key for it
    <dialog
      ref={element}
      class={`dialog ${small ? "dialog-small" : ""}`}
      aria-labelledby={id}
      onClose={onClose}
      onClick={(event) => {
        if (event.target === element.current) onClose();
      }}
    >
      {open && (
        <div class="dialog-body">
          <header class="dialog-head">
            <h2 id={id}>{title}</h2>
            <Button kind="quiet" small label="Close" class="button-icon" onClick={onClose}>
              <Icon path={ICONS.close} />
            </Button>
          </header>
          {children}
          {actions && <div class="dialog-actions">{actions}</div>}
        </div>
      )}
    </dialog>
  );
}

interface Question {
  title: string;
  text: string;
  /** Words of the button that does it. */
  yes: string;
  danger?: boolean;
  answer: (yes: boolean) => void;
}

const question = signal<Question | null>(null);

/** Asks and waits for the answer. */
export function ask(parts: Omit<Question, "answer">): Promise<boolean> {
  question.value?.answer(false);
  return new Promise((resolve) => {
    const answer = (yes: boolean) => {
      question.value = null;
      resolve(yes);
    };
    question.value = { ...parts, answer };
  });
}

/** The place of questions; once on the page. */
export function Questions() {
  const asked = question.value;
  return (
    <Dialog
      small
      title={asked?.title ?? ""}
      open={asked !== null}
      onClose={() => asked?.answer(false)}
      actions={
        <>
          <Button onClick={() => asked?.answer(false)}>Cancel</Button>
          <Button kind={asked?.danger ? "danger" : "primary"} onClick={() => asked?.answer(true)}>
            {asked?.yes}
          </Button>
        </>
      }
    >
      <p>{asked?.text}</p>
    </Dialog>
  );
}
