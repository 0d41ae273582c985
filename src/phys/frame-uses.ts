/** What frames are used for. */

/** The use of a frame: bits 0-3 of its word. */
export const FRAME_USE = {
  /** Not online, or never to be free. */
  absent: 0,
  free: 1,
  /** Holds, or is about to hold, a page of a vnode. */
  page: 2,
  /** First frame of a run that somebody owns. */
  run: 3,
  /** Any other frame of a run. */
  runRest: 4,
  /** Given out in a page list. */
  list: 5,
  /** In the hands of a slot that is putting a page list together; counted as list. */
  listTaking: 6,
  /** In the hands of a slot that is giving a page list back; counted as list. */
  listGiving: 7,
  /** In a page list whose owner moves what is in it when asked to; counted as list. */
  movable: 8,
  /** Free, in the cache of a slot; counted as page under the frames' lock. */
  spare: 9,
} as const;

/** The bits of a frame's word that say its use. */
export const USE_MASK = 0xf;

/** Where the owner that a frame of a page list is charged to is noted: owner + 1, 0 for nobody. */
export const OWNER_SHIFT = 4;

/** Owners for whom there is room. */
export const OWNERS_MAX = 63;

/** The bits of a frame's word that say whom it is charged to. */
export const OWNER_MASK = OWNERS_MAX << OWNER_SHIFT;

/** Where the slot that took the frame is noted: slot + 1. */
export const SLOT_SHIFT = 10;

/** The bits of a frame's word that say its use and the slot that took it. */
export const SLOT_USE_MASK = (0x7f << SLOT_SHIFT) | USE_MASK;

/** Where the slot's generation is noted. */
export const GENERATION_SHIFT = 17;

/** The bits of a generation for which there is room. */
export const GENERATION_MASK = 0x7fff;

/** The lane in which frames of a use are counted. */
export function countLane(use: number): number {
  return use === FRAME_USE.spare ? FRAME_USE.page : Math.min(use, FRAME_USE.list);
}
