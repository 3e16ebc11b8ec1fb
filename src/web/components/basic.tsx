// The small parts of the page: card, button, field, slider, check box, badge, copy button. They add no behaviour to what
// HTML gives, only one look and the attributes that screen readers need.

import type { ComponentChildren, JSX } from "preact";
import { useId, useState } from "preact/hooks";

interface CardProps {
  /** Step of the walk-through, shown before the title. */
  number?: number;
  title: string;
  /** To the right of the title. */
  aside?: ComponentChildren;
  class?: string;
  children: ComponentChildren;
}

/** A region with a heading. */
export function Card({ number, title, aside, class: extra = "", children }: CardProps) {
  const id = useId();
  return (
    <section class={`card ${extra}`} aria-labelledby={id}>
      <header class="card-head">
        <h2 id={id}>
          {number !== undefined && <span class="card-number">{number}&ensp;</span>}
          {title}
        </h2>
        {aside && <div class="card-aside">{aside}</div>}
      </header>
      {children}
    </section>
  );
}

export interface ButtonProps {
  kind?: "plain" | "primary" | "quiet" | "danger";
  small?: boolean;
  /** The button keeps its focus and says this; a click does nothing. */
  disabledReason?: string | null;
  pressed?: boolean;
  label?: string;
  title?: string;
  class?: string;
  onClick?: (event: MouseEvent) => void;
  children: ComponentChildren;
}

/**
 * A button. One that cannot be used says why: it stays in the tab order with `aria-disabled`, because a button that
 * vanishes from the keyboard cannot tell its reason.
 */
export function Button(props: ButtonProps) {
  const { kind = "plain", small, disabledReason, pressed, label, onClick, children } = props;
  const reason = useId();
  const disabled = disabledReason !== undefined && disabledReason !== null;
  const classes = ["button", kind === "plain" ? "" : `button-${kind}`, small ? "button-small" : "", props.class ?? ""];
  return (
    <button
      type="button"
      class={classes.filter(Boolean).join(" ")}
      aria-disabled={disabled ? "true" : undefined}
      aria-describedby={disabled && disabledReason ? reason : undefined}
      aria-pressed={pressed}
      aria-label={label}
      title={disabled ? disabledReason || undefined : props.title}
      onClick={(event) => {
        if (!disabled) onClick?.(event);
      }}
    >
      {children}
      {disabled && disabledReason && (
        <span id={reason} hidden>
          {disabledReason}
        </span>
      )}
    </button>
  );
}

interface FieldProps {
  label: string;
  hint?: string;
  error?: string | null;
  children: (attributes: { id: string; "aria-describedby": string; "aria-invalid": boolean }) => ComponentChildren;
}

/** A labelled input with a hint, or what is wrong with its value. */
export function Field({ label, hint, error, children }: FieldProps) {
  const id = useId();
  return (
    <div class="field">
      <label for={id}>{label}</label>
      {children({ id, "aria-describedby": `${id}-hint`, "aria-invalid": Boolean(error) })}
      <span id={`${id}-hint`} class={error ? "field-error" : "field-hint"}>
        {error || hint}
      </span>
    </div>
  );
}

interface NumberInputProps {
  label: string;
  hint?: string;
  value: number;
  /** What is wrong with a value, or null. */
  check: (value: unknown) => string | null;
  disabled?: boolean;
  onValue: (value: number) => void;
}

/**
 * A number typed as text, so that 1e-3 is welcome. What is no number leaves the field as NaN: whoever takes it must not go on
 * with an older value that is no longer shown.
 */
export function NumberInput({ label, hint, value, check, disabled, onValue }: NumberInputProps) {
  const [draft, setDraft] = useState<string | null>(null);
  const parsed = draft === null ? value : Number(draft.trim() === "" ? Number.NaN : draft);
  return (
    <Field label={label} error={check(parsed)} {...(hint ? { hint } : {})}>
      {(attributes) => (
        <input
          {...attributes}
          class="input"
          inputMode="decimal"
          autocomplete="off"
          disabled={disabled}
          value={draft ?? String(value)}
          onInput={(event) => {
            const text = event.currentTarget.value;
            setDraft(text);
            const next = Number(text.trim() === "" ? Number.NaN : text);
            onValue(next);
          }}
          onBlur={() => {
            if (check(parsed) === null) setDraft(null);
          }}
        />
      )}
    </Field>
  );
}

