/** holdfast dump: what lies in a region, readable. */
import type { Command } from 'commander'
import { jsonOption } from './context.ts'

interface DumpSwitches {
  journal?: boolean
  index?: string
  json?: boolean
}

export function addDump(program: Command): void {
  jsonOption(program.command('dump'))
    .argument('<region>', 'region, or the mountpoint of one')
    .option('--journal', 'print the records of the journal as well')
    .option('--index <file>', 'write the index as a database that any sqlite3 opens')
    .summary('print superblocks, journal and index')
    .description(
      'Print the superblocks of a region, the records of its journal, and export its index. What is\n' +
        'mounted changes while it is read: unmount it for an exact answer.',
    )
    .action(async (text: string, { journal, index, json }: DumpSwitches) => {
      const { resolveTarget } = await import('../../control/target.ts')
      const { dump } = await import('../../../tools/dump.ts')
      dump(resolveTarget(text).region, { journal, index, json })
    })
}
