import { exabgp } from './daemons.ts'
import { testSpeaker } from './suite.ts'

testSpeaker(exabgp)
