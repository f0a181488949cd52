import { gobgpd } from './daemons.ts'
import { testSpeaker } from './suite.ts'

testSpeaker(gobgpd)
