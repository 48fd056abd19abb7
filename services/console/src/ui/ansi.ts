/** Text with ANSI colours as styled parts. All other escape sequences are removed. */

export interface Part {
  text: string;
  className: string;
}

const COLORS = ["black", "red", "green", "yellow", "blue", "magenta", "cyan", "white"];
// eslint-disable-next-line no-control-regex
const ESCAPE = /\u001b\[([0-9;]*)m|\u001b\[[0-?]*[ -/]*[@-~]|\u001b\][^\u0007\u001b]*(?:\u0007|\u001b\\)|\u001b[@-_]|[\u0000-\u0008\u000b-\u001f\u007f]/g;

export function parts(line: string): Part[] {
  const found: Part[] = [];
  const style = { color: "", bold: false, dim: false };
  let at = 0;
  const add = (text: string) => {
    if (!text) return;
    const names = [style.color && `ansi-${style.color}`, style.bold && "ansi-bold", style.dim && "ansi-dim"];
    found.push({ text, className: names.filter(Boolean).join(" ") });
  };
  for (const match of line.matchAll(ESCAPE)) {
    add(line.slice(at, match.index));
    at = match.index + match[0].length;
    if (match[1] !== undefined) apply(match[1].split(";").map(Number), style);
  }
  add(line.slice(at));
  return found;
}

export function plain(line: string): string {
  return line.replaceAll(ESCAPE, "");
}

function apply(codes: number[], style: { color: string; bold: boolean; dim: boolean }): void {
  for (let index = 0; index < codes.length; index += 1) {
    const code = codes[index] ?? 0;
    if (code === 0) Object.assign(style, { color: "", bold: false, dim: false });
    else if (code === 1) style.bold = true;
    else if (code === 2) style.dim = true;
    else if (code === 22) Object.assign(style, { bold: false, dim: false });
    else if (code === 39) style.color = "";
    else if (code >= 30 && code <= 37) style.color = COLORS[code - 30] ?? "";
    else if (code >= 90 && code <= 97) style.color = COLORS[code - 90] ?? "";
    else if (code === 38 || code === 48) index += codes[index + 1] === 5 ? 2 : 4;
  }
}
