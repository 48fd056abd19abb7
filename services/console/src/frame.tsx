/** The frame around all pages: sign-in, navigation, keys. */

import { useQuery, useQueryClient } from "@tanstack/react-query";
import { Link, Outlet, useNavigate } from "@tanstack/react-router";
import { type FormEvent, useEffect, useRef, useState } from "react";

import { Problem, currentProject, request } from "./api/client";
import { questions, useLiveLists, whoami } from "./api/queries";
import { Load, ProblemBox } from "./ui/kit";
import { THEMES, type Theme, applyTheme, theme } from "./ui/theme";

const PAGES = [
  { to: "/", name: "Overview", key: "o" },
  { to: "/runs", name: "Runs", key: "r" },
  { to: "/pipelines", name: "Pipelines", key: "p" },
  { to: "/deployments", name: "Deployments", key: "d" },
  { to: "/models", name: "Models", key: "m" },
  { to: "/questions", name: "Questions", key: "q" },
  { to: "/system", name: "System", key: "s" },
] as const;

export function Frame() {
  const who = useQuery(whoami());
  if (who.error instanceof Problem && who.error.status === 401) return <SignIn />;
  return <Load query={who}>{(found) => <Pages principal={found.principal} />}</Load>;
}

function Pages({ principal }: { principal: string }) {
  const connection = useLiveLists();
  const waiting = useQuery(questions());
  const [help, setHelp] = useState(false);
  useKeys(() => setHelp(true));
  const count = waiting.data?.questions.length ?? 0;
  return (
    <div className="frame">
      <aside className="side">
        <Link to="/" className="brand">
          <img src="/console/icon.svg" alt="" /> Penstock
        </Link>
        <nav aria-label="Pages">
          {PAGES.map((page) => (
            <Link key={page.to} to={page.to} activeOptions={{ exact: page.to === "/" }} activeProps={{ className: "active" }}>
              {page.name}{" "}
              {page.to === "/questions" && count > 0 && <span className="count">{count}</span>}
            </Link>
          ))}
        </nav>
        <footer>
          <span className={`live ${connection}`} role="status">
            {connection === "open" ? "live" : "connecting"}
          </span>
          <span>
            {principal} in {currentProject()}
          </span>
          <ThemeChoice />
          <SignOut />
        </footer>
      </aside>
      <main className="main">
        <Outlet />
      </main>
      {help && <Help onClose={() => setHelp(false)} />}
    </div>
  );
}

function ThemeChoice() {
  const [chosen, setChosen] = useState(theme());
  return (
    <label>
      <span className="hidden">Colours</span>
      <select
        value={chosen}
        onChange={(event) => {
          const next = event.target.value as Theme;
          applyTheme(next);
          setChosen(next);
        }}
      >
        {THEMES.map((one) => (
          <option key={one} value={one}>
            {one === "system" ? "system colours" : one}
          </option>
        ))}
      </select>
    </label>
  );
}

function SignOut() {
  const cache = useQueryClient();
  return (
    <button type="button" onClick={() => void request("DELETE", "/v1/session").finally(() => cache.resetQueries())}>
      Sign out
    </button>
  );
}

function SignIn() {
  const cache = useQueryClient();
  const [error, setError] = useState<unknown>();
  const [busy, setBusy] = useState(false);
  const send = (token: string) => {
    setBusy(true);
    setError(undefined);
    request("POST", "/v1/session", { headers: { authorization: `Bearer ${token}` } })
      .then(() => cache.resetQueries())
      .catch(setError)
      .finally(() => setBusy(false));
  };
  const started = useRef(false);
  useEffect(() => {
    // `penstock console` opens the page with the token behind the #, which no server sees.
    const token = new URLSearchParams(location.hash.slice(1)).get("token");
    if (!token || started.current) return;
    started.current = true;
    history.replaceState(history.state, "", location.pathname + location.search);
    send(token);
  });
  const submit = (event: FormEvent<HTMLFormElement>) => {
    event.preventDefault();
    send(String(new FormData(event.currentTarget).get("token") ?? "").trim());
  };
  return (
    <main className="sign-in">
      <div className="brand">
        <img src="/console/icon.svg" alt="" /> Penstock
      </div>
      <h1>Sign in</h1>
      <form onSubmit={submit}>
        <label className="field">
          <span>
            Token: on your machine, the file <code>token</code> of the state folder, <code>.penstock</code>; on others, one of{" "}
            <code>penstock tokens create</code>
          </span>
          <input name="token" type="password" autoComplete="current-password" required autoFocus />
        </label>
        <button className="primary" disabled={busy}>
          Sign in
        </button>
      </form>
      {error !== undefined && <ProblemBox error={error} />}
      <p className="soft">
        <code>penstock console</code> opens this page and signs you in.
      </p>
    </main>
  );
}

function useKeys(showHelp: () => void): void {
  const navigate = useNavigate();
  useEffect(() => {
    let after = "";
    const press = (event: KeyboardEvent) => {
      const target = event.target as HTMLElement;
      if (event.metaKey || event.ctrlKey || event.altKey || /^(INPUT|TEXTAREA|SELECT)$/.test(target.tagName)) return;
      if (event.key === "?") showHelp();
      else if (event.key === "/") {
        const search = document.querySelector<HTMLInputElement>("[data-search]");
        if (search) {
          event.preventDefault();
          search.focus();
        }
      } else if (after === "g") {
        const page = PAGES.find((one) => one.key === event.key);
        if (page) void navigate({ to: page.to });
      }
      after = event.key;
    };
    addEventListener("keydown", press);
    return () => removeEventListener("keydown", press);
  }, [navigate, showHelp]);
}

function Help({ onClose }: { onClose: () => void }) {
  const dialog = useRef<HTMLDialogElement>(null);
  useEffect(() => dialog.current?.showModal(), []);
  return (
    <dialog ref={dialog} onClose={onClose} aria-labelledby="help-title">
      <h1 id="help-title">Keys</h1>
      <table>
        <tbody>
          {PAGES.map((page) => (
            <tr key={page.key}>
              <td>
                <kbd>g {page.key}</kbd>
              </td>
              <td>go to {page.name}</td>
            </tr>
          ))}
          <tr>
            <td>
              <kbd>/</kbd>
            </td>
            <td>search on this page</td>
          </tr>
        </tbody>
      </table>
      <menu>
        <button type="button" onClick={() => dialog.current?.close()}>
          Close
        </button>
      </menu>
    </dialog>
  );
}
