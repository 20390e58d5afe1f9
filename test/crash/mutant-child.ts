/** With changed sources: explores until something is wrong or it has been enough. See mutation.ts. */
import { campaign, oneSequence } from './campaign.ts'
import { explore } from './explorer.ts'
import type { Task } from './mutation.ts'

const task = JSON.parse(process.argv[2]!) as Task

if ('sequence' in task) {
  const outcome = await explore(oneSequence(task.sequence))
  for (const line of outcome.trace) process.stdout.write(`${line}\n`)
  process.stdout.write(`${outcome.failure ?? 'all as promised'}\n`)
} else {
  const { mode, flavour, seed, images, seconds, least = 0 } = task.campaign
  const totals = { sequences: 0, images: 0 }
  const end = Date.now() + seconds * 1000
  const goOn = () => totals.images < images && (Date.now() < end || totals.images < least)
  const finding = await campaign({ seed, modes: [mode], flavour, goOn }, totals)
  const { message, sequence } = finding ?? {}
  const result = { images: totals.images, failure: message, sequence: sequence?.seed }
  process.stdout.write(`\n${JSON.stringify(result)}\n`)
}
process.exit(0)
