/** Times, durations, sizes and values as text. */

const UNITS = ["B", "kB", "MB", "GB", "TB"] as const;

/** Such as `20 ms`, `1.05 s`, `3 min 20 s`, `2 h 5 min`. */
export function duration(seconds: number | null | undefined): string {
  if (seconds === null || seconds === undefined) return "";
  if (seconds < 0.0995) return `${Math.round(seconds * 1000)} ms`;
  if (seconds < 9.995) return `${seconds.toFixed(2)} s`;
  if (seconds < 59.95) return `${seconds.toFixed(1)} s`;
  const whole = Math.round(seconds);
  const hours = Math.floor(whole / 3600);
  const minutes = Math.floor((whole % 3600) / 60);
  if (hours >= 48) return `${Math.floor(hours / 24)} d ${hours % 24} h`;
  return hours ? `${hours} h ${minutes} min` : `${minutes} min ${whole % 60} s`;
}

/** A duration that is known to the second, or has been chosen by a person: `30 s`, and not `30.0 s`. */
export function interval(seconds: number): string {
  return seconds < 60 && Number.isInteger(seconds) ? `${seconds} s` : duration(seconds);
}

export function bytes(size: number): string {
  let unit = 0;
  while (size >= 999.5 && unit < UNITS.length - 1) {
    size /= 1000;
    unit += 1;
  }
  return `${unit === 0 || size >= 99.5 ? Math.round(size) : size.toFixed(1)} ${UNITS[unit]}`;
}

/** Such as `12 s ago`; a date after a week. */
export function ago(at: number, now: number): string {
  const seconds = Math.max(0, now - at);
  if (seconds < 60) return `${Math.floor(seconds)} s ago`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min ago`;
  if (seconds < 86_400) return `${Math.floor(seconds / 3600)} h ago`;
  if (seconds < 7 * 86_400) return `${Math.floor(seconds / 86_400)} d ago`;
  return new Date(at * 1000).toLocaleDateString();
}

/** Such as `in 3 min`. */
export function until(at: number, now: number): string {
  const seconds = at - now;
  return seconds <= 0 ? "now" : `in ${interval(Math.max(1, Math.round(seconds)))}`;
}

/** The exact time, in the zone of the reader and in UTC. */
export function exact(at: number): string {
  const date = new Date(at * 1000);
  const zone = Intl.DateTimeFormat().resolvedOptions().timeZone;
  return `${date.toLocaleString()} (${zone})\n${date.toISOString()}`;
}

/** A traceback with paths in the source of the version, and not in the folder where an executor has unpacked it. */
export function shortened(traceback: string): string {
  return traceback.replace(/(?<=File ")[^"]*\/sources\/[0-9a-f]{64}\//g, "");
}

/** A number with at most four significant digits. */
export function number(value: number): string {
  if (Number.isInteger(value)) return value.toLocaleString("en");
  return Math.abs(value) >= 1e5 || Math.abs(value) < 1e-3 ? value.toExponential(3) : String(Number(value.toPrecision(4)));
}

/** A value of the SDK's encoding on one line. */
export function inline(value: unknown, limit = 120): string {
  const text = typeof value === "string" ? value : (JSON.stringify(value) ?? "");
  return text.length > limit ? `${text.slice(0, limit - 1)}…` : text;
}
