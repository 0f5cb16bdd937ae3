// Which kinds of wire fit together. Pure; the words are shown to the user when a wire is refused.

export const ANY = "*";
const MATCH = "COMFY_MATCHTYPE_V3";

/** A declared type as text: old files and declarations also have numbers, and lists of choices. */
export function typeName(type: unknown): string {
  if (typeof type === "string") return type === "" ? ANY : type;
  if (Array.isArray(type)) return "COMBO";
  return ANY;
}

function kinds(type: string): string[] {
  return type.split(",").map((kind) => kind.trim());
}

/** Whether an output may feed an input: equal, either takes anything, or two unions share a kind. */
export function fits(output: string, input: string): boolean {
  if (output === input || output === ANY || input === ANY || output === MATCH || input === MATCH) return true;
  const accepted = kinds(input);
  return accepted.includes(ANY) || kinds(output).some((kind) => kind === ANY || accepted.includes(kind));
}

/** Why an output may not feed an input, or nothing. */
export function refusal(output: string, input: string, inputName: string): string | undefined {
  return fits(output, input) ? undefined : `\`${inputName}\` takes ${input}, this is ${output}`;
}

/** Colours that people know from elsewhere; all other kinds get one from their name. */
const KNOWN: Record<string, string> = {
  MODEL: "#b39ddb", CLIP: "#ffd54f", VAE: "#ff6e6e", CONDITIONING: "#ffa931", LATENT: "#ff9cf9", IMAGE: "#64b5f6",
  MASK: "#81c784", CONTROL_NET: "#6ee7b7", CLIP_VISION: "#a8dadc", STYLE_MODEL: "#c2ffae", INT: "#7dcf8f",
  FLOAT: "#8fd6a0", STRING: "#9fb4d0", BOOLEAN: "#d0a39f", COMBO: "#a9b0bd", NOISE: "#b0b0b0", SIGMAS: "#cdffcd",
  SAMPLER: "#ecb4b4", GUIDER: "#66ffff", "*": "#9aa3b2",
};

/** The colour of a kind of wire. */
export function typeColor(type: string): string {
  const known = KNOWN[type];
  if (known) return known;
  let hash = 2166136261;
  for (const character of type) hash = Math.imul(hash ^ character.charCodeAt(0), 16777619);
  return `hsl(${(hash >>> 0) % 360} 62% 66%)`;
}
