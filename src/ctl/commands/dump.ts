import type { Resource } from '../../config/config.ts';
import { HastError } from '../../error.ts';
import { decodeBlock, type MetadataBlock, misfit } from '../../metadata.ts';
import { native } from '../../native.ts';
import type { ShowCommand } from '../command-line.ts';
import { cannotOpen, findResource, readBlock, withComponent } from '../component.ts';
import { type Context, firstExit, tell } from '../context.ts';
import type { DumpReport } from '../output.ts';

/** HAST's own: metadata that cannot be read, for whatever reason. */
const EXIT_UNREADABLE = 255;

function namesOf({ names }: ShowCommand, { config }: Context): readonly string[] {
  const all = names.length === 0 || (names.length === 1 && names[0] === 'all');
  return all ? config.resources.map(({ name }) => name) : names;
}

/** Without a lock, so that it works while hastd runs. */
async function read(resource: Resource, { log }: Context): Promise<MetadataBlock> {
  const open = () => {
    try {
      return native.host.openComponent(resource.local, false, false);
    } catch (error) {
      throw cannotOpen(resource.local, error);
    }
  };
  return await withComponent(open, (component) => {
    const block = decodeBlock(readBlock(component));
    if (block.fields.resource !== resource.name) {
      throw new HastError('META_INVALID', {
        message: `the metadata is that of resource ${block.fields.resource}`,
        hint: 'check local and the name of the resource in hast.conf',
      });
    }
    const about = log.child(resource.name);
    const wrong = misfit(block.fields, component.sizeBytes, component.sectorBytes);
    if (wrong !== undefined) about.warning(`${wrong}: hastd will refuse this component`);
    if (block.needsRewrite) {
      about.warning('the first sector is torn or old; shown is what hastd puts back at its start');
    }
    if (block.facts?.discarded === true) {
      about.warning('what was written here alone is given up: the primary will overwrite it');
    } else if (block.facts?.syncTarget === true) {
      about.warning('a synchronisation into this component was not finished');
    }
    if (block.facts?.localStale === true)
      about.warning("the peer's data is newer than this disk's");
    return block;
  });
}

async function report(name: string, context: Context): Promise<DumpReport> {
  let resource: Resource;
  try {
    resource = findResource(context.config.resources, name);
  } catch (error) {
    return { name, error: error as HastError };
  }
  try {
    return { name, block: await read(resource, context) };
  } catch (error) {
    if (!(error instanceof HastError)) throw error;
    const { code, message, hint, cause } = error;
    return { name, error: new HastError(code, { message, hint, cause, exit: EXIT_UNREADABLE }) };
  }
}

/** The metadata of local components; no daemon is asked. @returns the exit code */
export async function dump(command: ShowCommand, context: Context): Promise<number> {
  const reports: DumpReport[] = [];
  for (const name of namesOf(command, context)) reports.push(await report(name, context));
  context.print(context.format.dump(reports));
  for (const each of reports) {
    if ('error' in each) tell(context.log.child(each.name), each.error);
  }
  return firstExit(reports.map((each) => ('error' in each ? each.error.exit : 0)));
}
