/** The control socket of one mount: for its owner and root, on this host only. */
import { rmSync } from 'node:fs'
import { createServer, type Server, type Socket } from 'node:net'
import { native } from '../native/binding.ts'
import { Complaints } from './complaints.ts'
import { Connection, type ConnectionContext } from './connection.ts'

/** Clients at a time: descriptors are for files. */
const MAX_CONNECTIONS = 128

export class ControlServer {
  readonly #server: Server
  readonly #path: string
  readonly #sockets: Set<Socket>

  private constructor(server: Server, path: string, sockets: Set<Socket>) {
    this.#server = server
    this.#path = path
    this.#sockets = sockets
  }

  /** The caller holds the claim on the region, so a socket that is already there is a dead one. */
  static async listen(path: string, context: ConnectionContext): Promise<ControlServer> {
    rmSync(path, { force: true })
    const sockets = new Set<Socket>()
    const complaints = new Complaints(context.warn)
    const quiet = { ...context, warn: (sentence: string) => complaints.tell(sentence) }
    const server = createServer((socket) => admit(socket, sockets, quiet))
    server.maxConnections = MAX_CONNECTIONS
    server.on('drop', () => quiet.warn(`control socket: more than ${MAX_CONNECTIONS} clients`))
    const before = process.umask(0o177)
    try {
      // Binds before it returns: nobody ever sees the socket with a wider mode.
      server.listen(path)
    } finally {
      process.umask(before)
    }
    await new Promise<void>((resolve, reject) => {
      server.once('error', reject).once('listening', resolve)
    })
    server.on('error', (error) => quiet.warn(`control socket: ${error.message}`))
    return new ControlServer(server, path, sockets)
  }

  /** Sends what is still to be sent, then hangs up. */
  async close(): Promise<void> {
    rmSync(this.#path, { force: true })
    const closed = new Promise<void>((resolve) => this.#server.close(() => resolve()))
    for (const socket of this.#sockets) socket.destroySoon()
    // A client that does not read must not hold up an unmount.
    const impatience = setTimeout(() => {
      for (const socket of this.#sockets) socket.destroy()
    }, 1000)
    await closed
    clearTimeout(impatience)
  }
}

function admit(socket: Socket, sockets: Set<Socket>, context: ConnectionContext): void {
  const uid = peerUid(socket)
  if (uid !== 0 && uid !== process.getuid?.()) {
    context.warn(`control socket: refused user ${uid ?? 'unknown'}`)
    socket.on('error', () => {})
    socket.destroy()
    return
  }
  sockets.add(socket)
  socket.on('close', () => sockets.delete(socket))
  new Connection(socket, context)
}

/** Node does not tell the peer of a unix socket; the kernel does, by the descriptor. */
function peerUid(socket: Socket): number | undefined {
  const { _handle: handle } = socket as unknown as { _handle?: { fd?: number } }
  if (handle?.fd === undefined || handle.fd < 0) return undefined
  try {
    return native.peerCredentials(handle.fd).uid
  } catch {
    return undefined
  }
}
