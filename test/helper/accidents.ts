// Accidents of two real nodes. Each begins with both in sync under load; it may end anywhere, if
// only both come in sync by themselves from there.
import type { Load } from './load.ts';
import type { Node, Process } from './pair.ts';
import type { Registers } from './registers.ts';
import type { Scene } from './scene.ts';

/** Under, about and over the three seconds after which a node gives up a silent peer. */
const LASTING = [300, 1500, 2900, 4500] as const;
const LONE_ANSWERS = 100;

export type Accident = (scene: Scene) => Promise<void>;

function oneOf<T>(scene: Scene, choices: readonly T[]): T {
  const chosen = choices[scene.random(choices.length)];
  if (chosen === undefined) throw new Error('nothing to choose from');
  return chosen;
}

// ---- Processes --------------------------------------------------------------------------------

async function killWorker(scene: Scene, node: Node): Promise<void> {
  scene.event(`kill the worker of node ${node.name}`);
  await node.killWorker();
}

async function killSupervisor(scene: Scene, node: Node): Promise<void> {
  scene.event(`kill the supervisor of node ${node.name}`);
  // Its worker goes on, and the next supervisor adopts it: no client notices.
  await node.killDaemon();
  await scene.start(node, node === scene.primary ? 'primary' : 'secondary');
}

async function killNode(scene: Scene, node: Node): Promise<void> {
  await scene.crash(node);
  if (node === scene.primary && scene.random(2) === 0) await scene.mustBeMarked();
  if (scene.random(2) === 0) await scene.lasting(...LASTING);
  await scene.start(node, node === scene.primary ? 'primary' : 'secondary');
}

async function killBoth(scene: Scene): Promise<void> {
  const { primary, secondary } = scene;
  scene.load.mayLose = true;
  await Promise.all([scene.crash(primary), scene.crash(secondary)]);
  await scene.mustBeMarked();
  const back = [() => scene.start(secondary, 'secondary'), () => scene.start(primary, 'primary')];
  if (scene.random(2) === 0) back.reverse();
  for (const start of back) await start();
}

type Part = 'worker' | 'supervisor' | 'node';

async function partOf(node: Node, part: Part): Promise<(name: NodeJS.Signals) => void> {
  const worker: Process | undefined = part === 'supervisor' ? undefined : await node.worker();
  return (name) => {
    if (part !== 'worker') node.signal(name);
    worker?.signal(name);
  };
}

async function stop(scene: Scene, node: Node, part: Part): Promise<void> {
  const signal = await partOf(node, part);
  scene.event(`stop the ${part} of node ${node.name}`);
  signal('SIGSTOP');
  if (part === 'supervisor' && scene.random(2) === 0) scene.cable.cut();
  await scene.lasting(...LASTING, 7000);
  scene.cable.heal();
  scene.event(`continue the ${part} of node ${node.name}`);
  signal('SIGCONT');
}

// ---- The link ---------------------------------------------------------------------------------

async function cut(scene: Scene): Promise<void> {
  scene.event('cut the link');
  scene.cable.cut();
  await scene.lasting(...LASTING);
  scene.event('heal the link');
  scene.cable.heal();
}

async function deaf(scene: Scene, from: Node): Promise<void> {
  scene.event(`what node ${from.name} sends is lost`);
  scene.cable.mute(from.name);
  await scene.lasting(...LASTING);
  scene.event('heal the link');
  scene.cable.unmute(from.name);
}

async function unplug(scene: Scene): Promise<void> {
  const node = oneOf(scene, [scene.pair.a, scene.pair.b]);
  scene.event(`unplug node ${node.name}`);
  scene.cable.unplug(node.name);
  await scene.lasting(...LASTING);
  scene.event(`plug node ${node.name} in`);
  scene.cable.plug(node.name);
}

async function flap(scene: Scene): Promise<void> {
  for (let i = 0; i < 4; i += 1) {
    scene.event('cut the link');
    scene.cable.cut();
    await scene.lasting(50, 200, 600);
    scene.event('heal the link');
    scene.cable.heal();
    await scene.lasting(50, 200, 600);
  }
}

