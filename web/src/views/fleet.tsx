// The workers and cameras of the fleet; admins add and remove cameras.

import { useEffect, useState } from "preact/hooks";
import { path, request } from "../api/client";
import type { FleetCamera, FleetOverview, FleetWorker } from "../api/types";
import { cameraCounts, loadOf, rateOf } from "../fleet";
import { count, percent } from "../format";
import { AskCamera } from "../parts/camera_dialog";
import { Confirm } from "../parts/dialog";
import { useLoad } from "../parts/load";
import { Empty, ErrorNote } from "../parts/notes";
import { Scroll } from "../parts/scroll";
import { TableHead } from "../parts/table_head";
import { link } from "../route";
import { may } from "../session";

/** Milliseconds between two requests; workers report every second. */
const INTERVAL = 3000;

function Workers({ workers }: { workers: FleetWorker[] }) {
  return (
    <Scroll label="workers">
      <table id="workers">
        <TableHead
          texts={["Worker", "Cameras", "Frames/s", "Capacity", "Load", "Labels", "Version"]}
        />
        <tbody>
          {workers.map((w) => (
            <tr key={w.id}>
              <td>
                {w.name}
                {w.draining && " (stops)"}
                {w.gpu && " (GPU)"}
              </td>
              <td>{Object.keys(w.cameras).length}</td>
              <td>{rateOf(w).toFixed(1)}</td>
              <td>{w.capacity.toFixed(1)}</td>
              <td class={loadOf(w) > 1 ? "bad" : ""}>{percent(loadOf(w))}</td>
              <td>{w.labels.join(", ")}</td>
              <td>{w.version}</td>
            </tr>
          ))}
        </tbody>
      </table>
    </Scroll>
  );
}

interface CamerasProps {
  cameras: FleetCamera[];
  onRemove(name: string): void;
}

function Cameras({ cameras, onRemove }: CamerasProps) {
  const admin = may("admin");
  const texts = ["Camera", "Worker", "Lease", "Labels", "Priority", "Address"];
  return (
    <Scroll label="cameras">
      <table id="cameras">
        <TableHead texts={admin ? [...texts, "Change"] : texts} />
        <tbody>
          {cameras.map((c) => (
            <tr key={c.name}>
              <td>
                <a href={link("camera", [c.name])}>{c.name}</a>
              </td>
              <td class={c.worker ? "" : "bad"}>{c.worker ?? "none"}</td>
              <td>{c.lease ?? ""}</td>
              <td>{c.labels.join(", ")}</td>
              <td>{c.priority}</td>
              <td>{c.url}</td>
              {admin && (
                <td>
                  <button type="button" onClick={() => onRemove(c.name)}>
                    Remove {c.name}
                  </button>
                </td>
              )}
            </tr>
          ))}
        </tbody>
      </table>
    </Scroll>
  );
}

export function FleetView() {
  const { data, error, reload } = useLoad(
    (signal) => request<FleetOverview>("fleet", { signal }),
    [],
  );
  const [adding, setAdding] = useState(false);
  const [removing, setRemoving] = useState<string | null>(null);
  useEffect(() => {
    const timer = setInterval(reload, INTERVAL);
    return () => clearInterval(timer);
  }, [reload]);
  const close = () => {
    setAdding(false);
    setRemoving(null);
  };
  const after = async (work: Promise<unknown>) => {
    await work;
    close();
    reload();
  };
  return (
    <>
      <div class="row heading">
        <h1>Fleet</h1>
        {may("admin") && (
          <button type="button" onClick={() => setAdding(true)}>
            Add a camera
          </button>
        )}
      </div>
      <ErrorNote error={error} />
      {data && (
        <>
          <p class="sum" aria-live="polite">
            {count(data.workers.length, "worker")}, {cameraCounts(data)}
          </p>
          {data.workers.length === 0 && (
            <Empty>
              No worker has reported. Start one with <code>twintrack serve</code> and a section{" "}
              <code>[fleet]</code>.
            </Empty>
          )}
          <Workers workers={data.workers} />
          <Cameras cameras={data.cameras} onRemove={setRemoving} />
        </>
      )}
      {adding && (
        <AskCamera
          onYes={(name, url) =>
            after(request(`fleet/cameras/${path(name)}`, { method: "PUT", json: { url } }))
          }
          onClose={close}
        />
      )}
      {removing && (
        <Confirm
          title={`Remove ${removing}?`}
          text={`No worker tracks ${removing} any more. Its tracks stay in the history.`}
          yes="Remove"
          onYes={() => after(request(`fleet/cameras/${path(removing)}`, { method: "DELETE" }))}
          onClose={close}
        />
      )}
    </>
  );
}
