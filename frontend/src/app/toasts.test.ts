import { describe, expect, it } from "vitest";
import { addToast, MAX_TOASTS, removeToast, type Toast } from "./toasts";

const toast = (id: number, message: string, tone: Toast["tone"] = "bad") => ({ id, tone, message, details: null, action: null });

describe("toasts", () => {
  it("count what repeats instead of piling up", () => {
    const list = addToast(addToast([], toast(1, "gone")), toast(2, "gone"));
    expect(list).toEqual([{ ...toast(1, "gone"), count: 2 }]);
    expect(addToast(list, toast(3, "gone", "ok"))).toHaveLength(2);
  });

  it("are never more than three, the newest kept", () => {
    const list = ["a", "b", "c", "d"].reduce<Toast[]>((all, message, id) => addToast(all, toast(id, message)), []);
    expect(list).toHaveLength(MAX_TOASTS);
    expect(list.map((t) => t.message)).toEqual(["b", "c", "d"]);
  });

  it("go one by one", () => {
    const list = addToast(addToast([], toast(1, "a")), toast(2, "b"));
    expect(removeToast(list, 1).map((t) => t.id)).toEqual([2]);
  });
});
