/** ACLs and extended attributes over a real mount, with setfacl, setfattr and other users. */
import t, { type Test } from 'tap'
import { cannotMount, lacks, type MountedRegion, mountRegion, notRoot } from './support/mounts.ts'

const skip =
  cannotMount() ||
  notRoot() ||
  lacks('setfacl', 'getfacl', 'setfattr', 'getfattr', 'setcap', 'getcap', 'setpriv', 'python3')

/** What the scripts below use; each script runs in an empty directory of the mount. */
const HELPERS = `
set -eu
fail() { echo "line \${BASH_LINENO[*]}: $*" >&2; exit 1; }
# as UID:GID COMMAND…
as() { local id=$1; shift; setpriv --reuid "\${id%:*}" --regid "\${id#*:}" --clear-groups "$@"; }
refused() { if "$@" 2> /dev/null; then fail "not refused: $*"; fi; }
same() { [ "$1" = "$2" ] || fail "$1, not $2"; }
mode() { stat -c %a "$1"; }
acl() { getfacl -cEp --absolute-names --numeric "$1" | tr '\\n' ' ' | sed 's/ *$//'; }
`

async function holds(t: Test, mount: MountedRegion, name: string, script: string): Promise<void> {
  const enter = `rm -rf work; mkdir -m 777 work; cd work\n`
  const outcome = await mount.client(`${HELPERS}${enter}${script}`)
  t.equal(outcome.status, 0, `${name}${outcome.stderr && `: ${outcome.stderr}`}`)
  if (outcome.status !== 0) t.comment(mount.logText())
}

const ACL_SCRIPTS = {
  'an entry for a user opens the file to that user only': `
    echo text > f; chmod 600 f; setfacl -m u:1234:r f
    same "$(acl f)" 'user::rw- user:1234:r-- group::--- mask::r-- other::---'
    same "$(mode f)" 640
    same "$(as 1234:1234 cat f)" text
    refused as 1235:1235 cat f
    refused as 1234:1234 sh -c 'echo more >> f'
    setfacl -m g:77:rw f
    as 1235:77 sh -c 'echo more >> f'; refused as 1235:78 cat f`,
  'the mask is the group bits of the mode, both ways': `
    echo text > f; chmod 600 f; setfacl -m u:1234:rw f; same "$(mode f)" 660
    chmod g-w f; same "$(acl f)" 'user::rw- user:1234:rw- group::--- mask::r-- other::---'
    as 1234:1234 cat f > /dev/null; refused as 1234:1234 sh -c 'echo more >> f'
    chmod 600 f; refused as 1234:1234 cat f
    setfacl -m m::rw f; same "$(mode f)" 660; as 1234:1234 sh -c 'echo more >> f'`,
  'without named entries only the mode is left': `
    echo > f; setfacl -m u:1234:rw f; setfacl -b f
    same "$(getfattr -m - f)" ''; same "$(acl f)" "user::rw- group::r-- other::r--"`,
  'a default ACL is inherited, cut by the mode, and the umask is not asked': `
    umask 077; mkdir d; setfacl -d -m u:1234:rwx,g::rx,o::- d
    touch d/f; same "$(acl d/f)" 'user::rw- user:1234:rwx group::r-x mask::rw- other::---'
    mkdir d/sub
    same "$(acl d/sub | sed 's/ default.*//')" \\
      'user::rwx user:1234:rwx group::r-x mask::rwx other::---'
    same "$(getfacl -dcEp --numeric d | sort)" "$(getfacl -dcEp --numeric d/sub | sort)"
    ln -s f d/link; mkfifo d/fifo; same "$(mode d/fifo)" 660
    mkdir plain; mkdir -m 755 plain/sub; touch plain/f; same "$(mode plain/f)" 600
    setfacl -k d; touch d/after; same "$(mode d/after)" 600`,
  'a default ACL of mode bits only leaves no ACL behind': `
    umask 0; mkdir d; setfacl -d -m u::rw,g::r,o::- d
    touch d/f; same "$(mode d/f)" 640; same "$(getfattr -m - d/f)" ''`,
  'O_TMPFILE and rename keep what was inherited': `
    umask 0; mkdir d; setfacl -d -m u:1234:r d
    python3 -c "
import ctypes, os
fd = os.open('d', os.O_TMPFILE | os.O_RDWR, 0o640)
path = b'/proc/self/fd/%d' % fd
assert ctypes.CDLL(None).linkat(-100, path, -100, b'd/f', 0x400) == 0"
    same "$(acl d/f)" 'user::rw- user:1234:r-- group::rwx mask::r-- other::---'
    mv d/f f; same "$(acl f)" 'user::rw- user:1234:r-- group::rwx mask::r-- other::---'`,
  'who does not own a file may not change its ACL': `
    touch f; chmod 666 f; refused as 1234:1234 setfacl -m u:1234:rw f
    setfacl -m u:1234:rw f; refused as 1234:1234 setfacl -b f
    chown 1234 f; as 1234:1234 setfacl -m u:5:r f; as 1234:1234 setfacl -b f
    refused setfacl -d -m u:5:r f`,
  'setfacl drops sgid for an owner outside the group': `
    touch f; chown 1234:77 f; chmod 2770 f; as 1234:1234 setfacl -m u:5:r f; same "$(mode f)" 770
    chmod 2770 f; as 1234:77 setfacl -m u:6:r f; same "$(mode f)" 2770`,
  'access(2) and a search bit follow the ACL': `
    mkdir d; chmod 700 d; echo text > d/f; setfacl -m u:1234:x d
    same "$(as 1234:1234 cat d/f)" text; refused as 1234:1234 ls d
    as 1234:1234 test -x d; refused as 1234:1234 test -r d; refused as 1235:1235 test -x d`,
  'ACLs are copied with cp -a and rsync -A': `
    mkdir -p a/d; touch a/f; setfacl -m u:1234:rw a/f; setfacl -d -m u:7:rx a/d
    cp -a a b; same "$(acl b/f)" "$(acl a/f)"; same "$(acl b/d)" "$(acl a/d)"
    if command -v rsync > /dev/null; then rsync -aA a/ c; same "$(acl c/f)" "$(acl a/f)"; fi`,
}

