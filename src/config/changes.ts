/** What a new configuration asks of a resource that runs. Pure. Source: docs/hastd.8, "Reload". */
import type { Config, Resource } from './config.ts';

type Statement = Exclude<keyof Resource, 'position'>;
type Role = 'init' | 'primary' | 'secondary';

/**
 * How a changed value comes into force.
 *
 * `restart`: through the role init, whatever the role is. `worker`: a primary's worker takes it as
 * it runs, otherwise the resource restarts. `parent`: taken at once, nothing restarts.
 */
type Way = 'restart' | 'worker' | 'parent';

/** By the words of hast.conf(5); `name` is the key and cannot differ. */
const WAYS: Readonly<Record<Exclude<Statement, 'name'>, readonly [word: string, way: Way]>> = {
  provname: ['name', 'restart'],
  local: ['local', 'restart'],
  remote: ['remote', 'worker'],
  source: ['source', 'worker'],
  replication: ['replication', 'worker'],
  checksum: ['checksum', 'worker'],
  compression: ['compression', 'worker'],
  timeoutSeconds: ['timeout', 'worker'],
  exec: ['exec', 'worker'],
  metaflush: ['metaflush', 'worker'],
  export: ['export', 'restart'],
  exportInsecure: ['export-insecure', 'restart'],
  exportOwner: ['export-owner', 'restart'],
  device: ['device', 'restart'],
  devdir: ['devdir', 'restart'],
  sectorSize: ['sectorsize', 'restart'],
  node: ['on', 'parent'],
  start: ['start', 'parent'],
  demotion: ['demotion', 'parent'],
  events: ['events', 'parent'],
  secret: ['secret', 'parent'],
};

export interface Changes {
  /** Words of hast.conf(5) whose values differ, in the order of the table. */
  readonly words: readonly string[];
  /** `in-place`: nothing is interrupted. */
  readonly way: 'none' | 'in-place' | 'restart';
}

/** @param role  the one that the resource has now */
export function changesOf(before: Resource, after: Resource, role: Role): Changes {
  const differing = (Object.keys(WAYS) as (keyof typeof WAYS)[]).filter(
    (key) => JSON.stringify(before[key]) !== JSON.stringify(after[key]),
  );
  const words = differing.map((key) => WAYS[key][0]);
  const ways = differing.map((key) => WAYS[key][1]);
  if (ways.length === 0) return { words, way: 'none' };
  const stops = (way: Way) => way === 'restart' || (way === 'worker' && role === 'secondary');
  return { words, way: role !== 'init' && ways.some(stops) ? 'restart' : 'in-place' };
}

/** Words of the global statements that differ, which are those of the daemon itself. */
export function globalsThatDiffer(before: Config, after: Config): readonly string[] {
  const words = ['control', 'pidfile', 'listen', 'user', 'statedir'] as const;
  return words.filter((word) => JSON.stringify(before[word]) !== JSON.stringify(after[word]));
}
