/** What `--help` prints. */

/** `pagewright --help`. */
export const MAIN_HELP = `Pagewright: one memory for all threads of a program.

Usage
  pagewright run [PATH...]      read every file under the paths through one shared page cache, and verify it
  pagewright serve [DIR]        serve the files of a folder over HTTP out of one page cache
  pagewright replay FILE...     replay recorded traces and compare every result

  pagewright COMMAND --help     what a command does, its options, examples
  pagewright --version

Exit codes
  0  everything matched      1  something did not      2  wrong arguments or an unreadable file      130  Ctrl-C
`;

/** `pagewright run --help`. */
export const RUN_HELP = `Usage: pagewright run [PATH...] [options]

Boots one memory, starts worker threads, and drives real files through it. Every regular file under the paths (default:
the current directory) is read twice by the same worker: with plain fs, and through the page cache that all workers
share, into a buffer from an arena in that same memory. The checksums of both must agree. After one full pass, random
pieces of random files are read in the same way until the time is over.

A file whose size or modification time changes meanwhile is reported as changed. Symbolic links, sockets, devices and
files that may not be read are skipped and counted.

Options
  --memory SIZE     memory to boot, such as 64MiB or 1GiB (default 64MiB); less than the files hold means evictions
  --workers N       worker threads (default: one for each core, at least 2)
  --seconds N       how long to go on; the full pass is always completed (default 20)
  --seed N          seed of the random pieces (default 1)
  --write           also copy files into a scratch folder and let the workers update the copies through the cache, then
                    compare every byte with what belongs there, with plain fs (up to 64 MB of files)
  --check           pause the workers every second and check every structure, not only at the end
  --json            print one object instead of the report, and no progress
  --help            this text

The report
  hit rate          pages found in the cache, of all pages asked for; the full pass asks for most pages once
  evictions         pages that gave their frame to others
  throughput        bytes over the time that the workers spent opening and reading, times the workers; the same for
                    plain fs, in the same run; buffers and checksums are left out of both
  buffers           what taking a buffer from the shared arena and giving it back took on average
  memory            one character for a group of frames: what most of them hold

Examples
  pagewright run
  pagewright run --memory 16MiB --workers 4 --seconds 5 src /usr/share/dict
  pagewright run --json /usr/lib | jq .hitRate

Exit code 0 only if every byte matched and every check passed; 1 if not; 2 for wrong arguments; 130 after Ctrl-C.
`;

/** `pagewright serve --help`. */
export const SERVE_HELP = `Usage: pagewright serve [DIR] [options]

Serves the files of a folder (default: the current directory) over HTTP. The main thread accepts and parses; workers
bring the pages into one page cache that all of them share, and pin them until the socket has taken their bytes: nothing
is copied in between. Answers GET and HEAD with ranges, strong entity tags and conditional requests. A folder is served
through its index.html. Paths that lead out of the folder, also through symbolic links, are refused; files whose
names begin with a dot are served like any other. An answer breaks off when its file is changed meanwhile: it never
holds bytes of two versions. Clients that take nothing do not stop others.

Options
  --port N          port (default 8080; 0 takes a free one, which is printed)
  --host ADDRESS    address to listen on (default 127.0.0.1)
  --memory SIZE     memory to boot, such as 64MiB or 1GiB (default 256MiB)
  --workers N       worker threads (default: one for each core, at least 2)
  --help            this text

Numbers for Prometheus are at /-/metrics.

Examples
  pagewright serve
  pagewright serve --port 9000 --memory 1GiB ~/Videos
  curl -r 0-99 http://127.0.0.1:8080/README.md

Goes on until Ctrl-C (exit code 130); exit code 2 when it cannot begin.
`;

/** `pagewright replay --help`. */
export const REPLAY_HELP = `Usage: pagewright replay FILE... [options]

Replays recorded traces (.jsonl or .jsonl.gz) against a fresh system and compares every recorded result. The kind of a
trace is taken from its first line: recordings of the originals and of live arenas (vmem, pglist, pmem, vpm, pcache),
allocations of real programs (heap: run on an arena, with time, peak and fragmentation), and accesses of real programs
to files (file: run through the page cache). Runs in the checked build, in which locks, ranks and invariants are
asserted.

Prints one line for each file; on a mismatch also the line, what was expected, what came, and a dump.

Options
  --help            this text

Examples
  pagewright replay test/golden/vmem/*.jsonl.gz

Exit code 0 if every result matched; 1 on any mismatch; 2 for a file that cannot be read or a kind or version that is
not known.
`;
