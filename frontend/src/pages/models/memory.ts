import { bytes } from "../../domain/format";
import type { MemoryReport, MemoryUse } from "../../live/protocol.gen";
import { text } from "../../app/strings";

type Amount = Pick<MemoryUse, "host_bytes" | "gpu_bytes">;

const t = text.models;

/** One line about a model's memory: what a load would take, or what it takes beside what was expected. */
export function memoryLine(report: MemoryReport): string {
  const measured = taken(report);
  if (measured) return t.takes(amount(measured), amount(report.use));
  return t.needs(amount(report.use), t.fits[report.fits]);
}

/** Settings that would make it fit, as one types them. */
export function remedies(report: MemoryReport): string[] {
  return report.alternatives.map((options) =>
    Object.entries(options)
      .map(([name, value]) => `--${name} ${value}`)
      .join(" "),
  );
}

/** As the engine counts, or as the process is measured, whichever is more; null while none runs. */
function taken({ counted, measured_host_bytes, measured_gpu_bytes }: MemoryReport): Amount | null {
  if (measured_host_bytes === null && counted === null) return null;
  return {
    host_bytes: Math.max(counted?.host_bytes ?? 0, measured_host_bytes ?? 0),
    gpu_bytes: Math.max(counted?.gpu_bytes ?? 0, measured_gpu_bytes ?? 0),
  };
}

function amount({ host_bytes, gpu_bytes }: Amount): string {
  return gpu_bytes ? t.onGpu(bytes(host_bytes), bytes(gpu_bytes)) : bytes(host_bytes);
}
