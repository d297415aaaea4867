import { describe, expect, it } from "vitest";
import type { LiveRequest, EngineSummary, ModelSummary, RequestRecord, Sample } from "../protocol.gen";
import { engine } from "./engine";
import { live } from "./live";
import { metrics, WINDOW_MS } from "./metrics";
import { models } from "./models";
import { requests } from "./requests";

const model = (id: number, name: string, status: ModelSummary["status"] = "unloaded"): ModelSummary =>
  ({ id, name, status }) as ModelSummary;
const sample = (timestamp_ms: number): Sample => ({ timestamp_ms }) as Sample;
const request = (id: string, arrived_at_ms: number): RequestRecord => ({ id, arrived_at_ms }) as RequestRecord;

describe("models", () => {
  const start = models.fromSnapshot({ models: [model(1, "qwen3-14b"), model(2, "qwen3-8b")] });

  it("are sorted as people count", () => {
    expect(start.map((m) => m.name)).toEqual(["qwen3-8b", "qwen3-14b"]);
  });

  it("change, appear and vanish in order", () => {
    const next = models.apply(start, [
      { kind: "upsert", model: model(2, "qwen3-8b", "loading") },
      { kind: "upsert", model: model(3, "gemma") },
      { kind: "upsert", model: model(2, "qwen3-8b", "ready") },
      { kind: "remove", id: 1 },
    ]);
    expect(next.map((m) => [m.id, m.status])).toEqual([
      [3, "unloaded"],
      [2, "ready"],
    ]);
    expect(start).toHaveLength(2);
  });

  it("ignore the removal of an unknown model", () => {
    expect(models.apply(start, [{ kind: "remove", id: 99 }])).toEqual(start);
  });
});

describe("engine", () => {
  it("is the last item", () => {
    const idle = { status: "idle" } as EngineSummary;
    const running = { status: "running" } as EngineSummary;
    expect(engine.apply(idle, [idle, running])).toBe(running);
    expect(engine.apply(idle, [])).toBe(idle);
  });
});

describe("live", () => {
  it("is the last list", () => {
    const [one, two] = [{ id: "1" }, { id: "2" }] as LiveRequest[];
    const start = live.fromSnapshot({ live: [one!] });
    expect(live.apply(start, [[two!, one!], [two!]])).toEqual([two]);
    expect(live.apply(start, [])).toBe(start);
  });
});

describe("metrics", () => {
  it("keep fifteen minutes", () => {
    const start = metrics.fromSnapshot({ samples: [sample(0), sample(1000)] });
    expect(metrics.apply(start, [sample(WINDOW_MS + 500)]).map((s) => s.timestamp_ms)).toEqual([1000, WINDOW_MS + 500]);
  });

  it("ignore samples older than the last one", () => {
    const start = metrics.fromSnapshot({ samples: [sample(10), sample(20)] });
    expect(metrics.apply(start, [sample(20), sample(15), sample(30)]).map((s) => s.timestamp_ms)).toEqual([10, 20, 30]);
  });
});

describe("requests", () => {
  it("are newest first, each once, at most fifty", () => {
    const start = requests.fromSnapshot({ records: [request("a", 1), request("b", 2)] });
    const next = requests.apply(start, [request("b", 2), request("c", 3)]);
    expect(next.map((r) => r.id)).toEqual(["c", "b", "a"]);
    const many = requests.apply(next, Array.from({ length: 80 }, (_, i) => request(`n${i}`, 100 + i)));
    expect(many).toHaveLength(50);
    expect(many[0]?.id).toBe("n79");
  });
});
