/** A platform on this machine, started by the command as users do, and a browser. */

import { execFile, execFileSync } from "node:child_process";
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { promisify } from "node:util";

import { type Browser, type Page, chromium } from "playwright-core";

const BIN = resolve(import.meta.dirname, "../../../.venv/bin/penstock");
const BROWSERS = ["/usr/bin/chromium", "/usr/bin/chromium-browser", "/usr/bin/google-chrome"];

export function findBrowser(): string | undefined {
  return process.env["PENSTOCK_BROWSER"] ?? BROWSERS.find(existsSync);
}

export function openBrowser(): Promise<Browser> {
  const args = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"];
  return chromium.launch({ executablePath: findBrowser() ?? "", args });
}

export class Platform {
  readonly folder = mkdtempSync(join(tmpdir(), "penstock-console-"));
  private readonly env = {
    PATH: process.env["PATH"] ?? "",
    HOME: this.folder,
    LANG: "C.UTF-8",
    PENSTOCK_IDLE: "600",
    // The same address after a restart, as for a page that stays open.
    PENSTOCK_PORT: String(20_000 + Math.floor(Math.random() * 10_000)),
  };

  write(name: string, text: string): void {
    writeFileSync(join(this.folder, name), text);
  }

  /** Run a command; returns what it printed, also if it failed. */
  async penstock(...args: string[]): Promise<string> {
    const options = { cwd: this.folder, env: this.env, timeout: 120_000 };
    try {
      return (await promisify(execFile)(BIN, args, options)).stdout;
    } catch (error) {
      const failed = error as { stdout?: string; stderr?: string };
      return `${failed.stdout ?? ""}${failed.stderr ?? ""}`;
    }
  }

  get url(): string {
    return this.state().url;
  }

  get token(): string {
    return readFileSync(join(this.folder, ".penstock/token"), "utf8").trim();
  }

  private state(): { url: string; pid: number } {
    return JSON.parse(readFileSync(join(this.folder, ".penstock/platform.json"), "utf8"));
  }

  kill(): void {
    process.kill(this.state().pid, "SIGKILL");
  }

  async request<T>(path: string): Promise<T> {
    const response = await fetch(this.url + path, { headers: { authorization: `Bearer ${this.token}` } });
    return (await response.json()) as T;
  }

  close(): void {
    try {
      execFileSync(BIN, ["down"], { cwd: this.folder, env: this.env, timeout: 60_000 });
    } finally {
      rmSync(this.folder, { recursive: true, force: true });
    }
  }
}

/** A page that is signed in; errors in it are collected. */
export async function signedIn(browser: Browser, platform: Platform, options = {}): Promise<{ page: Page; errors: string[] }> {
  const page = await browser.newPage({ viewport: { width: 1400, height: 900 }, ...options });
  const errors: string[] = [];
  page.on("pageerror", (error) => errors.push(error.message));
  page.on("console", (message) => {
    if (message.type() === "error" && !message.text().startsWith("Failed to load resource")) errors.push(message.text());
  });
  await page.goto(`${platform.url}/console/#token=${platform.token}`);
  await page.getByRole("heading", { name: "Overview" }).waitFor();
  return { page, errors };
}
