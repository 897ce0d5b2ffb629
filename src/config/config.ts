import type { Position } from '../error.ts';

// The words of hast.conf(5) that are values, in the order in which the manual lists them.

export const REPLICATIONS = ['fullsync', 'memsync', 'async'] as const;
export const CHECKSUMS = ['none', 'crc32', 'sha256'] as const;
export const COMPRESSIONS = ['none', 'hole', 'lzf'] as const;
export const DEVICES = ['auto', 'ublk', 'nbd', 'ggate', 'none'] as const;
export const STARTS = ['init', 'secondary', 'last'] as const;
export const DEMOTIONS = ['force', 'refuse'] as const;
export const EVENTS = ['plain', 'extended'] as const;
export const SECTOR_SIZES = [512, 4096] as const;

export type Replication = (typeof REPLICATIONS)[number];
export type Checksum = (typeof CHECKSUMS)[number];
export type Compression = (typeof COMPRESSIONS)[number];
export type Device = (typeof DEVICES)[number];
export type Start = (typeof STARTS)[number];
export type Demotion = (typeof DEMOTIONS)[number];
export type Events = (typeof EVENTS)[number];
export type SectorSize = (typeof SECTOR_SIZES)[number];

/**
 * A TCP address. `text` is as configured (what status prints), the rest is what it means.
 *
 * `host` is an IPv4 or IPv6 literal without brackets, in canonical form, or a name still to be
 * resolved; of a literal the family is always known, `any` is only ever that of a name. A v4-mapped
 * IPv6 literal is given as the IPv4 address it stands for. `port` 0, in `source` only, is any port.
 */
export interface TcpAddress {
  readonly kind: 'tcp';
  readonly text: string;
  readonly family: 'ipv4' | 'ipv6' | 'any';
  readonly host: string;
  readonly port: number;
}

/** A UNIX socket: an absolute path of at most 107 bytes. `text` is as configured. */
export interface UdsAddress {
  readonly kind: 'uds';
  readonly text: string;
  readonly path: string;
}

export type Address = TcpAddress | UdsAddress;

/** One resource as this node runs it; every default filled in. All of it survives JSON. */
export interface Resource {
  /** Key of the resource; told to the peer and stored in the metadata. */
  readonly name: string;
  /** Name of the provider: its link in devdir and its NBD export name. */
  readonly provname: string;
  /** The node block that made this host a member, as written. */
  readonly node: string;
  /** Backing device or file, as written. */
  readonly local: string;
  /** Peer; `none` is not known yet: connect to nobody, admit nobody. */
  readonly remote: TcpAddress | 'none';
  /** Address to bind before connecting to the peer. */
  readonly source: TcpAddress | null;
  readonly replication: Replication;
  readonly checksum: Checksum;
  readonly compression: Compression;
  readonly timeoutSeconds: number;
  /** Hook program. */
  readonly exec: string | null;
  readonly metaflush: boolean;
  readonly export: Address;
  readonly exportInsecure: boolean;
  /** User who may use the export's UNIX socket; null is the one hastd runs as. */
  readonly exportOwner: string | null;
  readonly device: Device;
  readonly devdir: string;
  readonly start: Start;
  readonly demotion: Demotion;
  readonly events: Events;
  /** File with the key shared with the peer. */
  readonly secret: string | null;
  /** In bytes; null is that of the disk. */
  readonly sectorSize: SectorSize | null;
  readonly position: Position;
}

/** Something legal that a person should hear about; for the log, once. */
export interface Warning {
  readonly at: Position;
  readonly text: string;
}

/** A whole file as one host sees it. */
export interface Config {
  readonly control: UdsAddress;
  readonly pidfile: string;
  /** Free of duplicates and of what a wildcard in the list covers. Bind with IPV6_V6ONLY. */
  readonly listen: readonly TcpAddress[];
  /** User of the workers when the daemon is root. */
  readonly user: string;
  readonly statedir: string;
  readonly devdir: string;
  /** In file order. */
  readonly resources: readonly Resource[];
  readonly warnings: readonly Warning[];
}
