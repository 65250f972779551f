// Settings of this browser, kept in its local storage.

import type { Show } from "./draw/scene";
import { Value } from "./store";

export type Theme = "system" | "light" | "dark";

const KEY = "twintrack";

interface Settings {
  theme: Theme;
  show: Show;
}

const DEFAULTS: Settings = {
  theme: "system",
  show: { boxes: true, names: true, trails: true, shapes: true },
};

function read(): Settings {
  try {
    const stored = JSON.parse(localStorage.getItem(KEY) ?? "{}") as Partial<Settings>;
    const theme = stored.theme === "light" || stored.theme === "dark" ? stored.theme : "system";
    return { theme, show: { ...DEFAULTS.show, ...stored.show } };
  } catch {
    return DEFAULTS;
  }
}

export const settings = new Value<Settings>(read());

/** Changes some settings. They are lost with the page if the browser stores nothing. */
export function change(some: Partial<Settings>): void {
  settings.set({ ...settings.get(), ...some });
  try {
    localStorage.setItem(KEY, JSON.stringify(settings.get()));
  } catch {
    // Storage is forbidden or full.
  }
  applyTheme();
}

/** Lets the style sheet know the theme; index.html does the same before anything is painted. */
export function applyTheme(): void {
  const { theme } = settings.get();
  if (theme === "system") delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = theme;
}
