/**
 * Whether a folder's file system has room for a lab. Without, every part of it would fail in words of its own, one after
 * the other.
 */
import { statfsSync } from 'node:fs'

/** Throws when less than so many bytes, or no file at all, can be written there. */
export function checkRoom(folder: string, leastBytes: number): void {
  const { bavail, bsize, files, ffree } = statfsSync(folder)
  const free = bavail * bsize
  const mib = (bytes: number) => `${(bytes / 2 ** 20).toFixed(1)} MiB`
  if (free < leastBytes) throw new Error(`${folder} has ${mib(free)} free; a lab needs ${mib(leastBytes)} there`)
  // Some file systems count no files.
  if (files > 0 && ffree === 0) throw new Error(`${folder} takes no more files: its inodes are used up`)
}
