export function picture(seed: number, sharp?: number, texts?: Record<string, string>, size?: number): Buffer;
