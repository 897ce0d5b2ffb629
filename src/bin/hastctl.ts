#!/usr/bin/env node
import { run } from '../ctl/run.ts';

process.exitCode = await run(process.argv.slice(2));
