import type { Resource } from '../../config/config.ts';
import { HastError } from '../../error.ts';
import { LIMITS } from '../../limits.ts';
import { type ComponentInfo, type Layout, type MetadataFields, native } from '../../native.ts';
import type { CreateCommand } from '../command-line.ts';
import { cannotWrite, findResource, isSystemError, readArea, withComponent } from '../component.ts';
import { type Context, forEachName } from '../context.ts';
import { openLocked, refuseUnlessRole } from '../exclusive.ts';
import { type Found, whatIsThere } from '../signatures.ts';

const DEFAULT_EXTENT_BYTES = 2n * 1024n * 1024n;
const DEFAULT_KEEPDIRTY = 64n;
const WRITE_BYTES = 1024 * 1024;

const REFUSED = 'CREATE_REFUSED';

function refused(message: string, hint: string): HastError {
  return new HastError(REFUSED, { message, hint });
}

// ---- Checking -------------------------------------------------------------------------------

function lookAt(component: ComponentInfo, { local }: Resource): Found {
  try {
    return whatIsThere(
      (offset, length) => readArea(component, offset, length),
      Number(component.sizeBytes),
    );
  } catch (error) {
    if (!isSystemError(error)) throw error;
    throw new HastError('META_UNREADABLE', {
      message: `${local} cannot be read: ${error.message}`,
      cause: error,
    });
  }
}

/**
 * Refuses to overwrite what is not this resource's; with -f tells at least what counters it had.
 */
function refuseOverData(
  { name, local }: Resource,
  found: Found,
  force: boolean,
  { log }: Context,
): void {
  if (found.kind === 'nothing') return;
  if (found.kind === 'other') {
    if (!force) throw refused(`${local} holds ${found.name}`, 'create -f overwrites it');
    return;
  }
  const { resource, resuid, localcnt, remotecnt, prevrole } = found.block.fields;
  const counters =
    `resuid ${resuid}, localcnt ${localcnt}, ` + `remotecnt ${remotecnt}, prevrole ${prevrole}`;
  if (resource !== name && !force) {
    throw refused(
      `${local} holds the HAST resource ${resource} (${counters})`,
      'check local in hast.conf; create -f overwrites it',
    );
  }
  log.child(name).warning(`overwriting the metadata of resource ${resource}: ${counters}`);
}

function mediaBytes(command: CreateCommand, { local }: Resource, size: bigint): bigint {
  if (command.mediaBytes === 0n) return size;
  if (command.mediaBytes <= size) return command.mediaBytes;
  throw new HastError('LAYOUT_MEDIA', {
    message: `-m ${command.mediaBytes} is larger than ${local}, which has ${size} bytes`,
    hint: 'leave -m out to use all of it',
  });
}

// ---- Planning and writing -------------------------------------------------------------------

interface Plan {
  readonly layout: Layout;
  readonly block: Buffer;
}

function planned(command: CreateCommand, resource: Resource, component: ComponentInfo): Plan {
  const extentBytes = Number(command.extentBytes || DEFAULT_EXTENT_BYTES);
  const keepdirty = Number(command.keepdirty || DEFAULT_KEEPDIRTY);
  const layout = native.codec.layout({
    mediaBytes: mediaBytes(command, resource, component.sizeBytes),
    sectorBytes: component.sectorBytes,
    extentBytes,
    keepdirty,
    layout: command.layout,
  });
  const fields: MetadataFields = {
    resource: resource.name,
    datasize: layout.dataBytes,
    extentsize: extentBytes,
    keepdirty,
    offset: layout.offset,
    resuid: 0n,
    localcnt: 0n,
    remotecnt: 0n,
    prevrole: 'init',
  };
  return { layout, block: native.codec.metadataBlock(fields, command.contentsEqual) };
}

/**
 * Zeroes from behind the block to `end`. Where direct I/O asks for more than a sector, the bytes
 * behind `end` in its last unit are written back as they are.
 */
function writeZeros(component: ComponentInfo, end: number): void {
  const { fd, granuleBytes } = component;
  const whole = Math.ceil(end / granuleBytes) * granuleBytes;
  const rest = readArea(component, end, whole - end);
  for (let at = LIMITS.metadataBytes; at < end; at += WRITE_BYTES) {
    const zeros = Buffer.alloc(Math.min(WRITE_BYTES, end - at));
    const last = at + zeros.length === end;
    native.host.writeAt(fd, BigInt(at), last ? Buffer.concat([zeros, rest]) : zeros);
  }
}

/**
 * Without metadata first, so that whatever a power cut leaves is either the old component's lack
 * of any or the new one complete, never new metadata with somebody's bytes as its map.
 */
function write(component: ComponentInfo, { block, layout }: Plan): void {
  const { host } = native;
  host.writeAt(component.fd, 0n, Buffer.alloc(LIMITS.metadataBytes));
  host.flush(component.fd);
  writeZeros(component, Number(layout.offset));
  host.flush(component.fd);
  host.writeAt(component.fd, 0n, block);
  host.flush(component.fd);
}

async function createOne(name: string, command: CreateCommand, context: Context): Promise<void> {
  const resource = findResource(context.config.resources, name);
  await withComponent(
    () => openLocked(resource, REFUSED),
    async (component) => {
      await refuseUnlessRole(resource, ['init'], context, REFUSED);
      const plan = planned(command, resource, component);
      refuseOverData(resource, lookAt(component, resource), command.force, context);
      try {
        write(component, plan);
      } catch (error) {
        throw cannotWrite(resource.local, error);
      }
    },
  );
}

/**
 * New metadata on local components, one after another. @returns the exit code of the first failure
 */
export async function create(command: CreateCommand, context: Context): Promise<number> {
  return await forEachName(command.names, context, (name) => createOne(name, command, context));
}
