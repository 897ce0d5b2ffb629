// The kernel's NBD client as the device of a pair.
import { suite } from 'uvu';
import { addDeviceTests } from '../helper/device-tests.ts';

const nbd = suite('nbd');

addDeviceTests(nbd, 'nbd');

nbd.run();
