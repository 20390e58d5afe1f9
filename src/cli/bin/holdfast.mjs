#!/bin/sh
':' //; PATH=${PATH:-/bin}:/usr/local/bin:/usr/bin exec node --max-semi-space-size=4 "$0" "$@"

// mount(8) starts its helpers without a PATH, where `env node` finds only /usr/bin: a shell, which
// reads the line above as a command, looks further. The flag keeps a daemon in the foreground lean.
import { launch } from './launch.mjs'

await launch('holdfast', 'src/cli/main.ts')
