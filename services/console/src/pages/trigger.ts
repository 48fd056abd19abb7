/** Triggers of deployments in a few words, as `penstock deployments list` prints them. */

import { interval } from "../ui/format";

export interface Trigger {
  name: string;
  kind: string;
  every?: number;
  cron?: string;
  tz?: string;
  types?: string[];
  provider?: string;
  rate?: number | null;
  window?: { kind: string; seconds: number } | null;
}

export function describe(trigger: Trigger): string {
  const window = trigger.window ? ` (${trigger.window.kind} ${interval(trigger.window.seconds)})` : "";
  switch (trigger.kind) {
    case "cron":
      if (trigger.every) return `every ${interval(trigger.every)}`;
      return `cron ${trigger.cron}${trigger.tz && trigger.tz !== "UTC" ? ` ${trigger.tz}` : ""}`;
    case "event":
      return `on ${(trigger.types ?? []).join(", ")}${window}`;
    case "webhook":
      return `webhook ${trigger.provider}${window}`;
    case "endpoint":
      return trigger.rate ? `endpoint, ${trigger.rate} requests/s` : "endpoint";
    default:
      return trigger.kind;
  }
}
