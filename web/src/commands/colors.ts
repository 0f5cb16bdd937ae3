/** Colours of ComfyUI's palette, slightly calmer. */
export const COLORS: readonly [string, string | undefined][] = [
  ["none", undefined], ["red", "#7a3434"], ["brown", "#6b4a35"], ["green", "#36613d"], ["blue", "#354f7c"], ["cyan", "#2f6468"], ["purple", "#5b3f74"], ["yellow", "#71672f"], ["black", "#222226"],
];
