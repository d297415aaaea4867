import { bytes } from "../../domain/format";
import type { MemoryReport, MemoryUse } from "../../live/protocol.gen";
import { text as t } from "./text";

type Amount = Pick<MemoryUse, "host_bytes" | "gpu_bytes">;


/** One line about a model's memory: the estimate before a load, the measurement beside the estimate while it is loaded. */
export function memoryLine(report: MemoryReport): string {
  const measured = measuredUse(report);
  if (measured) return t.takes(amount(measured), amount(report.use));
  return t.needs(amount(report.use), t.fits[report.fits]);
}

/** Options that would make the model fit, as on the command line. */
export function remedies(report: MemoryReport): string[] {
  return report.alternatives.map((options) =>
    Object.entries(options)
      .map(([name, value]) => `--${name} ${value}`)
      .join(" "),
  );
}

/** The engine's own count or the measurement of the process, whichever is more; null while no process runs. */
function measuredUse({ counted, measured_host_bytes, measured_gpu_bytes }: MemoryReport): Amount | null {
  if (measured_host_bytes === null && counted === null) return null;
  return {
    host_bytes: Math.max(counted?.host_bytes ?? 0, measured_host_bytes ?? 0),
    gpu_bytes: Math.max(counted?.gpu_bytes ?? 0, measured_gpu_bytes ?? 0),
  };
}

function amount({ host_bytes, gpu_bytes }: Amount): string {
  return gpu_bytes ? t.onGpu(bytes(host_bytes), bytes(gpu_bytes)) : bytes(host_bytes);
}
