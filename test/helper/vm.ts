/** What tests on a real kernel have in common; see test/vm. */
import { existsSync } from 'node:fs';
import { runProgram } from './pair.ts';

/** The reason for skipping where a test could meet devices of this machine. */
export function noVm(): string | undefined {
  return process.env.VM === '1' ? undefined : 'not in the machine of npm run test:vm';
}

/** Runs a program to its end. @returns what it printed. @throws Error when it fails */
export async function must(file: string, ...args: readonly string[]): Promise<string> {
  const { code, stdout, stderr } = await runProgram(file, args);
  if (code === 0) return stdout.trim();
  throw new Error(`${file} ${args.join(' ')}: exit ${code}\n${stdout}${stderr}`);
}

/** Loads a module of the kernel, which another file may have loaded already. */
export async function loadModule(name: string, ...options: readonly string[]): Promise<void> {
  if (!existsSync(`/sys/module/${name}`)) await must('modprobe', name, ...options);
}
