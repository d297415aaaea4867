import { describe, expect, it } from "vitest";
import { decide, type Key } from "./shortcuts";

const press = (key: string, more: Partial<Key> = {}): Key => ({
  key,
  control: false,
  shift: false,
  alt: false,
  typing: false,
  modal: false,
  ...more,
});
const command = (key: Key, chordPending = false, singleKeys = true) => decide(key, chordPending, singleKeys).command;

describe("shortcuts", () => {
  it("go to pages with g and a letter", () => {
    expect(decide(press("g"), false, true)).toEqual({ command: null, chordPending: true });
    expect(["d", "m", "c"].map((key) => command(press(key), true))).toEqual([{ go: "dashboard" }, { go: "models" }, { go: "chat" }]);
    expect(command(press("x"), true)).toBeNull();
    expect(command(press("d"))).toBeNull();
  });

  it("leave letters to text fields, but not Ctrl+B", () => {
    expect(command(press("t", { typing: true }))).toBeNull();
    expect(decide(press("g", { typing: true }), false, true).chordPending).toBe(false);
    expect(command(press("b", { control: true, typing: true }))).toBe("sidebar");
  });

  it("can be switched off, but for those with Ctrl", () => {
    expect(command(press("t"), false, false)).toBeNull();
    expect(command(press("?", { shift: true }), false, false)).toBeNull();
    expect(command(press("O", { control: true, shift: true }), false, false)).toBe("newChat");
  });

  it("are silent below a dialog and for the browser's own combinations", () => {
    expect(command(press("t", { modal: true }))).toBeNull();
    expect(command(press("d", { alt: true }), true)).toBeNull();
    expect(command(press("t", { control: true }))).toBeNull();
  });
});
