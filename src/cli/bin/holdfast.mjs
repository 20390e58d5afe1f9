#!/usr/bin/env node
import { launch } from './launch.mjs'

await launch('holdfast', 'src/cli/main.ts')
