// Asks for the name and the address of a new camera of the fleet.

import { useRef } from "preact/hooks";
import { Dialog, FormEnd } from "./dialog";
import { useAction } from "./load";

interface Props {
  onYes(name: string, url: string): Promise<void>;
  onClose(): void;
}

export function AskCamera({ onYes, onClose }: Props) {
  const action = useAction();
  const name = useRef<HTMLInputElement>(null);
  const url = useRef<HTMLInputElement>(null);
  const value = (input: HTMLInputElement | null) => input?.value.trim() ?? "";
  return (
    <Dialog title="Add a camera" onClose={onClose}>
      <form
        onSubmit={(event) => {
          event.preventDefault();
          action.run(() => onYes(value(name.current), value(url.current)));
        }}
      >
        <p class="hint">
          A camera with this name gets the new address. For a login, labels, zones or a priority use{" "}
          <code>twintrack fleet add</code>.
        </p>
        <label>
          Name <input ref={name} required maxLength={64} />
        </label>
        <label>
          Address <input ref={url} required placeholder="rtsp://10.0.0.9/stream1" />
        </label>
        <FormEnd action={action} yes="Add" onClose={onClose} />
      </form>
    </Dialog>
  );
}
