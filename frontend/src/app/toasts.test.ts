import { describe, expect, it } from "vitest";
import { added, MOST, removed, type Toast } from "./toasts";

const toast = (id: number, message: string, tone: Toast["tone"] = "bad") => ({ id, tone, message, details: null, action: null });

describe("toasts", () => {
  it("count what repeats instead of piling up", () => {
    const list = added(added([], toast(1, "gone")), toast(2, "gone"));
    expect(list).toEqual([{ ...toast(1, "gone"), count: 2 }]);
    expect(added(list, toast(3, "gone", "ok"))).toHaveLength(2);
  });

  it("are never more than three, the newest kept", () => {
    const list = ["a", "b", "c", "d"].reduce<Toast[]>((all, message, id) => added(all, toast(id, message)), []);
    expect(list).toHaveLength(MOST);
    expect(list.map((t) => t.message)).toEqual(["b", "c", "d"]);
  });

  it("go one by one", () => {
    const list = added(added([], toast(1, "a")), toast(2, "b"));
    expect(removed(list, 1).map((t) => t.id)).toEqual([2]);
  });
});
