/** Reasons of a Node's condition NetworkUnavailable that are weft's words: `weft uninstall` takes them back, and no others. */
export const conditionReasons = {
  /** False: the agent can serve pods. */
  up: 'WeftIsUp',
  /** True, of the controller: the agent has not been ready for long. */
  gone: 'WeftAgentGone',
  /** True, of the controller: no agent has spoken yet. */
  fresh: 'NoWeftYet',
} as const
