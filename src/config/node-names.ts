import { HastError } from '../error.ts';

/** Where the names of a host come from; `file` gives bytes, undefined when there are none. */
export interface HostReader {
  hostname(): string;
  file(path: string): Uint8Array | undefined;
}

const UUID = /^[0-9a-f]{8}-?([0-9a-f]{4}-?){3}[0-9a-f]{12}$/i;

function readText(reader: HostReader, path: string): string {
  return Buffer.from(reader.file(path) ?? [])
    .toString('latin1')
    .trim();
}

function dashed(hex: string): string {
  return hex.replace(/^(.{8})(.{4})(.{4})(.{4})(.{12})$/, '$1-$2-$3-$4-$5');
}

/** Product UUID and machine id. A UUID of only zeroes or ones, which some boards tell, is none. */
function uuids(reader: HostReader): readonly string[] {
  const product = readText(reader, '/sys/class/dmi/id/product_uuid');
  const machine = readText(reader, '/etc/machine-id');
  return [
    ...(UUID.test(product) && !/^(0|f|-)+$/i.test(product) ? [product] : []),
    ...(/^[0-9a-f]{32}$/i.test(machine) ? [machine, dashed(machine)] : []),
  ];
}

/** The address that /etc/hosts gives a name: what gethostid(3) makes an id of. */
function hostsAddress(reader: HostReader, name: string): readonly number[] | undefined {
  for (const line of readText(reader, '/etc/hosts').split('\n')) {
    const [address = '', ...names] = line.replace(/#.*/, '').trim().split(/\s+/);
    if (!names.includes(name)) continue;
    const bytes = address.split('.').map(Number);
    if (bytes.length === 4 && bytes.every((b) => b >= 0 && b <= 255)) return bytes;
  }
  return undefined;
}

/**
 * The value of gethostid(3) as an unsigned number: /etc/hostid, or the halves of the IPv4 address
 * of the host name, swapped. DNS is not asked: a name must not depend on the network.
 */
function hostId(reader: HostReader, host: string): number | undefined {
  const stored = reader.file('/etc/hostid');
  if (stored !== undefined && stored.length >= 4) {
    return Buffer.from(stored).readUInt32LE(0);
  }
  const [a, b, c, d] = hostsAddress(reader, host) ?? [];
  if (a === undefined || b === undefined || c === undefined || d === undefined) return undefined;
  return Buffer.from([c, d, a, b]).readUInt32LE(0);
}

/**
 * Every name by which a node block can mean this host, most specific first: host name, its part
 * before the first dot, UUIDs, `hostid` with the decimal host id.
 *
 * @throws HastError CONFIG_HOST when the host has no name
 */
export function nodeNames(reader: HostReader): readonly string[] {
  const full = reader.hostname();
  if (full === '') throw new HastError('CONFIG_HOST');
  const id = hostId(reader, full);
  const short = full.replace(/\..*$/, '');
  const names = [full, short, ...uuids(reader), ...(id === undefined ? [] : [`hostid${id}`])];
  return [...new Set(names.filter((name) => name !== ''))];
}

/** Whether the name of a block means this host: exactly, but for the case of a UUID. */
export function matchesNode(block: string, names: readonly string[]): boolean {
  return names.some(
    (name) => name === block || (UUID.test(name) && name.toLowerCase() === block.toLowerCase()),
  );
}

/** The names as a person is told them: the short one first. */
export function namesAsText(names: readonly string[]): string {
  const [full, short, ...rest] = names;
  if (full === undefined || short === undefined) return names.join(', ');
  return (full.startsWith(`${short}.`) ? [short, full, ...rest] : names).join(', ');
}
