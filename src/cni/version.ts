/**
 * Versions of the CNI specification: which there are, and what each can do.
 *
 * Sources: CNI SPEC.md "Released versions"; CONVENTIONS.md.
 */
export const supportedVersions = ['0.1.0', '0.2.0', '0.3.0', '0.3.1', '0.4.0', '1.0.0', '1.1.0'] as const
export type CniVersion = (typeof supportedVersions)[number]

/** Printed when the request's own version is not known. */
export const latestVersion: CniVersion = '1.1.0'

/** Of a configuration without `cniVersion`. */
export const unstatedVersion: CniVersion = '0.1.0'

export const isVersion = (text: unknown): text is CniVersion => supportedVersions.includes(text as CniVersion)

/** True when `version` is `than` or later. */
export const atLeast = (version: CniVersion, than: CniVersion): boolean =>
  supportedVersions.indexOf(version) >= supportedVersions.indexOf(than)

/** The first version that has a command; absent for those that all have. */
export const commandSince: Readonly<Record<string, CniVersion>> = { CHECK: '0.4.0', STATUS: '1.1.0', GC: '1.1.0' }
