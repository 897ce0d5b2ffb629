import { HastError, isErrorCode } from '../../error.ts';
import { type Context, firstExit, tell } from '../context.ts';

/** Has the daemon read its configuration again. @returns the exit code of the first failure */
export async function reload({ client, log, format, print }: Context): Promise<number> {
  const answer = await client.reload();
  print(format.reload(answer));
  for (const warning of answer.warnings) log.warning(warning);
  for (const { name, error } of answer.resources) {
    if (error === null) continue;
    const { code, message, exit } = error;
    const known = isErrorCode(code) ? code : 'ROLE_FAILED';
    tell(log.child(name), new HastError(known, { message, exit }));
  }
  return firstExit(answer.resources.map(({ error }) => error?.exit ?? 0));
}
