// Schedules of accidents by seed: which nodes, which mode, what happens and in which order.
import { ACCIDENTS, accidentIn } from './accidents.ts';
import { randomOf } from './config.ts';
import { type Counts, noCounts } from './load.ts';
import { MODES, type Mode } from './pair.ts';
import { Scene } from './scene.ts';

/** Of one schedule, which is one life of two daemons. */
export const ACCIDENTS_EACH = 6;

export interface Plan {
  readonly seed: number;
  readonly mode: Mode;
  readonly accidents: readonly (typeof ACCIDENTS)[number][];
}

function shuffled<T>(all: readonly T[], random: (n: number) => number): T[] {
  const left = [...all];
  return all.flatMap(() => left.splice(random(left.length), 1));
}

/** Seeds in a row share decks of all accidents, so that each of them comes equally often. */
export function planOf(seed: number): Plan {
  const accidents = Array.from({ length: ACCIDENTS_EACH }, (_, i) => {
    const card = seed * ACCIDENTS_EACH + i;
    const deck = shuffled(ACCIDENTS, randomOf(Math.floor(card / ACCIDENTS.length)));
    return deck[card % ACCIDENTS.length] ?? deck[0];
  }).filter((one) => one !== undefined);
  return { seed, mode: MODES[seed % MODES.length] ?? 'memsync', accidents };
}

export interface Totals {
  schedules: number;
  readonly accidents: Map<string, number>;
  readonly counts: Counts;
}

export function noTotals(): Totals {
  return { schedules: 0, accidents: new Map(), counts: noCounts() };
}

export interface Finding {
  readonly seed: number;
  readonly message: string;
  readonly events: string;
}

export interface Run {
  readonly totals: Totals;
  /** No accident begins after this moment. */
  readonly endMs: number;
  /** Where the logs and disks of a finding go. */
  readonly keepIn: string;
  readonly onAccident: (name: string) => void;
  readonly say?: (text: string) => void;
}

/** @returns what was found, if anything */
export async function runSchedule(plan: Plan, run: Run): Promise<Finding | undefined> {
  const { totals, say } = run;
  const { seed, mode } = plan;
  const scene = await Scene.make({ seed, mode, counts: totals.counts, say });
  totals.schedules += 1;
  const body = async () => {
    await scene.settle();
    for (const [name, accident] of plan.accidents) {
      if (Date.now() > run.endMs) break;
      scene.event(`--- ${name}`);
      await accidentIn(scene, accident);
      totals.accidents.set(name, (totals.accidents.get(name) ?? 0) + 1);
      run.onAccident(name);
    }
  };
  try {
    await Promise.race([body(), scene.trouble.happened]);
    return undefined;
  } catch (error) {
    const message = error instanceof Error ? error.message : String(error);
    scene.event(`FINDING ${message}`);
    scene.keep(`${run.keepIn}/${seed}`);
    return { seed, message, events: scene.events };
  } finally {
    await scene.close();
  }
}
