import { createRootRoute, createRoute, createRouter, lazyRouteComponent } from "@tanstack/react-router";

import { Frame } from "./frame";
import { Deployments } from "./pages/deployments";
import { Models } from "./pages/models";
import { Overview } from "./pages/overview";
import { Pipelines } from "./pages/pipelines";
import { Questions } from "./pages/questions";
import { Runs } from "./pages/runs";
import { System } from "./pages/system";
import { Empty } from "./ui/kit";

export interface RunsSearch {
  pipeline?: string | undefined;
  state?: string | undefined;
  label?: string | undefined;
  metric?: string | undefined;
  sort?: string | undefined;
}

export interface RunPageSearch {
  step?: string | undefined;
  view?: string | undefined;
}

/** Only texts, under the names that a page knows. */
function texts<T extends object>(names: (keyof T & string)[]) {
  return (search: Record<string, unknown>): T =>
    Object.fromEntries(
      names.flatMap((name) => {
        const value = search[name];
        return typeof value === "string" && value ? [[name, value]] : [];
      }),
    ) as T;
}

const root = createRootRoute({
  component: Frame,
  notFoundComponent: () => <Empty>There is no such page.</Empty>,
});

const overview = createRoute({ getParentRoute: () => root, path: "/", component: Overview });
const runs = createRoute({
  getParentRoute: () => root,
  path: "/runs",
  component: Runs,
  validateSearch: texts<RunsSearch>(["pipeline", "state", "label", "metric", "sort"]),
});
const run = createRoute({
  getParentRoute: () => root,
  path: "/runs/$runId",
  component: lazyRouteComponent(() => import("./run/page"), "RunPage"),
  validateSearch: texts<RunPageSearch>(["step", "view"]),
});
const pipelines = createRoute({ getParentRoute: () => root, path: "/pipelines", component: Pipelines });
const deployments = createRoute({ getParentRoute: () => root, path: "/deployments", component: Deployments });
const models = createRoute({ getParentRoute: () => root, path: "/models", component: Models });
const questions = createRoute({ getParentRoute: () => root, path: "/questions", component: Questions });
const system = createRoute({ getParentRoute: () => root, path: "/system", component: System });

export const router = createRouter({
  routeTree: root.addChildren([overview, runs, run, pipelines, deployments, models, questions, system]),
  basepath: "/console",
  scrollRestoration: true,
});

declare module "@tanstack/react-router" {
  interface Register {
    router: typeof router;
  }
}
