// The frame of all views: navigation, who is logged in, the connection, and the view itself.

import { useEffect, useRef, useState } from "preact/hooks";
import type { Role } from "./api/types";
import { startLive } from "./live_cameras";
import { route } from "./navigation";
import { useAction } from "./parts/load";
import { ErrorNote } from "./parts/notes";
import { ConnectionBar } from "./parts/state";
import { link, type Route } from "./route";
import { begin, logOut, may, service, session } from "./session";
import { change, settings, type Theme } from "./settings";
import { useValue } from "./store";
import { AuditView } from "./views/audit";
import { CameraPage } from "./views/camera";
import { CountsView } from "./views/counts";
import { FleetView } from "./views/fleet";
import { GridView } from "./views/grid";
import { IdentitiesView } from "./views/identities";
import { PersonView } from "./views/person";
import { SearchView } from "./views/search";
import { SettingsView } from "./views/settings";
import { TracksView } from "./views/tracks";

const NAVIGATION: { view: string; text: string; role: Role }[] = [
  { view: "", text: "Live", role: "viewer" },
  { view: "tracks", text: "Tracks", role: "viewer" },
  { view: "search", text: "Search", role: "operator" },
  { view: "counts", text: "Counts", role: "viewer" },
  { view: "identities", text: "Identities", role: "viewer" },
  { view: "fleet", text: "Fleet", role: "viewer" },
  { view: "settings", text: "Settings", role: "viewer" },
  { view: "audit", text: "Audit log", role: "admin" },
];

/** The entry of the navigation to which a view belongs. */
const entryOf = (view: string) => ({ camera: "", person: "tracks" })[view] ?? view;

function Content({ at }: { at: Route }) {
  const needed = NAVIGATION.find((n) => n.view === entryOf(at.view))?.role;
  if (needed && !may(needed)) {
    return <p class="note">This page is for users with the role {needed}.</p>;
  }
  const [first = "", second = "", third = ""] = at.parts;
  switch (at.view) {
    case "":
      return <GridView />;
    case "camera":
      return <CameraPage key={first} name={first} />;
    case "tracks":
      return <TracksView query={at.query} />;
    case "person":
      return <PersonView key={at.parts.join("/")} run={first} camera={second} id={third} />;
    case "search":
      return <SearchView />;
    case "counts":
      return <CountsView query={at.query} />;
    case "identities":
      return <IdentitiesView />;
    case "fleet":
      return <FleetView />;
    case "settings":
      return <SettingsView />;
    case "audit":
      return <AuditView />;
    default:
      return (
        <p class="note">
          There is no such page. <a href={link("")}>Live pictures</a>
        </p>
      );
  }
}

const NEXT: Record<Theme, Theme> = { system: "light", light: "dark", dark: "system" };

function ThemeButton() {
  const { theme } = useValue(settings);
  return (
    <button type="button" onClick={() => change({ theme: NEXT[theme] })}>
      Theme: {theme}
    </button>
  );
}

function Account() {
  const who = useValue(session);
  const leaving = useAction();
  if (!who) return null;
  return (
    <div class="account">
      <ThemeButton />
      <span title={who.kind === "local" ? "requests of this machine need no login" : ""}>
        {who.kind === "local" ? "this machine" : who.name} ({who.role})
      </span>
      {who.kind === "user" && (
        <button type="button" disabled={leaving.busy} onClick={() => leaving.run(logOut)}>
          Log out
        </button>
      )}
    </div>
  );
}

function Header({ view }: { view: string }) {
  const fleet = useValue(service)?.fleet ?? false;
  const entries = NAVIGATION.filter((n) => may(n.role) && (n.view !== "fleet" || fleet));
  return (
    <header class="top">
      <a class="brand" href={link("")}>
        twintrack
      </a>
      <nav aria-label="Views">
        {entries.map((n) => (
          <a
            key={n.view}
            href={link(n.view)}
            aria-current={entryOf(view) === n.view ? "page" : undefined}
          >
            {n.text}
          </a>
        ))}
      </nav>
      <Account />
    </header>
  );
}

export function App() {
  const at = useValue(route);
  const [ready, setReady] = useState(false);
  const [error, setError] = useState<unknown>(null);
  const main = useRef<HTMLElement>(null);
  const first = useRef(true);
  useEffect(() => {
    begin().then(() => {
      startLive();
      setReady(true);
    }, setError);
  }, []);
  // Another view: screen readers and the keyboard go on at its beginning.
  const place = [at.view, ...at.parts].join("/");
  useEffect(() => {
    if (first.current) first.current = false;
    else main.current?.focus();
    window.scrollTo(0, 0);
  }, [place]);
  return (
    <>
      <button type="button" class="skip" onClick={() => main.current?.focus()}>
        Skip to the content
      </button>
      <Header view={at.view} />
      <ConnectionBar />
      <main ref={main} tabIndex={-1}>
        <ErrorNote error={error} />
        {ready && <Content at={at} />}
      </main>
    </>
  );
}
