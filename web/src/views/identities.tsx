// The enrolled people.

import { useState } from "preact/hooks";
import { path, request } from "../api/client";
import type { Deleted, EnrolledIdentity } from "../api/types";
import { count, moment } from "../format";
import { Ask, Confirm } from "../parts/dialog";
import { useAction, useLoad } from "../parts/load";
import { Empty, ErrorNote, isNoHistory, NoHistory } from "../parts/notes";
import { Scroll } from "../parts/scroll";
import { link } from "../route";
import { may } from "../session";

const TYPES = "image/jpeg,image/png";

function EnrolForm({ onDone }: { onDone(text: string): void }) {
  const action = useAction();
  const [name, setName] = useState("");
  const [file, setFile] = useState<File | null>(null);
  const enrol = async () => {
    if (!file) return;
    await request(`identities/${path(name.trim())}/pictures`, { method: "POST", body: file });
    onDone(`${name.trim()} is enrolled.`);
  };
  return (
    <form
      class="filters card padded"
      aria-label="Enrol by a picture"
      onSubmit={(event) => {
        event.preventDefault();
        action.run(enrol);
      }}
    >
      <label>
        Name
        <input
          required
          maxLength={120}
          value={name}
          onInput={(e) => setName(e.currentTarget.value)}
        />
      </label>
      <label>
        Picture of one person
        <input
          type="file"
          accept={TYPES}
          required
          onChange={(e) => setFile(e.currentTarget.files?.[0] ?? null)}
        />
      </label>
      <button type="submit" class="main" disabled={action.busy}>
        Enrol
      </button>
      <ErrorNote error={action.error} />
    </form>
  );
}

export function IdentitiesView() {
  const { data, error, reload } = useLoad(
    (signal) => request<{ items: EnrolledIdentity[] }>("identities", { signal }),
    [],
  );
  const [open, setOpen] = useState<{ what: "rename" | "delete"; name: string } | null>(null);
  const [news, setNews] = useState("");
  if (isNoHistory(error)) return <NoHistory what="Identities" />;
  const close = () => setOpen(null);
  const tell = (text: string) => {
    setNews(text);
    close();
    reload();
  };
  const rename = async (name: string, as: string) => {
    await request(`identities/${path(name)}/rename`, { method: "POST", json: { name: as } });
    tell(`${name} is now ${as}.`);
  };
  const remove = async (name: string) => {
    const deleted = await request<Deleted>(`identities/${path(name)}`, { method: "DELETE" });
    const { tracks, crops, embeddings } = deleted;
    const parts = [count(embeddings, "embedding"), count(crops, "crop")].join(" and ");
    tell(`${name} is deleted: ${parts}; ${count(tracks, "track")} lost the name.`);
  };
  return (
    <>
      <h1>Identities</h1>
      <p class="hint">
        People who were given a name. A track can be enrolled on its own page. Deleting an identity
        deletes its embeddings, and the crops and embeddings of all tracks with its name.
      </p>
      {may("operator") && <EnrolForm onDone={tell} />}
      <ErrorNote error={error} />
      <p role="status" id="news">
        {news}
      </p>
      {data?.items.length === 0 && <Empty>Nobody is enrolled.</Empty>}
      {data && data.items.length > 0 && (
        <Scroll label="identities">
          <table>
            <thead>
              <tr>
                <th scope="col">Name</th>
                <th scope="col">Enrolled</th>
                <th scope="col">Embeddings</th>
                <th scope="col">Tracks</th>
                <th scope="col">
                  <span class="hidden">Actions</span>
                </th>
              </tr>
            </thead>
            <tbody>
              {data.items.map(({ name, created, embeddings, tracks }) => (
                <tr key={name} data-identity={name}>
                  <th scope="row">{name}</th>
                  <td>{moment(created)}</td>
                  <td>{embeddings}</td>
                  <td>
                    <a href={link("tracks", [], { identity: name })}>{tracks}</a>
                  </td>
                  <td class="row end">
                    {may("operator") && (
                      <button
                        type="button"
                        aria-label={`rename ${name}`}
                        onClick={() => setOpen({ what: "rename", name })}
                      >
                        Rename
                      </button>
                    )}
                    {may("admin") && (
                      <button
                        type="button"
                        aria-label={`delete ${name}`}
                        onClick={() => setOpen({ what: "delete", name })}
                      >
                        Delete
                      </button>
                    )}
                  </td>
                </tr>
              ))}
            </tbody>
          </table>
        </Scroll>
      )}
      {open?.what === "rename" && (
        <Ask
          title={`Rename ${open.name}`}
          label="New name"
          value={open.name}
          yes="Rename"
          onYes={(as) => rename(open.name, as)}
          onClose={close}
        />
      )}
      {open?.what === "delete" && (
        <Confirm
          title={`Delete ${open.name}?`}
          text="The name, its embeddings, and the crops and embeddings of all its tracks are deleted. This cannot be undone."
          yes="Delete"
          onYes={() => remove(open.name)}
          onClose={close}
        />
      )}
    </>
  );
}
