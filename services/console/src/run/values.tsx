/** Inputs, outputs and artifacts: what there is of a value, with a preview on demand. */

import { useQuery } from "@tanstack/react-query";
import { useState } from "react";

import { get } from "../api/client";
import { bytes, inline } from "../ui/format";
import { ProblemBox } from "../ui/kit";

interface Artifact {
  sha256: string;
  size: number;
  media_type?: string;
  format?: string;
}

type Stored = { artifact: Artifact } | { value: unknown } | { items: unknown[] };

function artifactOf(value: unknown): Artifact | undefined {
  const found = (value as { artifact?: Artifact } | null)?.artifact;
  return typeof found?.sha256 === "string" ? found : undefined;
}

export function Values({ values, title }: { values: Record<string, unknown>; title: string }) {
  const rows = Object.entries(values);
  if (!rows.length) return null;
  return (
    <>
      <h3 className="soft">{title}</h3>
      <table>
        <tbody>
          {rows.map(([name, value]) => (
            <tr key={name}>
              <td>{name}</td>
              <td>
                <Value value={value as Stored} />
              </td>
            </tr>
          ))}
        </tbody>
      </table>
    </>
  );
}

function Value({ value }: { value: Stored }) {
  const artifact = artifactOf(value);
  if (artifact) return <ArtifactValue artifact={artifact} />;
  const shown = value && typeof value === "object" && "value" in value ? value.value : value;
  return <code>{inline(shown, 400)}</code>;
}

function ArtifactValue({ artifact }: { artifact: Artifact }) {
  const [open, setOpen] = useState(false);
  return (
    <>
      <button type="button" onClick={() => setOpen(!open)} aria-expanded={open}>
        {artifact.format ?? artifact.media_type ?? "artifact"}, {bytes(artifact.size)}
      </button>{" "}
      <a href={`/v1/artifacts/${artifact.sha256}`} download>
        download
      </a>
      {open && <Preview artifact={artifact} />}
    </>
  );
}

function Preview({ artifact }: { artifact: Artifact }) {
  const found = useQuery({
    queryKey: ["preview", artifact.sha256],
    queryFn: () => get<unknown>(`/v1/artifacts/${artifact.sha256}/preview`),
    staleTime: Infinity,
  });
  if (artifact.media_type?.startsWith("image/") && artifact.media_type !== "image/svg+xml") {
    return <img src={`/v1/artifacts/${artifact.sha256}`} alt="" style={{ maxWidth: "100%", display: "block" }} />;
  }
  if (found.error) return <ProblemBox error={found.error} />;
  return <pre className="json">{found.data === undefined ? "…" : JSON.stringify(found.data, null, 2)}</pre>;
}
