/**
 * Crashes at every persist point of generated operations: a slice of `npm run test:crash`, which
 * see (test/crash/main.ts). What a crash may leave is said in docs/DURABILITY.md.
 */
import t from 'tap'
import { type CampaignOptions, campaign, describe, type Mode } from './crash/campaign.ts'
import { exploreNarrow } from './crash/mutation.ts'

const IMAGES = 1500
/** On a machine that is busy with other things fewer images must do, but not much fewer. */
const SECONDS_MAX = 60
const IMAGES_MIN = 300

for (const mode of ['cacheline', 'page'] as const satisfies readonly Mode[]) {
  t.test(`every crash over ${mode} memory leaves what was promised`, async (t) => {
    const totals = { sequences: 0, images: 0 }
    const end = Date.now() + SECONDS_MAX * 1000
    const options: CampaignOptions = {
      seed: 2,
      modes: [mode],
      goOn: ({ images }) => images < IMAGES && (Date.now() < end || images < IMAGES_MIN),
    }
    const finding = await campaign(options, totals)
    if (finding !== undefined) t.fail(await describe(finding))
    t.ok(totals.images >= IMAGES_MIN, `${totals.images} images of ${totals.sequences} sequences`)
  })
}

t.test('operations of several records, and images of several slices', async (t) => {
  for (const mode of ['cacheline', 'page'] as const satisfies readonly Mode[]) {
    const limits = { mode, seed: 3, images: IMAGES / 3, seconds: SECONDS_MAX / 2 }
    const { images, failure, sequence } = await exploreNarrow(limits)
    const rerun = `npm run test:crash -- --narrow --kind ${mode} --sequence ${sequence}`
    t.equal(failure, undefined, failure === undefined ? `${images} images` : rerun)
  }
})
