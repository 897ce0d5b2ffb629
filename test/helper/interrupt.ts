// A synchronisation that is cut off for certain.
import { until } from './deadline.ts';
import type { Node, Pair } from './pair.ts';

/** Heals the link and cuts it as soon as `from` has begun to copy, so that it cannot end. */
export async function cutInSynchronisation(pair: Pair, from: Node): Promise<void> {
  const start = from.output.length;
  const begun = () => from.output.slice(start).includes('Synchronisation started');
  from.onOutput = () => {
    if (begun()) pair.silence();
  };
  pair.heal();
  await until('a synchronisation', 30_000, begun);
  from.onOutput = undefined;
  pair.cut();
  pair.heal(); // what was silent is over
  pair.cut();
}
