// WebAssembly that computes in place on shared memory: frames that lie side by side and stay where they are, in a bank that
// the module imports. Nothing is copied in or out. In the repository: npm ci && npm run build && node examples/wasm-in-place.mjs
import { boot } from 'pagewright';

// (module
//   (import "bank" "memory" (memory 1 65536 shared))      ;; any bank: 65536 pages are 4 GiB
//   (func (export "square") (param $at i32) (param $end i32)
//     (loop $next
//       (i32.store (local.get $at) (i32.mul (i32.load (local.get $at)) (i32.load (local.get $at))))
//       (br_if $next (i32.lt_u (local.tee $at (i32.add (local.get $at) (i32.const 4))) (local.get $end))))))
// biome-ignore format: one section a line
const MODULE = new Uint8Array([
  0x00, 0x61, 0x73, 0x6d, 0x01, 0x00, 0x00, 0x00, // magic, version
  0x01, 0x06, 0x01, 0x60, 0x02, 0x7f, 0x7f, 0x00, // type 0: (i32, i32) -> nothing
  0x02, 0x13, 0x01, 0x04, 0x62, 0x61, 0x6e, 0x6b, 0x06, 0x6d, 0x65, 0x6d, 0x6f, 0x72, 0x79, // import "bank" "memory":
  0x02, 0x03, 0x01, 0x80, 0x80, 0x04, //                      a shared memory of 1 to 65536 pages
  0x03, 0x02, 0x01, 0x00, // function 0 has type 0
  0x07, 0x0a, 0x01, 0x06, 0x73, 0x71, 0x75, 0x61, 0x72, 0x65, 0x00, 0x00, // export "square": function 0
  0x0a, 0x23, 0x01, 0x21, 0x00, // code of one function, without locals
  0x03, 0x40, //                   loop
  0x20, 0x00, 0x20, 0x00, 0x28, 0x02, 0x00, 0x20, 0x00, 0x28, 0x02, 0x00, 0x6c, 0x36, 0x02, 0x00, // store load * load
  0x20, 0x00, 0x41, 0x04, 0x6a, 0x22, 0x00, // at += 4
  0x20, 0x01, 0x49, 0x0d, 0x00, //             again while at < end
  0x0b, 0x0b,
]);

const COUNT = 100_000;
const vm = boot({ memory: '16 MiB' });
const cookie = vm.pmem.alloc({ size: COUNT * 4, contiguous: true });
const { bytes, bank, offset } = vm.pmem.view(cookie);
const numbers = new Int32Array(bytes.buffer, bytes.byteOffset, COUNT);
for (let index = 0; index < COUNT; index++) numbers[index] = index % 1000;

// The module sees the whole bank, so it is told where the cookie's bytes are.
const { instance } = await WebAssembly.instantiate(MODULE, { bank: { memory: vm.banks.memories[bank] } });
const [start, end] = [offset + COUNT * 2, offset + COUNT * 4]; // the second half
instance.exports.square(start, end);

const expected = (index) => (index % 1000) ** (index < COUNT / 2 ? 1 : 2);
const wrong = numbers.findIndex((value, index) => value !== expected(index));
console.log(
  `bank ${bank}, bytes ${start} to ${end}: ${wrong < 0 ? 'squared, and no others' : `wrong at number ${wrong}`}`,
);
vm.pmem.free(cookie);
vm.detach();
