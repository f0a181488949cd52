/**
 * A node's pod subnets as kube-router's annotations say them, which go before those of the Node's spec.
 *
 * Sources: kube-router pkg/utils/pod_cidr.go, pkg/controllers/routing/utils.go.
 */
import { Cidr } from '../../net/cidr.ts'

export const POD_CIDR_ANNOTATION = 'kube-router.io/pod-cidr'
export const POD_CIDRS_ANNOTATION = 'kube-router.io/pod-cidrs'

/** Characters of a list that is read at all, and subnets of one node. */
const MAX_CHARACTERS = 1024
const MAX_SUBNETS = 8

/** What an annotation says; a string tells what is wrong with it. Undefined where neither is there. */
export function parsePodCidrs(annotations: Readonly<Record<string, string>>): readonly Cidr[] | string | undefined {
  const key = [POD_CIDR_ANNOTATION, POD_CIDRS_ANNOTATION].find((name) => annotations[name]?.trim())
  if (key === undefined) return undefined
  const text = annotations[key]!
  if (text.length > MAX_CHARACTERS) return `${key} is longer than ${MAX_CHARACTERS} characters`
  const words = key === POD_CIDR_ANNOTATION ? [text] : text.split(',')
  if (words.length > MAX_SUBNETS) return `${key} has more than ${MAX_SUBNETS} subnets`
  const subnets: Cidr[] = []
  for (const word of words) {
    const subnet = Cidr.tryParse(word.trim())
    if (!subnet) return `${key}: ${JSON.stringify(word.trim().slice(0, 60))} is not a subnet`
    subnets.push(subnet)
  }
  return subnets
}
