/** Requests to the HTTP API. Errors are the problem details of RFC 9457 that the gateway sends. */

import type { components } from "./schema";

/** Answers have all fields; the schemas call those with a default optional, since requests may omit them. */
type Complete<T> = T extends (infer U)[] ? Complete<U>[] : T extends object ? { [K in keyof T]-?: Complete<T[K]> } : T;

type All = components["schemas"];
export type Schemas = { [K in keyof All]: Complete<All[K]> };

export class Problem extends Error {
  constructor(
    readonly status: number,
    title: string,
    readonly detail: string,
    readonly errors: { field: string; message: string }[] = [],
  ) {
    super(title);
  }
}

type Query = Record<string, string | number | boolean | readonly string[] | null | undefined>;

interface Options {
  query?: Query | undefined;
  body?: unknown;
  headers?: Record<string, string>;
  signal?: AbortSignal | undefined;
}

const PROJECT_KEY = "penstock.project";
export const DEFAULT_PROJECT = "default";

export function currentProject(): string {
  return localStorage.getItem(PROJECT_KEY) ?? DEFAULT_PROJECT;
}

export function setProject(name: string): void {
  localStorage.setItem(PROJECT_KEY, name);
}

export function address(path: string, query?: Query): string {
  const search = new URLSearchParams();
  for (const [name, value] of Object.entries(query ?? {})) {
    if (value === null || value === undefined || value === "") continue;
    if (Array.isArray(value)) for (const one of value as string[]) search.append(name, one);
    else search.set(name, String(value));
  }
  const text = search.toString();
  return text ? `${path}?${text}` : path;
}

export function projectHeaders(): Record<string, string> {
  const project = currentProject();
  return project === DEFAULT_PROJECT ? {} : { "penstock-project": project };
}

/** Send a request and return the decoded JSON; an empty answer is undefined. */
export async function request<T>(method: string, path: string, options: Options = {}): Promise<T> {
  const headers: Record<string, string> = { ...projectHeaders(), ...options.headers };
  const init: RequestInit = { method, headers, credentials: "same-origin" };
  if (options.signal) init.signal = options.signal;
  if (options.body !== undefined) {
    headers["content-type"] = "application/json";
    init.body = JSON.stringify(options.body);
  }
  let response: Response;
  try {
    response = await fetch(address(path, options.query), init);
  } catch (error) {
    if (options.signal?.aborted) throw error;
    throw new Problem(0, "The platform does not answer", "Is it running? Start it with penstock up.");
  }
  if (!response.ok) throw await problemOf(response);
  const text = await response.text();
  return (text ? JSON.parse(text) : undefined) as T;
}

export async function problemOf(response: Response): Promise<Problem> {
  try {
    const found = (await response.json()) as {
      title?: string;
      detail?: string;
      errors?: { field: string; message: string }[];
    };
    return new Problem(response.status, found.title ?? response.statusText, found.detail ?? "", found.errors ?? []);
  } catch {
    return new Problem(response.status, response.statusText || `Status ${response.status}`, "");
  }
}

export const get = <T>(path: string, query?: Query, signal?: AbortSignal) => request<T>("GET", path, { query, signal });
export const post = <T>(path: string, body?: unknown, headers?: Record<string, string>) =>
  request<T>("POST", path, { body, ...(headers ? { headers } : {}) });

/** A key with which a repeated request has one effect. */
export function idempotencyKey(): string {
  return Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, "0")).join("");
}
