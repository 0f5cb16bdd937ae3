import { describe, expect, it } from "vitest";
import { type Box, boundsOf, boxAt, lineAt, seen, touches } from "./paint.ts";

const box = (id: string, x: number, y: number): Box => ({ id, x, y, width: 100, height: 50, title: id, faint: false });

describe("the view from afar", () => {
  it("finds the topmost box under the hand", () => {
    const boxes = [box("a", 0, 0), box("b", 50, 20)];
    expect(boxAt(boxes, 60, 30)?.id).toBe("b");
    expect(boxAt(boxes, 10, 10)?.id).toBe("a");
    expect(boxAt(boxes, 300, 10)).toBeUndefined();
  });

  it("finds the nearest wire, along its bend and through its points", () => {
    const lines = [
      { id: "1", color: "red", stops: [[0, 0], [400, 0]] as const },
      { id: "2", color: "red", stops: [[0, 10], [200, 200], [400, 10]] as const },
    ];
    expect(lineAt(lines, 200, 3, 9)?.id).toBe("1");
    expect(lineAt(lines, 200, 196, 9)?.id).toBe("2");
    expect(lineAt(lines, 200, 100, 9)).toBeUndefined();
    // A wire that goes back leaves to the right first.
    expect(lineAt([{ id: "3", color: "red", stops: [[0, 0], [-300, 100]] as const }], 24, 3, 4)?.id).toBe("3");
  });

  it("knows what is seen, with a margin", () => {
    expect(seen([-100, 50, 0.5], 400, 200, 0)).toEqual({ x: 200, y: -100, width: 800, height: 400 });
    expect(seen([0, 0, 1], 400, 200, 0.5)).toEqual({ x: -200, y: -100, width: 800, height: 400 });
    expect(boundsOf([box("a", 0, 0), box("b", 300, 100)], 10)).toEqual({ x: -10, y: -10, width: 420, height: 170 });
    expect(boundsOf([])).toBeUndefined();
    expect(touches(box("a", 0, 0), box("b", 99, 49))).toBe(true);
    expect(touches(box("a", 0, 0), box("b", 101, 0))).toBe(false);
  });
});
