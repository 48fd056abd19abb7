/** What the pages read, cached and kept live. */

import { QueryClient, queryOptions, useQueryClient } from "@tanstack/react-query";
import { useEffect, useState } from "react";

import { Problem, type Schemas, get } from "./client";
import { type Connection, follow } from "./stream";

export type RunView = Schemas["RunView"];
export type StepView = Schemas["StepView"];
export type StepDetail = Schemas["StepDetail"];
export type RunSummary = Schemas["RunPage"]["runs"][number];

export const FINAL = new Set(["succeeded", "failed", "cancelled", "skipped"]);

export const client = new QueryClient({
  defaultOptions: {
    queries: {
      staleTime: 2_000,
      retry: (count, error) => count < 3 && !(error instanceof Problem && error.status >= 400 && error.status < 500),
      refetchOnWindowFocus: true,
    },
  },
});

export interface RunFilter {
  pipeline?: string | undefined;
  state?: string | undefined;
  deployment?: string | undefined;
  label?: string[] | undefined;
  metric?: string[] | undefined;
  sort?: string | undefined;
  limit?: number | undefined;
  cursor?: string | undefined;
}

export const whoami = () =>
  queryOptions({ queryKey: ["whoami"], queryFn: () => get<Schemas["WhoAmI"]>("/v1/whoami"), retry: false });

export const platform = () =>
  queryOptions({ queryKey: ["platform"], queryFn: () => get<Schemas["PlatformView"]>("/v1/platform") });

export const runs = (filter: RunFilter) =>
  queryOptions({
    queryKey: ["runs", filter],
    queryFn: ({ signal }) => get<Schemas["RunPage"]>("/v1/runs", { ...filter }, signal),
    placeholderData: (known) => known,
  });

export const run = (runId: string) =>
  queryOptions({ queryKey: ["run", runId], queryFn: ({ signal }) => get<RunView>(runPath(runId), {}, signal) });

export const step = (runId: string, key: string) =>
  queryOptions({
    queryKey: ["run", runId, "step", key],
    queryFn: ({ signal }) => get<StepDetail>(`${runPath(runId)}/step`, { step: key }, signal),
  });

export const items = (runId: string, key: string, state: string | undefined, after: number) =>
  queryOptions({
    queryKey: ["run", runId, "items", key, state, after],
    queryFn: ({ signal }) =>
      get<Schemas["ItemPage"]>(`${runPath(runId)}/items`, { step: key, state, after, limit: 100 }, signal),
    placeholderData: (known) => known,
  });

export const reasons = (runId: string) =>
  queryOptions({
    queryKey: ["run", runId, "explain"],
    queryFn: ({ signal }) => get<Schemas["RunReasons"]>(`${runPath(runId)}/explain`, {}, signal),
  });

export const seriesNames = (runId: string) =>
  queryOptions({
    queryKey: ["run", runId, "series"],
    queryFn: ({ signal }) => get<Schemas["SeriesPage"]>(`${runPath(runId)}/metrics`, {}, signal),
  });

export const series = (runId: string, name: string) =>
  queryOptions({
    queryKey: ["run", runId, "series", name],
    queryFn: ({ signal }) => get<Schemas["SeriesPage"]>(`${runPath(runId)}/metrics`, { name, points: 500 }, signal),
  });

export const versions = (pipeline?: string) =>
  queryOptions({
    queryKey: ["versions", pipeline ?? ""],
    queryFn: () => get<Schemas["VersionList"]>("/v1/versions", { pipeline }),
  });

export const version = (pipeline: string, number: number) =>
  queryOptions({
    queryKey: ["version", pipeline, number],
    queryFn: () => get<Schemas["VersionView"]>(`/v1/versions/${encodeURIComponent(pipeline)}/${number}`),
    staleTime: Infinity,
  });

export const deployments = () =>
  queryOptions({ queryKey: ["deployments"], queryFn: () => get<Schemas["DeploymentList"]>("/v1/deployments") });

export const models = () =>
  queryOptions({ queryKey: ["models"], queryFn: () => get<Schemas["ModelList"]>("/v1/models") });

export const model = (name: string) =>
  queryOptions({
    queryKey: ["model", name],
    queryFn: () => get<Schemas["ModelView"]>(`/v1/models/${encodeURIComponent(name)}`),
  });

export const questions = () =>
  queryOptions({
    queryKey: ["questions"],
    queryFn: () => get<Schemas["QuestionList"]>("/v1/questions", { limit: 100 }),
  });

export const limits = () =>
  queryOptions({ queryKey: ["limits"], queryFn: () => get<Schemas["LimitList"]>("/v1/limits") });

export function runPath(runId: string): string {
  return `/v1/runs/${encodeURIComponent(runId)}`;
}

const REFRESH = 400;

/** Read a run again whenever a fact of it arrives, at most every 400 ms, until it has finished. */
export function useLiveRun(runId: string, known: RunView | undefined): Connection | "done" {
  const cache = useQueryClient();
  const [connection, setConnection] = useState<Connection | "done">("connecting");
  const finished = known !== undefined && FINAL.has(known.state);
  const loaded = known !== undefined;
  useEffect(() => {
    if (!loaded || finished) {
      if (finished) setConnection("done");
      return;
    }
    const stop = new AbortController();
    let timer: ReturnType<typeof setTimeout> | undefined;
    let over = false;
    const refresh = () => {
      timer ??= setTimeout(() => {
        timer = undefined;
        void cache.invalidateQueries({ queryKey: ["run", runId] });
      }, REFRESH);
    };
    const lastSeq = cache.getQueryData<RunView>(["run", runId])?.last_seq;
    void follow(
      `${runPath(runId)}/events`,
      {},
      {
        onEvents: (events) => {
          over ||= events.some((one) => one.event === "run.finished");
          refresh();
        },
        onConnection: setConnection,
        isDone: () => over,
      },
      stop.signal,
      lastSeq === undefined ? "" : String(lastSeq),
    );
    return () => {
      stop.abort();
      clearTimeout(timer);
    };
  }, [cache, runId, loaded, finished]);
  return connection;
}

/** Read lists again when a run anywhere in the project begins, ends or waits. */
export function useLiveLists(): Connection {
  const cache = useQueryClient();
  const [connection, setConnection] = useState<Connection>("connecting");
  useEffect(() => {
    const stop = new AbortController();
    let timer: ReturnType<typeof setTimeout> | undefined;
    const refresh = () => {
      timer ??= setTimeout(() => {
        timer = undefined;
        for (const name of ["runs", "questions", "deployments", "limits"]) {
          void cache.invalidateQueries({ queryKey: [name] });
        }
      }, REFRESH);
    };
    const connected = (now: Connection) => {
      setConnection(now);
      if (now === "open") refresh(); // something may have changed before
    };
    void follow("/v1/runs/changes", {}, { onEvents: refresh, onConnection: connected }, stop.signal);
    return () => {
      stop.abort();
      clearTimeout(timer);
    };
  }, [cache]);
  return connection;
}
