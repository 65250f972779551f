// What is painted over live pictures.

import type { Show } from "../draw/scene";
import { change, settings } from "../settings";
import { useValue } from "../store";

const SWITCHES: [keyof Show, string][] = [
  ["boxes", "Boxes"],
  ["names", "Names"],
  ["trails", "Trails"],
  ["shapes", "Zones and lines"],
];

export function ShowSwitches() {
  const { show } = useValue(settings);
  return (
    <fieldset class="switches">
      <legend class="hidden">Show in the pictures</legend>
      {SWITCHES.map(([key, text]) => (
        <label key={key}>
          <input
            type="checkbox"
            checked={show[key]}
            onChange={(e) => change({ show: { ...show, [key]: e.currentTarget.checked } })}
          />
          {text}
        </label>
      ))}
    </fieldset>
  );
}
