// State of a camera, and of the connection.

import { connection, liveCamera } from "../live_cameras";
import { useValue } from "../store";

const TEXTS = {
  connecting: "connecting",
  online: "online",
  offline: "offline",
  ended: "ended",
} as const;

export function CameraStateNote({ camera }: { camera: string }) {
  const { state, reason } = useValue(liveCamera(camera).state);
  return (
    <span class={`state ${state}`} title={reason ?? ""}>
      <span class="dot" aria-hidden="true" /> {TEXTS[state]}
    </span>
  );
}

/** A bar that says that the connection is lost, while it is. */
export function ConnectionBar() {
  const state = useValue(connection);
  return (
    <div class={state === "lost" ? "bar" : "bar none"} role="status">
      {state === "lost" ? "The connection to the service is lost. Connecting again…" : ""}
    </div>
  );
}
