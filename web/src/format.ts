// Texts for numbers and times.

/** A duration in seconds: "4.2 s", "3 min 20 s", "2 h 5 min". */
export function duration(seconds: number): string {
  if (seconds < 60) return `${seconds < 10 ? seconds.toFixed(1) : Math.round(seconds)} s`;
  const whole = Math.round(seconds);
  const [h, m, s] = [Math.floor(whole / 3600), Math.floor((whole % 3600) / 60), whole % 60];
  const parts = h > 0 ? [`${h} h`, m && `${m} min`] : [`${m} min`, s && `${s} s`];
  return parts.filter(Boolean).join(" ");
}

const two = (n: number) => String(n).padStart(2, "0");

/** Date and time of this machine's zone: "2026-11-27 18:05:09". */
export function moment(time: string): string {
  const at = new Date(time);
  if (Number.isNaN(at.getTime())) return time;
  return `${day(at)} ${clock(time)}`;
}

/** Time of day of this machine's zone: "18:05:09". */
export function clock(time: string): string {
  const at = new Date(time);
  return `${two(at.getHours())}:${two(at.getMinutes())}:${two(at.getSeconds())}`;
}

const day = (at: Date) => `${at.getFullYear()}-${two(at.getMonth() + 1)}-${two(at.getDate())}`;

/** The value of an input of type datetime-local as RFC 3339 (UTC); undefined if it is empty. */
export function fromLocal(value: string): string | undefined {
  const at = new Date(value);
  return value && !Number.isNaN(at.getTime()) ? at.toISOString() : undefined;
}

/** The value of an input of type datetime-local for a time. */
export function toLocal(time: Date): string {
  return `${day(time)}T${two(time.getHours())}:${two(time.getMinutes())}`;
}

/** "1 track", "2 tracks". */
export function count(n: number, one: string, many = `${one}s`): string {
  return `${n} ${n === 1 ? one : many}`;
}

/** A share as a percentage: "87 %". */
export function percent(share: number): string {
  return `${Math.round(100 * share)} %`;
}
