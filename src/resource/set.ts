/** All resources of this node, in the order of the configuration, and another one of them. */
import type { Changes } from '../config/changes.ts';
import type { Resource } from '../config/config.ts';
import type { Change } from '../control/protocol.ts';
import { asHastError, type HastError } from '../error.ts';
import type { Found } from './adoption.ts';
import { closeLeftOver } from './kernel-device.ts';
import { type Reloading, Supervisor, type SupervisorDeps } from './supervisor.ts';

/** What a reload did with a resource; those that stayed as they were are not told of. */
export interface ResourceChange {
  readonly name: string;
  readonly change: Change;
  /** Words of hast.conf(5) whose values differ. */
  readonly words: readonly string[];
  /** Why the resource does not have the role that it had; null when all went well. */
  readonly error: HastError | null;
}

export class ResourceSet {
  readonly #deps: SupervisorDeps;
  #all: ReadonlyMap<string, Supervisor>;

  constructor(resources: readonly Resource[], deps: SupervisorDeps) {
    this.#deps = deps;
    this.#all = new Map(resources.map((resource) => [resource.name, this.#made(resource)]));
  }

  get size(): number {
    return this.#all.size;
  }

  get names(): readonly string[] {
    return [...this.#all.keys()];
  }

  get supervisors(): readonly Supervisor[] {
    return [...this.#all.values()];
  }

  get(name: string): Supervisor | undefined {
    return this.#all.get(name);
  }

  /**
   * Before anybody else is heard: resources whose workers run already, as they were configured.
   * One that is not configured any more is added, for the next `reload` to end.
   */
  adopt({ adopted, lost }: Found): void {
    const all = new Map(this.#all);
    for (const one of adopted) all.set(one.resource.name, Supervisor.adopting(one, this.#deps));
    for (const { name, end, bridge } of lost) {
      const supervisor = all.get(name);
      supervisor?.lost(end, bridge);
      if (supervisor === undefined) void closeLeftOver(this.#deps.bridges, bridge);
    }
    this.#all = all;
  }

  /** Ends all workers. */
  async close(): Promise<void> {
    await Promise.all(this.supervisors.map((one) => one.close()));
  }

  /**
   * Takes a new configuration. What must restart, or is gone, ends first, and of all of them the
   * disk is free before any of them starts again: two resources may change places.
   * @returns in the order of the new configuration, those that are gone at the end
   */
  async reload(resources: readonly Resource[]): Promise<readonly ResourceChange[]> {
    const before = this.#all;
    const wanted = new Set(resources.map(({ name }) => name));
    const gone = [...before.values()].filter(({ resource }) => !wanted.has(resource.name));
    const [begun, removed] = await Promise.all([
      Promise.all(resources.map((after) => begin(before.get(after.name), after))),
      Promise.all(gone.map(remove)),
    ]);
    this.#all = new Map(
      resources.map((after) => [after.name, before.get(after.name) ?? this.#made(after)]),
    );
    const finished = await Promise.all(begun.map(finish));
    return [...finished, ...removed].filter((change) => change !== null);
  }

  #made(resource: Resource): Supervisor {
    return new Supervisor(resource, this.#deps);
  }
}

interface Begun {
  readonly name: string;
  /** Null: the resource is new, or could not be brought to an end. */
  readonly reloading: Reloading | null;
  readonly error: HastError | null;
}

async function begin(supervisor: Supervisor | undefined, after: Resource): Promise<Begun> {
  const { name } = after;
  if (supervisor === undefined) return { name, reloading: null, error: null };
  try {
    return { name, reloading: await supervisor.beginReload(after), error: null };
  } catch (error) {
    return { name, reloading: null, error: asHastError(error) };
  }
}

async function finish({ name, reloading, error }: Begun): Promise<ResourceChange | null> {
  if (error !== null) return { name, change: 'restarted', words: [], error };
  if (reloading === null) return { name, change: 'added', words: [], error: null };
  const { words, way } = reloading.changes;
  try {
    await reloading.finish();
    return way === 'none' ? null : { name, change: changeOf(way), words, error: null };
  } catch (failure) {
    return { name, change: changeOf(way), words, error: asHastError(failure) };
  }
}

async function remove(supervisor: Supervisor): Promise<ResourceChange> {
  const { name } = supervisor.resource;
  try {
    await supervisor.changeRole({ role: 'init', force: true, ifUnused: false });
    return { name, change: 'removed', words: [], error: null };
  } catch (error) {
    return { name, change: 'removed', words: [], error: asHastError(error) };
  }
}

function changeOf(way: Changes['way']): Change {
  return way === 'restart' ? 'restarted' : 'in-place';
}
