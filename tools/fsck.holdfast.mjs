#!/usr/bin/env node
import { launch } from '../src/cli/bin/launch.mjs'

await launch('fsck.holdfast', 'tools/fsck.ts')
