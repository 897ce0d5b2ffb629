import { HastError } from '../../error.ts';
import { decodeBlock } from '../../metadata.ts';
import { type ComponentInfo, native } from '../../native.ts';
import type { DiscardCommand } from '../command-line.ts';
import { cannotWrite, findResource, readBlock, withComponent } from '../component.ts';
import { type Context, forEachName } from '../context.ts';
import { openLocked, refuseUnlessRole } from '../exclusive.ts';

const REFUSED = 'DISCARD_REFUSED';

/** The block of this resource. @throws HastError META_INVALID, or when it is another resource's */
function ownBlock(component: ComponentInfo, name: string): Buffer {
  const block = readBlock(component);
  const { resource } = decodeBlock(block).fields;
  if (resource === name) return block;
  throw new HastError(REFUSED, {
    message: `the local component is that of the resource ${resource}`,
    hint: 'check local in hast.conf',
  });
}

/** Each step is durable before the next one begins, so that a power cut leaves old or new. */
function write(component: ComponentInfo, block: Buffer): void {
  const { fd, granuleBytes, sectorBytes } = component;
  const steps = native.codec.discardSteps(block, Math.max(granuleBytes, sectorBytes));
  for (const { offset, bytes } of steps) {
    native.host.writeAt(fd, BigInt(offset), bytes);
    native.host.flush(fd);
  }
}

async function discardOne(name: string, context: Context): Promise<void> {
  const resource = findResource(context.config.resources, name);
  await withComponent(
    async () => {
      await refuseUnlessRole(resource, ['init', 'secondary'], context, REFUSED);
      return await openLocked(resource, REFUSED);
    },
    (component) => {
      const block = ownBlock(component, name);
      try {
        write(component, block);
      } catch (error) {
        throw cannotWrite(resource.local, error);
      }
    },
  );
  context.log
    .child(name)
    .info('What was written here alone is given up: the primary overwrites it when it connects.');
}

/** Ends a split-brain on the node whose data go. @returns the exit code of the first failure */
export async function discard(command: DiscardCommand, context: Context): Promise<number> {
  return await forEachName(command.names, context, (name) => discardOne(name, context));
}
