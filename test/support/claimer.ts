/**
 * A process that claims regions: for every line `REGION MOMENT` it opens the region, claims it at
 * that moment and says how that went; `release` gives back what it got.
 */
import { createInterface } from 'node:readline'
import { type DaxDevice, openDevice } from '../../src/dax/device.ts'
import { DaxError } from '../../src/dax/errors.ts'
import { fsDaxGet } from '../../src/dax/holder.ts'

let dev: DaxDevice | undefined

createInterface({ input: process.stdin }).on('line', (line) => {
  const [path = '', moment] = line.split(' ')
  console.log(path === 'release' ? release() : claim(path, Number(moment)))
})
console.log('ready')

function claim(path: string, moment: number): string {
  dev = openDevice(path)
  while (Date.now() < moment);
  try {
    fsDaxGet(dev, { purpose: 'mount' })
    return 'claimed'
  } catch (error) {
    return error instanceof DaxError ? error.code : String(error)
  }
}

function release(): string {
  dev?.close()
  return 'released'
}
