/** Counts how often words of columns are looked at or stored: steps of an algorithm, whatever the machine is doing. */

import { Int32Column } from '../../src/layout/column.ts';

/** Counts the touches of some tables. */
export class Touches {
  #count = 0;

  /** Rooms must be attached afterwards: some keep the view of a column. */
  constructor(tables: readonly object[]) {
    for (const table of tables) {
      for (const column of Object.values(table)) if (column instanceof Int32Column) this.#watch(column);
    }
  }

  /** Touches by an action. */
  by(action: () => void): number {
    const before = this.#count;
    action();
    return this.#count - before;
  }

  #watch(column: Int32Column): void {
    const { view } = column;
    const counted = new Proxy(view, {
      get: (target, key) => {
        if (typeof key === 'string' && key >= '0' && key <= '9~') this.#count++;
        const value: unknown = Reflect.get(target, key, target);
        return typeof value === 'function' ? value.bind(target) : value;
      },
      set: (target, key, value) => {
        this.#count++;
        return Reflect.set(target, key, value, target);
      },
    });
    Object.defineProperty(column, 'view', { value: counted });
  }
}
