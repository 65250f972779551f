// Dialogs, by the browser's own element: it keeps the focus inside, and Escape closes it.

import type { ComponentChildren } from "preact";
import { useEffect, useRef } from "preact/hooks";
import { type Action, useAction } from "./load";
import { ErrorNote } from "./notes";

interface Props {
  title: string;
  children: ComponentChildren;
  onClose(): void;
}

export function Dialog({ title, children, onClose }: Props) {
  const element = useRef<HTMLDialogElement>(null);
  useEffect(() => {
    const dialog = element.current;
    const before = document.activeElement;
    dialog?.showModal();
    return () => {
      dialog?.close();
      if (before instanceof HTMLElement) before.focus();
    };
  }, []);
  return (
    <dialog ref={element} onCancel={onClose} aria-label={title}>
      <h2>{title}</h2>
      {children}
    </dialog>
  );
}

interface ConfirmProps {
  title: string;
  text: string;
  /** The text of the button that does it. */
  yes: string;
  onYes(): Promise<void>;
  onClose(): void;
}

/** Asks before something that cannot be undone. */
export function Confirm({ title, text, yes, onYes, onClose }: ConfirmProps) {
  const action = useAction();
  return (
    <Dialog title={title} onClose={onClose}>
      <p>{text}</p>
      <ErrorNote error={action.error} />
      <div class="row end">
        <button type="button" onClick={onClose}>
          Cancel
        </button>
        <button
          type="button"
          class="danger"
          disabled={action.busy}
          onClick={() => action.run(onYes)}
        >
          {yes}
        </button>
      </div>
    </Dialog>
  );
}

interface FormEndProps {
  action: Action;
  /** The text of the button that submits the form. */
  yes: string;
  onClose(): void;
}

/** The end of a form in a dialog: the error of its action, and the buttons. */
export function FormEnd({ action, yes, onClose }: FormEndProps) {
  return (
    <>
      <ErrorNote error={action.error} />
      <div class="row end">
        <button type="button" onClick={onClose}>
          Cancel
        </button>
        <button type="submit" class="main" disabled={action.busy}>
          {yes}
        </button>
      </div>
    </>
  );
}

interface AskProps {
  title: string;
  label: string;
  value: string;
  yes: string;
  onYes(value: string): Promise<void>;
  onClose(): void;
}

/** Asks for one line of text, such as a name. */
export function Ask({ title, label, value, yes, onYes, onClose }: AskProps) {
  const action = useAction();
  const input = useRef<HTMLInputElement>(null);
  return (
    <Dialog title={title} onClose={onClose}>
      <form
        onSubmit={(event) => {
          event.preventDefault();
          action.run(() => onYes(input.current?.value.trim() ?? ""));
        }}
      >
        <label>
          {label} <input ref={input} defaultValue={value} required maxLength={120} />
        </label>
        <FormEnd action={action} yes={yes} onClose={onClose} />
      </form>
    </Dialog>
  );
}
