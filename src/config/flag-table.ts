/**
 * The flags of a program as one table: text for --help, default, and the environment variables that stand for a flag that
 * is not given. The command line is built from the table (bin/flag-options.ts); what the values mean is the program's.
 */

export interface FlagRow {
  /** As commander reads it: `--iface <name...>`, `--ip-masq [boolean]`. */
  readonly flags: string
  readonly description: string
  /** Shown in --help; undefined when there is none. */
  readonly default?: string | boolean
  /** What the help says instead of a plain default. */
  readonly defaultText?: string
  /** flannel has the flag and its environment variable. */
  readonly flannel?: true
  /** Calico's environment variable for the same. */
  readonly calico?: string
  /** Its heading in --help. */
  readonly group: string
}

/** What the command line gave: by long name, as text, list or boolean. Flags that were not given are absent or undefined. */
export type FlagValues = Readonly<Record<string, unknown>>

/** The long name without dashes: `ip-masq`. */
export const flagName = (row: FlagRow): string => /^--([a-z0-9-]+)/.exec(row.flags)![1]!

const envName = (prefix: string, name: string): string => `${prefix}_${name.toUpperCase().replaceAll('-', '_')}`

export class FlagTable {
  readonly rows: readonly FlagRow[]
  readonly #prefix: string
  readonly #byName: ReadonlyMap<string, FlagRow>

  /** @param prefix of the environment variables: `WEFT` makes WEFT_RUN_DIR of --run-dir. */
  constructor(prefix: string, rows: readonly FlagRow[]) {
    this.rows = rows
    this.#prefix = prefix
    this.#byName = new Map(rows.map((row) => [flagName(row), row]))
  }

  /** Environment variables of a flag; the first that is set counts. */
  envNames(row: FlagRow): readonly string[] {
    const name = flagName(row)
    const { flannel, calico } = row
    return [envName(this.#prefix, name), ...(flannel ? [envName('FLANNELD', name)] : []), ...(calico ? [calico] : [])]
  }

  /** A reader of values: the command line's, else the environment's, else the default. A name that has no row throws. */
  reader(given: FlagValues, env: Readonly<Record<string, string | undefined>>): (name: string) => unknown {
    return (name) => {
      if (given[name] !== undefined) return given[name]
      const row = this.#byName.get(name)
      if (!row) throw new Error(`no flag --${name}`)
      const set = this.envNames(row)
        .map((key) => env[key])
        .find(Boolean)
      if (set === undefined) return row.default
      return row.flags.includes('...>') ? set.split(',') : set
    }
  }
}
