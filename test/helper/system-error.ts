// What the addon's system calls throw.
import { constants } from 'node:os';
import { HastError } from '../../src/error.ts';

/** As `guarded` of native.ts makes them. */
export function systemError(name: keyof typeof constants.errno): HastError {
  const cause = Object.assign(new Error(name), { errno: constants.errno[name] });
  return new HastError('SYSTEM', { message: name, cause });
}