async function slow(scene: Scene): Promise<void> {
  scene.event('slow the link down');
  const slower = scene.cable.slow();
  if (!slower) scene.event('the kernel has neither netem nor tbf: it stays as it is');
  await scene.lasting(1500, 3000);
  scene.cable.quicken();
}

// ---- Copying --------------------------------------------------------------------------------

/** Half copied, the secondary may not serve; and if it is let, it must have been all. */
async function mayNotServe(scene: Scene): Promise<void> {
  const { load, primary, secondary } = scene;
  load.mayLose = true;
  await scene.crash(primary);
  if (scene.random(2) === 0) await scene.mustBeMarked();
  scene.event(`try to promote node ${secondary.name}`);
  const { code, stderr } = await secondary.hastctl('role', 'primary', scene.pair.resource);
  if (code === 0) {
    scene.event('it serves');
    await load.moveTo(secondary);
    scene.primary = secondary;
    if (scene.mode === 'async') load.registers.forgetUndurable();
    await load.verify();
    load.run();
    return await scene.start(primary, 'secondary');
  }
  if (code !== 5) throw new Error(`role primary ended with ${code}: ${stderr}`);
  await scene.start(primary, 'primary');
}

/** The primary has written alone, and what it copies over a slow link is interrupted. */
async function interrupt(scene: Scene): Promise<void> {
  const { load, primary } = scene;
  scene.event('slow the link down and cut it');
  scene.cable.slow();
  scene.cable.cut();
  await scene.lossSeen(primary);
  await scene.answers(load, LONE_ANSWERS);
  scene.event('heal the link');
  scene.cable.heal();
  await primary.when('it copies', ({ worker }) => {
    return worker?.state === 'syncing' || worker?.state === 'in-sync';
  });
  await oneOf(scene, [
    onSecondary(killNode),
    onSecondary(killWorker),
    onPrimary(killNode),
    onPrimary(killWorker),
    cut,
    mayNotServe,
  ])(scene);
  scene.cable.quicken();
}

// ---- Another primary --------------------------------------------------------------------------

/** What both nodes would do at a failover; in async only what was flushed is promised then. */
async function failOver(scene: Scene): Promise<void> {
  const { load, primary } = scene;
  await scene.crash(primary);
  if (scene.random(2) === 0) await scene.mustBeMarked();
  await scene.promoteOther();
  if (scene.mode === 'async') load.registers.forgetUndurable();
  await load.verify();
  load.run();
  if (scene.random(2) === 0) await scene.answers(load, LONE_ANSWERS);
  await scene.start(primary, 'secondary');
}

/** Planned; with or without requests under way, which are refused then. */
async function switchRoles(scene: Scene): Promise<void> {
  const { load, primary } = scene;
  const busy = scene.random(2) === 0;
  load.mayRefuse = load.mayLose = true;
  if (!busy) await load.leave();
  scene.event(`demote node ${primary.name}${busy ? ' under load' : ''}`);
  await (busy ? primary.role('secondary') : primary.role('secondary', '--if-unused'));
  await scene.promoteOther();
  await load.verify();
  load.mayRefuse = false;
  load.run();
}

/** As the documents say: the loser is made anew. */
async function resolve(scene: Scene, loser: Node): Promise<void> {
  scene.event(`the data of node ${loser.name} go`);
  await loser.role('init');
  await scene.pair.create(loser);
  await loser.role('secondary');
}

/** Parted, with a load each, and a model each from what they had in common. */
async function part(scene: Scene, separate: () => void | Promise<void>): Promise<Load> {
  const { load } = scene;
  load.calm = false;
  const model = load.registers.fork();
  await separate();
  return await takeOver(scene, model);
}

/** The secondary becomes primary beside the other one's history. */
async function takeOver(scene: Scene, model: Registers): Promise<Load> {
  const { load, secondary } = scene;
  scene.event(`promote node ${secondary.name}`);
  await secondary.promote();
  model.meanwhile(load.registers);
  if (scene.mode === 'async') model.forgetUndurable();
  const other = scene.makeLoad(secondary, model);
  await other.verify();
  return other;
}

