import { frr } from './daemons.ts'
import { testSpeaker } from './suite.ts'

testSpeaker(frr)
