/**
 * Statements that the language has and this version cannot carry out. One that asks for protection
 * or for a device that would then be missing must not pass in silence. Pure.
 */
import { HastError, type Position } from '../error.ts';
import type { Config, Resource, Warning } from './config.ts';

function refusal(resource: Resource): string | undefined {
  if (resource.device === 'ggate') {
    return (
      '`device ggate` is not available in this version; ' +
      'use `device auto`, `ublk`, `nbd`, or `none` and the NBD export'
    );
  }
  return undefined;
}

function place({ file, line, column }: Position): string {
  return `${file}:${line}:${column}`;
}

/** @throws HastError CONFIG_MEANING with every resource that asks for what is not there */
export function refuseUnavailable(config: Config): void {
  const refused = config.resources.flatMap((resource) => {
    const text = refusal(resource);
    return text === undefined ? [] : [`${place(resource.position)}: ${resource.name}: ${text}`];
  });
  if (refused.length > 0) throw new HastError('CONFIG_MEANING', { message: refused.join('\n') });
}

/** What is carried out in part only; for the log. */
export function partlyAvailable(config: Config): readonly Warning[] {
  return config.resources
    .filter((resource) => resource.start === 'last')
    .map((resource) => ({
      at: resource.position,
      text:
        `${resource.name}: \`start last\` takes the role secondary; ` +
        'becoming primary by itself is not available in this version',
    }));
}
