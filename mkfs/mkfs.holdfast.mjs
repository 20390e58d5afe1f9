#!/usr/bin/env node
import { launch } from '../src/cli/bin/launch.mjs'

await launch('mkfs.holdfast', 'mkfs/mkfs.ts')
