// The audit log, for admins.

import { useEffect, useState } from "preact/hooks";
import { request } from "../api/client";
import type { AuditEntry } from "../api/types";
import { moment } from "../format";
import { useAction, useLoad } from "../parts/load";
import { Empty, ErrorNote } from "../parts/notes";
import { Scroll } from "../parts/scroll";
import { TableHead } from "../parts/table_head";

interface AuditPage {
  entries: AuditEntry[];
  next?: string;
}

const LIMIT = 100;
const load = (before?: string, signal?: AbortSignal) =>
  request<AuditPage>("audit", { query: { limit: LIMIT, before }, ...(signal ? { signal } : {}) });

export function AuditView() {
  const first = useLoad((signal) => load(undefined, signal), []);
  const [more, setMore] = useState<AuditPage>({ entries: [] });
  const paging = useAction();
  useEffect(() => setMore({ entries: [] }), [first.data]);
  const entries = [...(first.data?.entries ?? []), ...more.entries];
  const next = more.entries.length > 0 ? more.next : first.data?.next;
  const nextPage = async () => {
    const page = await load(next);
    setMore({ ...page, entries: [...more.entries, ...page.entries] });
  };
  return (
    <>
      <div class="row heading">
        <h1>Audit log</h1>
        <button type="button" onClick={first.reload}>
          Refresh
        </button>
      </div>
      <ErrorNote error={first.error} />
      {first.data && entries.length === 0 && <Empty>The log is empty.</Empty>}
      <Scroll label="entries">
        <table>
          <TableHead texts={["Time", "Who", "From", "What", "On", "Result"]} />
          <tbody>
            {entries.map((e) => (
              <tr key={e.id ?? `${e.time} ${e.action} ${e.object}`}>
                <td>{moment(e.time)}</td>
                <td>{e.principal ?? ""}</td>
                <td>{e.address ?? ""}</td>
                <td>{e.action}</td>
                <td>{e.object ?? ""}</td>
                <td class={e.result === "refused" ? "bad" : ""}>
                  {e.result}
                  {e.reason ? ` (${e.reason})` : ""}
                </td>
              </tr>
            ))}
          </tbody>
        </table>
      </Scroll>
      <ErrorNote error={paging.error} />
      {next && (
        <button type="button" disabled={paging.busy} onClick={() => paging.run(nextPage)}>
          Show more
        </button>
      )}
    </>
  );
}
