/** The local component for a command that writes to it: nobody else has it, nor is about to. */
import { readFileSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import type { Resource } from '../config/config.ts';
import type { Role } from '../control/protocol.ts';
import { HastError } from '../error.ts';
import { type ComponentInfo, errnoName, native } from '../native.ts';
import { cannotOpen } from './component.ts';
import type { Context } from './context.ts';

type Refused = 'CREATE_REFUSED' | 'DISCARD_REFUSED';

/** A killed process lets go of its lock only some moments after its end. */
const LOCK_WAIT_MS = 1000;
const LOCK_STEP_MS = 50;

/** Where a block device is mounted, for the message; undefined when it is not, or nobody knows. */
function mountPoint(device: string): string | undefined {
  const number = device.replace(/^block:/, '');
  let mounts: string;
  try {
    mounts = readFileSync('/proc/self/mountinfo', 'utf8');
  } catch {
    return undefined;
  }
  const line = mounts.split('\n').find((each) => each.split(' ')[2] === number);
  return line?.split(' ')[4];
}

/** EBUSY: the kernel holds the device. Anything else: a process holds the lock. */
function busy({ name, local }: Resource, why: string, code: Refused): HastError {
  const refused = (message: string, hint: string) => new HastError(code, { message, hint });
  if (why !== 'EBUSY') {
    return refused(
      `${local} is in use: another process holds its lock`,
      `give it up first, with hastctl role init ${name} or by ending what uses it`,
    );
  }
  let mounted: string | undefined;
  try {
    // Without O_EXCL it opens, and so tells its number.
    const component = native.host.openComponent(local, false, false);
    native.host.closeFd(component.fd);
    mounted = mountPoint(component.device);
  } catch {
    mounted = undefined;
  }
  if (mounted !== undefined) {
    return refused(`${local} is mounted on ${mounted}`, `umount ${mounted} first`);
  }
  return refused(
    `${local} is in use: mounted, swapped to, or part of another device`,
    'lsblk and /proc/swaps show what holds it',
  );
}

/** Open for writing, with its lock; a lock that is held is waited for, for a second. */
export async function openLocked(resource: Resource, code: Refused): Promise<ComponentInfo> {
  const end = Date.now() + LOCK_WAIT_MS;
  for (;;) {
    try {
      return native.host.openComponent(resource.local, true, true);
    } catch (error) {
      const why = errnoName(error);
      const held = why === 'EAGAIN' || why === 'EBUSY';
      if (!held) throw cannotOpen(resource.local, error);
      if (Date.now() >= end) throw busy(resource, why, code);
    }
    await sleep(LOCK_STEP_MS);
  }
}

/** A running daemon may be about to give the component to a worker. */
export async function refuseUnlessRole(
  { name }: Resource,
  roles: readonly Role[],
  { client }: Context,
  code: Refused,
): Promise<void> {
  let role: Role;
  try {
    role = (await client.resource(name)).role;
  } catch (error) {
    // Nobody there, or nobody who knows it: the lock is all there is to ask.
    const known = error instanceof HastError ? error.code : undefined;
    if (known === 'CTL_CONNECT' || known === 'RESOURCE_UNKNOWN') return;
    throw new HastError(code, {
      message: `the running hastd does not say which role ${name} has: ${(error as Error).message}`,
      hint: 'end hastd, or see its log',
    });
  }
  if (roles.includes(role)) return;
  throw new HastError(code, {
    message: `the role of ${name} is ${role}`,
    hint: `hastctl role ${roles.at(-1)} ${name} first`,
  });
}
