/** File types and permission bits, as in <sys/stat.h>. */
export const S_IFMT = 0o170000
export const S_IFREG = 0o100000
export const S_IFDIR = 0o040000
export const S_IFLNK = 0o120000
export const S_ISUID = 0o4000
export const S_ISGID = 0o2000
export const S_ISUID_ISGID = S_ISUID | S_ISGID
export const S_IXGRP = 0o010
/** Everything chmod can change. */
export const PERMISSIONS = 0o7777

export function isDirectory(mode: number): boolean {
  return (mode & S_IFMT) === S_IFDIR
}

export function isRegular(mode: number): boolean {
  return (mode & S_IFMT) === S_IFREG
}

/** DT_* of a directory entry. */
export function direntKind(mode: number): number {
  return (mode & S_IFMT) >> 12
}
