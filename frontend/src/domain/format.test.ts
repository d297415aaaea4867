import { describe, expect, it } from "vitest";
import { ago, bytes, duration, integer, parameters, percent, rate, span } from "./format";

describe("unknown values", () => {
  it("are a dash, never zero", () => {
    for (const format of [bytes, parameters, integer, percent, rate, duration, span]) {
      expect(format(null)).toBe("–");
      expect(format(Number.NaN)).toBe("–");
      expect(format(0)).not.toBe("–");
    }
    expect(ago(null, 0)).toBe("–");
  });
});

describe("bytes", () => {
  it.each([
    [0, "0 B"],
    [1023, "1.00 KiB"],
    [1536, "1.50 KiB"],
    [4.37 * 1024 ** 3, "4.37 GiB"],
    [44 * 1024 ** 2, "44.0 MiB"],
    [1023.9 * 1024 ** 2, "1.00 GiB"],
  ])("%d is %s", (value, shown) => expect(bytes(value)).toBe(shown));
});

describe("parameters", () => {
  it.each([
    [7_620_000_000, "7.62 B"],
    [135_000_000, "135 M"],
    [512, "512"],
  ])("%d is %s", (value, shown) => expect(parameters(value)).toBe(shown));
});

describe("durations", () => {
  it.each([
    [420, "420 ms"],
    [999.7, "1.00 s"],
    [1240, "1.24 s"],
    [59_970, "59 s"],
    [184_000, "3 min 04 s"],
    [7_500_000, "2 h 05 min"],
    [273_600_000, "3 d 4 h"],
  ])("%d ms is %s", (value, shown) => expect(duration(value)).toBe(shown));
});

describe("ago", () => {
  it("grows from now to days", () => {
    const now = 1_000_000_000;
    expect(ago(now - 2000, now)).toBe("now");
    expect(ago(now - 30_000, now)).toBe("30s ago");
    expect(ago(now - 5 * 60_000, now)).toBe("5m ago");
    expect(ago(now - 3 * 3_600_000, now)).toBe("3h ago");
    expect(ago(now - 50 * 3_600_000, now)).toBe("2d ago");
  });
  it("never speaks of the future when the clocks of server and browser differ", () => {
    expect(ago(5000, 0)).toBe("now");
  });
});