const XATTR_SCRIPTS = {
  'values are bytes; set, list, read, remove': `
    touch f; setfattr -n user.a -v 0x00ff0a f; setfattr -n user.empty f
    same "$(getfattr --only-values -n user.a f | od -An -tx1 | tr -d ' ')" 00ff0a
    same "$(getfattr f | tail -n +2 | tr '\\n' ' ')" 'user.a user.empty  '
    setfattr -x user.a f; refused getfattr -n user.a f; refused setfattr -x user.a f
    mkdir d; setfattr -n user.k -v d d; same "$(getfattr --only-values -n user.k d)" d`,
  'user. is for files and directories, as the permissions say': `
    ln -s nowhere link; refused setfattr -h -n user.a -v 1 link
    mkfifo fifo; refused setfattr -n user.a -v 1 fifo
    touch f; chmod 644 f; refused as 1234:1234 setfattr -n user.a -v 1 f
    setfattr -n user.a -v 1 f; chmod 600 f; refused as 1234:1234 getfattr -n user.a f`,
  'trusted. is for root, and others do not see it': `
    touch f; chmod 666 f; setfattr -n trusted.t -v 1 f; setfattr -n user.u -v 1 f
    same "$(getfattr -m - f | tail -n +2 | sort | tr '\\n' ' ')" ' trusted.t user.u '
    same "$(as 1234:1234 getfattr -m - f | tail -n +2 | tr '\\n' ' ')" 'user.u  '
    refused as 1234:1234 getfattr -n trusted.t f
    refused as 1234:1234 setfattr -n trusted.t -v 2 f
    ln -s f link; setfattr -h -n trusted.t -v l link
    same "$(getfattr -h --only-values -n trusted.t link)" l`,
  'other name spaces are not there': `
    touch f; refused setfattr -n system.other -v 1 f; refused setfattr -n nonsense -v 1 f
    refused setfattr -n user. -v 1 f`,
  'file capabilities go when the file is written, cut or given away': `
    new() { rm -f f; cp /bin/true f; chmod 777 f; setcap cap_net_raw+ep f; [ -n "$(getcap f)" ]; }
    new; echo more >> f; same "$(getcap f)" ''
    new; as 1234:1234 sh -c 'echo more >> f'; same "$(getcap f)" ''
    new; chown 1234 f; same "$(getcap f)" ''
    new; as 1234:1234 truncate -s 3 f; same "$(getcap f)" ''
    new; truncate -s 3 f; same "$(getcap f)" ''
    new; : > f; same "$(getcap f)" ''
    new; as 1234:1234 sh -c ': > f'; same "$(getcap f)" ''
    new; python3 -c "import os; a = os.open('/bin/true', 0); b = os.open('f', 2)
os.sendfile(b, a, 0, 9)"; same "$(getcap f)" ''
    new; cp f g; python3 -c "import os; os.copy_file_range(os.open('g', 0), os.open('f', 2), 9)"
    same "$(getcap f)" ''
    new; fallocate -p -l 4096 f; same "$(getcap f)" ''
    new; as 1234:1234 fallocate -p -l 4096 f; same "$(getcap f)" ''
    new; chmod 700 f; cat f > /dev/null; touch f; [ -n "$(getcap f)" ] || fail 'chmod took it'`,
  'suid and sgid go with a write by somebody else, and not with one by root': `
    new() { rm -f f; echo > f; chmod 6777 f; }
    new; as 1234:1234 sh -c 'echo more >> f'; same "$(mode f)" 777
    new; echo more >> f; same "$(mode f)" 6777
    new; chown 1234 f; same "$(mode f)" 777
    new; as 1234:1234 truncate -s 0 f; same "$(mode f)" 777
    new; as 1234:1234 fallocate -l 9000 f; same "$(mode f)" 777
    new; as 1234:1234 sh -c ': > f'; same "$(mode f)" 777
    new; echo 1 > g; python3 -c "import os
os.setgroups([]); os.setgid(1234); os.setuid(1234)
os.copy_file_range(os.open('g', 0), os.open('f', 2), 1)"; same "$(mode f)" 777
    new; chmod 2767 f; as 1234:1234 sh -c 'echo more >> f'; same "$(mode f)" 767
    new; chmod 2767 f; echo more >> f; same "$(mode f)" 2767`,
  'sizes end where Linux ends them': `
    python3 -c "
import errno, os
open('f', 'w').close()
def refused(code, run):
    try: run()
    except OSError as error: assert error.errno == code, error
    else: raise AssertionError('not refused')
os.setxattr('f', 'user.big', b'x' * 65536); assert len(os.getxattr('f', 'user.big')) == 65536
refused(errno.E2BIG, lambda: os.setxattr('f', 'user.bigger', b'x' * 65537))
name = 'user.' + 'n' * 250
os.setxattr('f', name, b'v'); assert os.getxattr('f', name) == b'v'
refused(errno.ERANGE, lambda: os.setxattr('f', name + 'n', b'v'))
refused(errno.EEXIST, lambda: os.setxattr('f', name, b'v', os.XATTR_CREATE))
refused(errno.ENODATA, lambda: os.setxattr('f', 'user.no', b'v', os.XATTR_REPLACE))
for i in range(250): os.setxattr('f', f'user.{i:0250}', b'v')
assert len(os.listxattr('f')) == 252
more = lambda: [os.setxattr('f', f'user.{i:0250}', b'v') for i in range(250, 300)]
refused(errno.ENOSPC, more)
assert len(os.listxattr('f')) > 252"`,
}

for (const mode of ['cache=keep', 'cache=none', 'writeback']) {
  t.test(`ACLs and extended attributes, ${mode}`, { skip }, async (t) => {
    const mount = await mountRegion({ on: 'memory', options: [mode, 'allow_other'] })
    for (const [name, script] of Object.entries({ ...ACL_SCRIPTS, ...XATTR_SCRIPTS })) {
      await holds(t, mount, name, script)
    }
    await mount.unmount()
  })
}
