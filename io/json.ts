/**
 * What `JSON.parse` lets pass and a file format must not: keys that occur twice.
 *
 * @module
 */

/** First key that occurs twice in one object of `text`, which must be valid JSON, or `null`. */
export function duplicateKey(text: string): string | null {
  const objects: (Set<string> | null)[] = []; // the open objects (their keys) and arrays (null)
  for (let i = 0; i < text.length; i++) {
    const c = text[i];
    if (c === "{") objects.push(new Set());
    else if (c === "[") objects.push(null);
    else if (c === "}" || c === "]") objects.pop();
    else if (c === '"') {
      const start = i;
      for (i++; text[i] !== '"'; i++) if (text[i] === "\\") i++;
      const keys = objects.at(-1);
      if (!keys || !followedByColon(text, i + 1)) continue;
      const key = JSON.parse(text.slice(start, i + 1)) as string;
      if (keys.has(key)) return key;
      keys.add(key);
    }
  }
  return null;
}

function followedByColon(text: string, at: number): boolean {
  while (at < text.length && " \t\r\n".includes(text[at])) at++;
  return text[at] === ":";
}
