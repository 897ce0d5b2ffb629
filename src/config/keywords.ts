import {
  CHECKSUMS,
  COMPRESSIONS,
  DEMOTIONS,
  DEVICES,
  EVENTS,
  REPLICATIONS,
  SECTOR_SIZES,
  STARTS,
} from './config.ts';

/** Where a statement can stand: at file level, in `on`, in `resource`, in an `on` inside of one. */
export type Level = 'file' | 'node' | 'resource' | 'resource-node';

/** How a person calls the level. */
export const LEVEL_NAMES: Readonly<Record<Level, string>> = {
  file: 'outside of all blocks',
  node: 'in an `on` block outside of resources',
  resource: 'in a `resource` block',
  'resource-node': 'in an `on` block inside of a resource',
};

interface Row {
  /** What follows the keyword, for messages. */
  readonly wants: string;
  readonly levels: readonly Level[];
}

function oneOf(words: readonly (string | number)[]): string {
  return words.length === 1
    ? String(words[0])
    : `${words.slice(0, -1).join(', ')} or ${words.at(-1)}`;
}

/**
 * What the grammar says about every keyword that begins a setting, for texts to people: the grammar
 * alone decides what is accepted, and a test holds this table against it.
 */
export const SETTINGS = {
  control: { wants: 'an address', levels: ['file', 'node'] },
  pidfile: { wants: 'a path', levels: ['file', 'node'] },
  listen: { wants: 'an address', levels: ['file', 'node'] },
  replication: { wants: oneOf(REPLICATIONS), levels: ['file', 'resource'] },
  checksum: { wants: oneOf(CHECKSUMS), levels: ['file', 'resource'] },
  compression: { wants: oneOf(COMPRESSIONS), levels: ['file', 'resource'] },
  timeout: { wants: 'a number of seconds', levels: ['file', 'resource'] },
  exec: { wants: 'a path or none', levels: ['file', 'resource'] },
  metaflush: { wants: 'on or off', levels: ['file', 'resource', 'resource-node'] },
  name: { wants: 'a name', levels: ['resource', 'resource-node'] },
  local: { wants: 'a path', levels: ['resource', 'resource-node'] },
  remote: { wants: 'an address or none', levels: ['resource-node'] },
  source: { wants: 'an address', levels: ['resource-node'] },
  export: { wants: 'an address', levels: ['resource', 'resource-node'] },
  device: { wants: oneOf(DEVICES), levels: ['file', 'node', 'resource', 'resource-node'] },
  devdir: { wants: 'a path', levels: ['file', 'node'] },
  start: { wants: oneOf(STARTS), levels: ['file', 'node', 'resource'] },
  user: { wants: 'a user name', levels: ['file'] },
  statedir: { wants: 'a path', levels: ['file', 'node'] },
  demotion: { wants: oneOf(DEMOTIONS), levels: ['file', 'resource'] },
  events: { wants: oneOf(EVENTS), levels: ['file', 'resource'] },
  secret: { wants: 'a path or none', levels: ['file', 'resource'] },
  sectorsize: { wants: oneOf(SECTOR_SIZES), levels: ['file', 'resource'] },
  'export-insecure': { wants: 'on or off', levels: ['file', 'node', 'resource'] },
  'export-owner': { wants: 'a user name', levels: ['file', 'node', 'resource'] },
} as const satisfies Record<string, Row>;

export type Keyword = keyof typeof SETTINGS;

/** The keywords that begin a block. */
export const BLOCKS: Readonly<Record<'on' | 'resource', Row>> = {
  on: { wants: 'the name of a node', levels: ['file', 'resource'] },
  resource: { wants: 'the name of a resource', levels: ['file'] },
};

/** What is known about a word that can begin a statement somewhere. */
export function statementRow(word: string): Row | undefined {
  if (Object.hasOwn(SETTINGS, word)) return SETTINGS[word as Keyword];
  return word === 'on' || word === 'resource' ? BLOCKS[word] : undefined;
}

/** Words that HAST reserves: never a name, a path or a host. */
export const RESERVED: ReadonlySet<string> = new Set([
  ...['control', 'pidfile', 'listen', 'replication', 'checksum', 'compression', 'timeout', 'exec'],
  ...['metaflush', 'resource', 'name', 'local', 'remote', 'source', 'on', 'off'],
  ...REPLICATIONS,
  ...CHECKSUMS,
  ...COMPRESSIONS,
]);
