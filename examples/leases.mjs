// Two tenants share one range of leases, each with a limit of its own; what happens is recorded, and the recording can be run
// again with `npx pagewright replay`. In the repository: npm ci && npm run build && node examples/leases.mjs [FILE]
import { writeFileSync } from 'node:fs';
import { boot } from 'pagewright';

const vm = boot({ memory: '16 MiB' });
const red = vm.createOwner('red', { arenaBytes: 300 });
const blue = vm.createOwner('blue', { arenaBytes: 200 });
// Leases count for the tenant that this thread charges; one that was given back is not given out again for five frees.
const leases = vm.createArena('leases', { base: 1000, size: 1000, charge: true, quarantine: { frees: 5 } });
const recording = leases.record();
const refused = { red: 0, blue: 0 };
for (const [tenant, owner] of Object.entries({ red, blue })) {
  vm.chargeTo(owner);
  const held = [];
  for (let lease = 0; lease < 10; lease++) {
    const address = leases.tryAlloc(40);
    if (address < 0) refused[tenant]++;
    else held.push(address);
  }
  leases.split(held[0], 40, 10); // a quarter of the first lease goes back by itself
  leases.free(held[0], 10);
  leases.resize(held[1], 40, 24);
}
for (const { name, resources } of vm.statistics().owners) {
  if (name === 'red' || name === 'blue') {
    console.log(`${name}: ${resources.arenaBytes.used} of ${resources.arenaBytes.limit}, ${refused[name]} refused`);
  }
}
const text = recording.stop();
if (process.argv[2] !== undefined) writeFileSync(process.argv[2], text);
console.log(`${text.trim().split('\n').length} lines recorded`);
vm.detach();
