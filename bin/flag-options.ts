/**
 * A table of flags as a command's options.
 */
import { type Command, Option } from 'commander'
import type { FlagRow, FlagTable, FlagValues } from '../src/config/flag-table.ts'

/** Adds the table's rows, or those that are wanted, to a command. */
export function addFlags(command: Command, table: FlagTable, wanted: (row: FlagRow) => boolean = () => true): void {
  for (const row of table.rows.filter(wanted)) command.addOption(optionOf(table, row))
}

function optionOf(table: FlagTable, row: FlagRow): Option {
  const shown =
    row.defaultText ?? (row.default === undefined || row.default === false ? undefined : String(row.default))
  const facts = [...(shown === undefined ? [] : [`default: ${shown}`]), `env: ${table.envNames(row).join(', ')}`]
  const option = new Option(row.flags, `${row.description} (${facts.join('; ')})`).helpGroup(`${row.group}:`)
  if (row.flags.includes('...>')) option.argParser((text: string, before: string[] = []) => [...before, text])
  return option
}

/** What the command line itself gave, by long name. */
export function flagsGiven(command: Command): FlagValues {
  const given: Record<string, unknown> = {}
  for (const option of command.options)
    if (command.getOptionValueSource(option.attributeName()) === 'cli')
      given[option.name()] = command.getOptionValue(option.attributeName())
  return given
}
