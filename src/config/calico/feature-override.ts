/**
 * Calico's `featureDetectOverride`: `Feature=true,Other=false`. weft has to know of one, `ChecksumOffloadBroken`: whether VXLAN
 * devices may leave checksums to the network card. It finds that out where it is not said.
 *
 * Sources: Calico felix/environment/feature_detect_linux.go.
 */

const FEATURE = 'ChecksumOffloadBroken'
const MAX_CHARACTERS = 4096

/** What the words say of it; undefined where they say nothing. Throws Error. */
export function parseFeatureOverride(text: string): boolean | undefined {
  if (text.length > MAX_CHARACTERS) throw new Error(`is longer than ${MAX_CHARACTERS} characters`)
  let broken: boolean | undefined
  for (const word of text.split(',')) {
    const [feature, value] = word.split('=').map((part) => part.trim())
    if (feature !== FEATURE) continue
    if (value !== 'true' && value !== 'false') throw new Error(`${FEATURE} is true or false`)
    broken = value === 'true'
  }
  return broken
}
