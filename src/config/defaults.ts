import { LIMITS as SHARED } from '../limits.ts';
import type {
  Checksum,
  Compression,
  Demotion,
  Device,
  Events,
  Replication,
  Start,
} from './config.ts';

/** The file that both programs read unless told otherwise. */
export const CONFIG_PATH = '/etc/hast.conf';

/** Port of the peers. */
export const PEER_PORT = 8457;

/** Port of an export by TCP: the one registered for NBD. */
export const EXPORT_PORT = 10809;

export const LISTEN_IPV4 = `tcp4://0.0.0.0:${PEER_PORT}`;
export const LISTEN_IPV6 = `tcp6://[::]:${PEER_PORT}`;

const REPLICATION: Replication = 'memsync';
const CHECKSUM: Checksum = 'none';
const COMPRESSION: Compression = 'hole';
const DEVICE: Device = 'auto';
const START: Start = 'init';
const DEMOTION: Demotion = 'force';
const EVENTS: Events = 'plain';

/** What a statement that is not in the file would have said. */
export const DEFAULTS = {
  control: '/var/run/hastctl',
  pidfile: '/var/run/hastd.pid',
  user: 'hast',
  statedir: '/var/lib/hast',
  devdir: '/dev/hast',
  replication: REPLICATION,
  checksum: CHECKSUM,
  compression: COMPRESSION,
  timeoutSeconds: 20,
  metaflush: true,
  exportInsecure: false,
  device: DEVICE,
  start: START,
  demotion: DEMOTION,
  events: EVENTS,
} as const;

/** Where a provider is exported when the file does not say. */
export function defaultExport(provname: string): string {
  return `uds:///var/run/hast/${provname}.nbd`;
}

/** Bounds of values; lengths in bytes. */
export const LIMITS = {
  /** Addresses and paths. */
  text: 1023,
  /** Name of a resource: what the metadata and the peer can hold. */
  resourceName: SHARED.nameBytesMax,
  /** Name of a provider. */
  providerName: 249,
  /** Path of a UNIX socket. */
  socketPath: 107,
  /** User names; what useradd(8) takes is shorter. */
  userName: 255,
  /** The largest timeout that is accepted, in seconds. */
  timeoutAccepted: 2_147_483_647,
  /** The largest timeout that is used: 24 days, since timers count milliseconds in 31 bits. */
  timeoutUsed: 2_147_483,
  /** Size of a whole file. */
  file: 4 * 1024 * 1024,
} as const;
