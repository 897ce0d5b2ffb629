// Reads the disks of two nodes that are both at rest: does something say where they differ?
import { readFileSync } from 'node:fs';
import { LIMITS } from '../../src/limits.ts';
import { decodeBlock } from '../../src/metadata.ts';

/**
 * An extent that differs must be marked in the map of one of them, unless one of them is flagged
 * as stale or incomplete as a whole.
 * @returns what is wrong; undefined when nothing is
 */
export function unmarkedDifference(left: string, right: string): string | undefined {
  const disks = [left, right].map((path) => readFileSync(path));
  const sides = disks.map((disk) => {
    const { fields, facts } = decodeBlock(disk.subarray(0, LIMITS.metadataBytes));
    const start = Number(fields.offset);
    const data = disk.subarray(start, start + Number(fields.datasize));
    return { fields, facts, data, map: disk.subarray(LIMITS.metadataBytes, start) };
  });
  const [a, b] = sides;
  if (a === undefined || b === undefined) throw new Error('two disks are needed');
  if (a.fields.resuid !== b.fields.resuid) return undefined;
  if (sides.some(({ facts }) => facts?.syncTarget || facts?.localStale)) return undefined;
  const bytes = Number(a.fields.extentsize);
  for (let extent = 0; extent * bytes < a.data.length; extent += 1) {
    const marked = ({ map }: { map: Buffer }) =>
      ((map[Math.floor(extent / 8)] ?? 0) & (1 << (extent % 8))) !== 0;
    if (sides.some(marked)) continue;
    const [one, two] = sides.map(({ data }) => data.subarray(extent * bytes, (extent + 1) * bytes));
    if (one === undefined || two === undefined || one.equals(two)) continue;
    return `the disks differ in extent ${extent}, and nothing on either of them says so`;
  }
  return undefined;
}
