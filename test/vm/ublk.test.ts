// The kernel's ublk driver as the device of a pair.
import { suite } from 'uvu';
import { addDeviceTests } from '../helper/device-tests.ts';

const ublk = suite('ublk');

addDeviceTests(ublk, 'ublk');

ublk.run();
