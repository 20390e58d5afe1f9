#!/usr/bin/env node
import { launch } from './launch.mjs'

await launch('mount.holdfast', 'src/cli/main.ts')