/** Nothing under way and all flushed, so that this node has nothing alone. */
async function quiet(scene: Scene): Promise<void> {
  await scene.load.pause();
  await scene.load.flush();
  await scene.pair.mustBeClean(scene.primary);
  scene.load.registers.flushed(scene.load.registers.now());
}

/** From here on only the node of this load counts. */
async function winner(scene: Scene, load: Load, node: Node): Promise<void> {
  scene.load = load;
  scene.primary = node;
  if ((await node.status()).role !== 'primary') await node.promote();
  load.run();
}

async function splitBrain(scene: Scene, old: Load, other: Load): Promise<void> {
  const { primary, secondary } = scene;
  const demoted = oneOf(scene, [primary, secondary]);
  await Promise.all([old.pause(), other.pause()]);
  for (const load of [old, other]) load.mayRefuse = load.mayLose = true;
  scene.event(`demote node ${demoted.name}`);
  await (demoted === primary ? old : other).leave();
  await demoted.role('secondary');
  const left = scene.pair.other(demoted);
  await left.when('split-brain is said', ({ worker, notes }) => {
    if (worker?.state === 'in-sync') throw new Error('in sync, though both have written alone');
    return /^Split-brain/.test(worker?.reason ?? '') && notes.length > 0;
  });
  scene.event(`node ${left.name} says split-brain`);
  const loser = oneOf(scene, [primary, secondary]);
  await Promise.all([old.leave(), other.leave()]);
  await resolve(scene, loser);
  const load = loser === primary ? other : old;
  load.mayRefuse = false;
  await winner(scene, load, scene.pair.other(loser));
}

/** The old primary is cut off, and both are written to. */
async function twoWrite(scene: Scene): Promise<void> {
  const { load, primary } = scene;
  scene.maySplit = true;
  const other = await part(scene, () => {
    scene.event('cut the link');
    scene.cable.cut();
  });
  await scene.lossSeen(primary);
  other.run();
  await Promise.all([scene.answers(load, LONE_ANSWERS), scene.answers(other, LONE_ANSWERS)]);
  scene.event('heal the link');
  scene.cable.heal();
  await splitBrain(scene, load, other);
}

/** The old primary is cut off, and only one is written to: that is no split-brain. */
async function oneWrites(scene: Scene): Promise<void> {
  const { load, primary, secondary } = scene;
  await quiet(scene);
  const other = await part(scene, () => {
    scene.event('cut the link');
    scene.cable.cut();
  });
  await scene.lossSeen(primary);
  const [writes, idle] = scene.random(2) === 0 ? [load, other] : [other, load];
  const node = writes === load ? primary : secondary;
  const back = scene.pair.other(node);
  scene.event(`only node ${node.name} is written to`);
  writes.run();
  await scene.answers(writes, LONE_ANSWERS);
  await idle.leave();
  if (scene.random(2) === 0) await back.role('secondary');
  scene.event('heal the link');
  scene.cable.heal();
  if ((await back.status()).role !== 'secondary') await back.role('secondary');
  await winner(scene, writes, node);
}

/** The primary is cut off, writes alone and dies; the other one takes over and writes, too. */
async function twoInTurn(scene: Scene): Promise<void> {
  const { load, primary, secondary } = scene;
  scene.maySplit = true;
  load.calm = false;
  const model = load.registers.fork();
  scene.event('cut the link');
  scene.cable.cut();
  await scene.lossSeen(primary);
  await scene.answers(load, LONE_ANSWERS);
  load.mayLose = true;
  await scene.crash(primary);
  await load.leave();
  await scene.mustBeMarked();
  scene.cable.heal();
  const other = await takeOver(scene, model);
  other.run();
  await scene.answers(other, LONE_ANSWERS);
  await scene.start(primary, 'secondary');
  await secondary.when('split-brain is said', ({ worker }) => {
    if (worker?.state === 'in-sync') throw new Error('in sync, though both have written alone');
    return /^Split-brain/.test(worker?.reason ?? '');
  });
  scene.event(`node ${secondary.name} says split-brain`);
  await resolve(scene, primary);
  await winner(scene, other, secondary);
}

