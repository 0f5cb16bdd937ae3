// Finds node classes (or anything with a name) by a few letters, the likelier ones first.

/** How well a text fits what was typed; nothing when it does not. Lower is better. */
export function matchRank(query: string, text: string): number | undefined {
  const wanted = query.trim().toLowerCase();
  if (wanted === "") return 0;
  const lower = text.toLowerCase();
  if (lower === wanted) return 0;
  if (lower.startsWith(wanted)) return 1;
  const words = text.replace(/([a-z0-9])([A-Z])/g, "$1 $2").toLowerCase().split(/[^a-z0-9]+/).filter(Boolean);
  if (words.some((word) => word.startsWith(wanted))) return 2;
  if (words.map((word) => word[0]).join("").startsWith(wanted)) return 2.5;
  if (wanted.split(/\s+/).every((part) => words.some((word) => word.startsWith(part)))) return 3;
  if (lower.includes(wanted)) return 4;
  if (wanted.split(/\s+/).every((part) => lower.includes(part))) return 5;
  return wanted.length >= 3 && isSubsequence(wanted.replace(/\s+/g, ""), lower) ? 7 : undefined;
}

function isSubsequence(short: string, long: string): boolean {
  let at = 0;
  for (const character of long) if (character === short[at]) at++;
  return at === short.length;
}

export interface Searchable {
  title: string;
  name: string;
  category?: string;
}

/** Those that fit, best first: by how they fit, moved forward by how often they were used. */
export function search<T extends Searchable>(query: string, items: readonly T[], uses: Readonly<Record<string, number>>): T[] {
  const ranked = items.flatMap((item) => {
    const ranks = [matchRank(query, item.title), matchRank(query, item.name)].filter((rank) => rank !== undefined);
    const category = item.category ? matchRank(query, item.category) : undefined;
    if (category !== undefined) ranks.push(category + 4);
    if (ranks.length === 0) return [];
    const used = Math.min(2.5, Math.log2(1 + (uses[item.name] ?? 0)) * 0.6);
    return [{ item, rank: Math.min(...ranks) - used }];
  });
  return ranked
    .sort((a, b) => a.rank - b.rank || a.item.title.length - b.item.title.length || (a.item.title < b.item.title ? -1 : 1))
    .map(({ item }) => item);
}
