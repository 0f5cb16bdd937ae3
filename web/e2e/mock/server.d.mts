export interface Mock {
  world: { step: number; until: number; files: Map<string, { text: string; time: number }>; history: Map<string, unknown>; sockets: Map<string, { drop(): void; open: boolean }>; sent: [string, unknown][]; pending: unknown[]; running?: { id: string } };
  port: number;
  url: string;
  close(): void;
}
export function start(options?: { port?: number; step?: number }): Promise<Mock>;