interface SliderProps {
  label: string;
  value: number;
  min: number;
  max: number;
  step?: number;
  /** The value in words, for screen readers too. */
  text?: string;
  ends?: [string, string];
  disabled?: boolean;
  onValue: (value: number) => void;
}

export function Slider({ label, value, min, max, step = 1, text, ends, disabled, onValue }: SliderProps) {
  const id = useId();
  return (
    <div class="field">
      <div class="row spread">
        <label for={id}>{label}</label>
        {text && <span class="small quiet">{text}</span>}
      </div>
      <input
        id={id}
        type="range"
        class="slider"
        {...{ min, max, step, value, disabled }}
        aria-valuetext={text}
        onInput={(event) => onValue(event.currentTarget.valueAsNumber)}
      />
      {ends && (
        <div class="slider-ends" aria-hidden="true">
          <span>{ends[0]}</span>
          <span>{ends[1]}</span>
        </div>
      )}
    </div>
  );
}

interface CheckProps {
  label: string;
  checked: boolean;
  disabled?: boolean;
  onChange: (checked: boolean) => void;
}

export function Check({ label, checked, disabled, onChange }: CheckProps) {
  return (
    <label class="check-field">
      <input
        type="checkbox"
        checked={checked}
        disabled={disabled}
        onChange={(event) => onChange(event.currentTarget.checked)}
      />
      {label}
    </label>
  );
}

export type BadgeKind = "good" | "limited" | "none" | "warn" | "bad" | "live" | "plain";

export const Badge = ({ kind, children }: { kind: BadgeKind; children: ComponentChildren }) => (
  <span class={`badge badge-${kind}`}>{children}</span>
);

/** Copies `text()` and says so for a moment. */
export function CopyButton({ text, children }: { text: () => string; children: ComponentChildren }) {
  const [done, setDone] = useState<"copied" | "failed" | null>(null);
  const copy = async () => {
    try {
      await navigator.clipboard.writeText(text());
      setDone("copied");
    } catch {
      setDone("failed");
    }
    setTimeout(() => setDone(null), 2000);
  };
  return (
    <Button small onClick={() => void copy()}>
      <span aria-live="polite">
        {done === "copied" ? "Copied" : done === "failed" ? "Select and copy by hand" : children}
      </span>
    </Button>
  );
}

/** A line icon, 24 units wide. */
export const Icon = ({ path }: { path: string }): JSX.Element => (
  <svg viewBox="0 0 24 24" fill="none" stroke="currentColor" stroke-width="1.8" aria-hidden="true">
    <path d={path} stroke-linecap="round" stroke-linejoin="round" />
  </svg>
);

export const ICONS = {
  sun: "M12 3v2M12 19v2M3 12h2M19 12h2M5.6 5.600l1.400 1.400M17 17l1.400 1.400M5.600 18.400L7 17M17 7l1.400-1.400M12 8a4 4 0 1 0 0 8 4 4 0 0 0 0-8z",
  moon: "M20 14.500A8.500 8.500 0 0 1 9.500 4a8.500 8.500 0 1 0 10.500 10.500z",
  disk: "M4 6c0-1.700 3.600-3 8-3s8 1.300 8 3-3.600 3-8 3-8-1.300-8-3zM4 6v12c0 1.700 3.600 3 8 3s8-1.300 8-3V6M4 12c0 1.700 3.600 3 8 3s8-1.300 8-3",
  close: "M6 6l12 12M18 6L6 18",
  link: "M10 14a4 4 0 0 0 5.700 0l3-3a4 4 0 0 0-5.700-5.700l-1 1M14 10a4 4 0 0 0-5.700 0l-3 3a4 4 0 0 0 5.700 5.700l1-1",
} as const;
