/**
 * Tables as operators of Calico know them from calicoctl: a frame of `+`, `-` and `|`, one space around each cell.
 *
 *   +----------+---------------+-----------+
 *   | GROUPING |     CIDR      | IPS TOTAL |
 *   +----------+---------------+-----------+
 *   | IP Pool  | 172.26.0.0/16 |     65536 |
 *   +----------+---------------+-----------+
 */

export interface TableOptions {
  /** Numbers of the columns that are aligned to the right, from 0. */
  readonly right?: readonly number[]
}

/** The lines of a table. Every row has as many cells as the head. */
export function formatTable(
  head: readonly string[],
  rows: readonly (readonly string[])[],
  { right = [] }: TableOptions = {},
): string[] {
  const widths = head.map((title, at) => Math.max(title.length, ...rows.map((row) => row[at]!.length)))
  const line = `+${widths.map((width) => '-'.repeat(width + 2)).join('+')}+`
  const cells = (row: readonly string[], place: (text: string, width: number, at: number) => string) =>
    `|${row.map((text, at) => ` ${place(text, widths[at]!, at)} `).join('|')}|`
  const body = rows.map((row) =>
    cells(row, (text, width, at) => (right.includes(at) ? text.padStart(width) : text.padEnd(width))),
  )
  return [line, cells(head, centre), line, ...body, ...(body.length > 0 ? [line] : [])]
}

const centre = (text: string, width: number): string =>
  text.padStart(text.length + Math.floor((width - text.length) / 2)).padEnd(width)
