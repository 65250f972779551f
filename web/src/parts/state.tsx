// State of a camera, and of the connection.

import { connection, liveCamera, missed } from "../live_cameras";
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

/** A bar that says that the connection is lost, or that events were missed. */
export function ConnectionBar() {
  const lost = useValue(connection) === "lost";
  const gap = useValue(missed) && !lost;
  return (
    <div class={lost || gap ? "bar" : "bar none"} role="status">
      {lost && "The connection to the service is lost. Connecting again…"}
      {gap && "Some live events were missed while the connection was lost. "}
      {gap && (
        <button type="button" onClick={() => missed.set(false)}>
          Dismiss
        </button>
      )}
    </div>
  );
}