/** The primary freezes, the other one takes over; then it goes on as if nothing had happened. */
async function frozen(scene: Scene, busy: boolean): Promise<void> {
  const { load, primary, secondary } = scene;
  // What was under way may be stored here alone when it goes on; that is a split-brain then.
  scene.maySplit = busy;
  if (!busy) await quiet(scene);
  const signal = await partOf(primary, 'node');
  const other = await part(scene, async () => {
    scene.event(`stop node ${primary.name}`);
    signal('SIGSTOP');
    await load.leave();
  });
  other.run();
  await scene.answers(other, LONE_ANSWERS);
  scene.event(`continue node ${primary.name}`);
  signal('SIGCONT');
  scene.event(`demote node ${primary.name}`);
  await primary.role('secondary');
  scene.primary = secondary;
  scene.load = other;
  if (!busy) return;
  const { worker } = await secondary.when('in sync, or split-brain', ({ worker: now }) => {
    return now?.state === 'in-sync' || /^Split-brain/.test(now?.reason ?? '');
  });
  if (worker?.state === 'in-sync') return;
  scene.event(`node ${secondary.name} says split-brain`);
  await resolve(scene, primary);
}

// ---- All of them ------------------------------------------------------------------------------

/** For an accident of the primary: its client may lose its connection. */
function onPrimary(hurt: (scene: Scene, node: Node) => Promise<void>): Accident {
  return async (scene) => {
    scene.load.mayLose = true;
    await hurt(scene, scene.primary);
  };
}

function onSecondary(hurt: (scene: Scene, node: Node) => Promise<void>): Accident {
  return (scene) => hurt(scene, scene.secondary);
}

const stopping = (part: Part) => (scene: Scene, node: Node) => stop(scene, node, part);

export const ACCIDENTS: readonly (readonly [name: string, accident: Accident])[] = [
  ['secondary: worker killed', onSecondary(killWorker)],
  ['secondary: supervisor killed', onSecondary(killSupervisor)],
  ['secondary: node killed', onSecondary(killNode)],
  ['secondary: worker stopped', onSecondary(stopping('worker'))],
  ['secondary: supervisor stopped', onSecondary(stopping('supervisor'))],
  ['secondary: node stopped', onSecondary(stopping('node'))],
  ['primary: worker killed', onPrimary(killWorker)],
  ['primary: supervisor killed', onPrimary(killSupervisor)],
  ['primary: node killed and back', onPrimary(killNode)],
  ['primary: worker stopped', (scene) => stop(scene, scene.primary, 'worker')],
  ['primary: supervisor stopped', (scene) => stop(scene, scene.primary, 'supervisor')],
  ['primary: node stopped', (scene) => stop(scene, scene.primary, 'node')],
  ['both nodes killed', killBoth],
  ['link: cut', cut],
  ['link: one way lost', (scene) => deaf(scene, oneOf(scene, [scene.pair.a, scene.pair.b]))],
  ['link: unplugged', unplug],
  ['link: flapping', flap],
  ['link: slow', slow],
  ['copying: interrupted', interrupt],
  ['failover: primary killed', onPrimary((scene) => failOver(scene))],
  ['failover: planned', switchRoles],
  ['two primaries: both written', twoWrite],
  ['two primaries: one written', oneWrites],
  ['two primaries in turn, both written', twoInTurn],
  ['two primaries: frozen under load', onPrimary((scene) => frozen(scene, true))],
  ['two primaries: frozen when idle', onPrimary((scene) => frozen(scene, false))],
];

/** What may happen once more before both are in sync again. */
const WORSE: readonly Accident[] = [
  onSecondary((scene, node) => killNode(scene, node)),
  onPrimary((scene, node) => killNode(scene, node)),
  cut,
  flap,
];

/** One after the other; in a third of all cases another one before the first has healed. */
export async function accidentIn(scene: Scene, accident: Accident): Promise<void> {
  scene.load.run();
  await scene.answers(scene.load, LONE_ANSWERS);
  scene.load.calm = false;
  await accident(scene);
  scene.load.run();
  if (scene.random(3) === 0) await oneOf(scene, WORSE)(scene);
  await scene.settle();
}
